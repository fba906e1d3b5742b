"""How a model in a GGUF file rotates queries and keys by their positions, as transformers' configs
have it. llama.cpp writes the scaling of Llama 3.1 and of Phi 3 as tensors: a divisor for each
frequency.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from nfox.errors import ModelError
from nfox.files.gguf_header import GgufHeader
from nfox.models.gguf_weights import read_tensor

OTHER_FILE = "take another GGUF file of the model, or its safetensors from the hub"
_LLAMA3_SCALING = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What all models have whose positions are scaled as in Llama 3.1."""


def count(header: GgufHeader, key: str, default: int | None = None) -> int:
    """Return a count that the metadata give, the same for all layers.

    Raises:
        ModelError: if it is missing without a default, or no count.
    """
    value = header.of_architecture(key, default)
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    if type(value) is not int or value < 1:
        said = "missing" if value is None else str(value)[:40]
        raise ModelError(
            f"{header.path}: {header.architecture}.{key} is {said}, expected one number for all "
            "layers",
            OTHER_FILE,
        )
    return value


def rotation_of(header: GgufHeader) -> dict[str, Any]:
    """Return the `rope_parameters` of a model: plain positions, or scaled for longer texts.

    Raises:
        ModelError: if they are scaled in a way that is not known here.
    """
    plain = {
        "rope_type": "default",
        "rope_theta": header.of_architecture("rope.freq_base", 10000.0),
    }
    if "rope_freqs.weight" in header.tensors:
        return plain | _llama3_scaling(header, plain["rope_theta"])
    if "rope_factors_long.weight" in header.tensors:
        return plain | _long_scaling(header)
    kind = header.of_architecture("rope.scaling.type", "linear")
    former = header.of_architecture("rope.scale_linear", 1.0)
    factor = header.of_architecture("rope.scaling.factor") or former
    if kind == "none" or factor == 1.0:
        return plain
    if kind == "linear":
        return plain | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = count(header, "rope.scaling.original_context_length")
        return plain | {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise ModelError(f"{header.path}: positions scaled by {kind!r} are not known here", OTHER_FILE)


def _llama3_scaling(header: GgufHeader, theta: float) -> dict[str, Any]:
    """Return the scaling whose result, a divisor for each frequency, the file has.

    Raises:
        ModelError: if it is another than Llama 3's.
    """
    divisors = read_tensor(header, "rope_freqs.weight")
    scaling: dict[str, Any] = {
        "rope_type": "llama3",
        "factor": round(float(divisors.max()), 3),
        **_LLAMA3_SCALING,
    }
    frequencies = theta ** -(torch.arange(len(divisors), dtype=torch.float64) / len(divisors))
    turns = frequencies * scaling["original_max_position_embeddings"] / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = ((turns - low) / (high - low)).clamp(0, 1)
    expected = 1 / (share + (1 - share) / scaling["factor"])
    if not torch.allclose(divisors.double(), expected, rtol=1e-3):
        raise ModelError(
            f"{header.path}: its positions are scaled otherwise than those of Llama 3", OTHER_FILE
        )
    return scaling


def _long_scaling(header: GgufHeader) -> dict[str, Any]:
    """Return the scaling of Phi 3, with factors for texts up to its first length and for longer
    ones.
    """
    scaling = {
        "rope_type": "longrope",
        "long_factor": read_tensor(header, "rope_factors_long.weight").tolist(),
        "short_factor": read_tensor(header, "rope_factors_short.weight").tolist(),
        "original_max_position_embeddings": count(
            header, "rope.scaling.original_context_length", count(header, "context_length")
        ),
    }
    factor = header.of_architecture("rope.scaling.attn_factor")
    return scaling | ({"attention_factor": factor} if factor else {})
