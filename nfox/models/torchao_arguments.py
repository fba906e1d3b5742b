"""Weights of 8 and 4 bits on a GPU, by torchao: its kernels take them as they are."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import transformers

from nfox.errors import ModelError
from nfox.models.options import WeightBits

_GROUP = 32  # inputs of an output that have one scale


def torchao_arguments(weight_bits: WeightBits) -> dict[str, Any]:
    """Return the arguments of transformers' `from_pretrained` by which torchao quantises weights.

    Args:
        weight_bits: "int8" with a scale for each output, or "int4" in groups of 32 inputs, packed
            for the tinygemm kernels.

    Raises:
        ModelError: if torchao is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ModelError(
            f"--quantize {weight_bits} on a GPU needs torchao, which is not installed",
            "pip install torchao, or --load-in-4bit, --load-in-8bit",
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if weight_bits == "int8":
        kind = Int8WeightOnlyConfig()
    else:
        kind = Int4WeightOnlyConfig(
            group_size=_GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    return {
        "quantization_config": transformers.TorchAoConfig(kind),
        "dtype": torch.bfloat16,
    }
