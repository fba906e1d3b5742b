"""The tensors of a GGUF file as the weights of a model of transformers: unpacked, under its names.

llama.cpp lays some out otherwise. Rows of queries and keys of a Llama are interleaved, since it
rotates neighbours where transformers rotates halves; the norms of a Gemma have their 1 added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfox.errors import ModelError
from nfox.files.gguf_header import GgufHeader

_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Modules of transformers by llama.cpp's names, without the layer that both begin with."""
_GEMMA_MODULES = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_MODULES_OF = {
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "gemma2": _GEMMA_MODULES,
    "gemma3": _GEMMA_MODULES,
}
_COMPUTED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that the config says."""
_UNPACKED_AT_ONCE = 1 << 18
"""Numbers, of a part of a tensor that stays in the processor's caches."""
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


def name_of(stored_name: str, architecture: str) -> str:
    """Return the name that a tensor of GGUF has in a model of transformers. One that is not known
    keeps its own within its layer, which has no place for it.

    Args:
        stored_name: of the tensor in the file.
        architecture: of the model, as GGUF calls it.
    """
    known = _NAME.fullmatch(stored_name)
    if known is None:
        return f"model.{stored_name}"
    layer, module, kind = known.groups()
    name = _MODULES_OF.get(architecture, {}).get(module) or _MODULES.get(module)
    if layer is None:
        return f"{name or f'model.{module}'}.{kind}"
    return f"model.layers.{layer}.{name or module}.{kind}"


def unpack(
    header: GgufHeader,
    config: Any,
    dtype: torch.dtype,
    progress: Callable[[int, int], None],
    left_out: Container[str] = (),
) -> dict[str, Tensor]:
    """Return the weights of a model by transformers' names.

    Args:
        header: of the model's file.
        config: of the model, as transformers has it.
        dtype: of what is returned. What is packed is unpacked to float32 before.
        progress: is called with the tensors that are done and their total.
        left_out: the names in the file of tensors in whose places there are zeros without memory.

    Raises:
        ModelError: for a type of tensor that cannot be unpacked.
    """
    weights = {}
    stored = {name: tensor for name, tensor in header.tensors.items() if name not in _COMPUTED}
    for done, (stored_name, tensor) in enumerate(stored.items(), 1):
        if stored_name in left_out:
            weights[name_of(stored_name, header.architecture)] = _placeholder(tensor.shape, dtype)
            progress(done, len(stored))
            continue
        # What is computed with vectors is computed before they are rounded.
        values = read_tensor(header, stored_name, dtype if len(tensor.shape) > 1 else torch.float32)
        values = as_transformers(values, stored_name, header.architecture, config)
        weights[name_of(stored_name, header.architecture)] = values.to(dtype).contiguous()
        progress(done, len(stored))
    return weights


def _placeholder(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return zeros that all have one place in memory; transformers keeps them so."""
    return torch.zeros((), dtype=dtype).expand(*shape)


def read_tensor(header: GgufHeader, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return one tensor of a file, as it is laid out there.

    Args:
        header: of the file.
        name: of the tensor in the file.
        dtype: of what is returned. What is packed is unpacked to float32 before.

    Raises:
        ModelError: for a type of tensor that cannot be unpacked.
    """
    values, start = torch.empty(header.tensors[name].shape, dtype=dtype), 0
    for part in unpacked_parts(header, name):
        values[start : start + len(part)] = part
        start += len(part)
    return values


def unpacked_parts(header: GgufHeader, name: str) -> Iterator[Tensor]:
    """Yield the rows of a tensor of a file, float32, some at a time: a whole embedding would take
    gigabytes.

    Args:
        header: of the file.
        name: of the tensor in the file.

    Raises:
        ModelError: for a type of tensor that cannot be unpacked.
    """
    from gguf import GGMLQuantizationType, dequantize

    tensor = header.tensors[name]
    kind, shape = GGMLQuantizationType(tensor.type_id), tensor.shape
    count, *row = shape if len(shape) > 1 else (1, *shape)  # blocks lie within a row
    rows = stored_bytes(header, name).reshape(count, -1)
    at_once = max(_UNPACKED_AT_ONCE // prod(row), 1)
    for start in range(0, count, at_once):
        try:
            with np.errstate(invalid="ignore", over="ignore"):  # what is no number is said later
                numbers = dequantize(np.array(rows[start : start + at_once]), kind)
        except NotImplementedError as error:
            raise ModelError(
                f"{header.path}: {name} is of type {kind.name}, which cannot be unpacked",
                "take a file with another quantisation (Q8_0, Q4_K_M, ...)",
            ) from error
        yield torch.from_numpy(numbers).reshape(-1, *shape[1:])


def stored_bytes(header: GgufHeader, name: str) -> NDArray[np.uint8]:
    """Return the bytes of a tensor of a file, which are read when they are used."""
    tensor = header.tensors[name]
    return np.memmap(header.path, np.uint8, "r", tensor.start, tensor.size)


def as_transformers(values: Tensor, name: str, architecture: str, config: Any) -> Tensor:
    """Return a tensor, or anything of its rows, laid out as transformers has it.

    Args:
        values: [rows, ...] as they are laid out in the file.
        name: of the tensor in the file.
        architecture: of the model, as GGUF calls it.
        config: of the model, as transformers has it.
    """
    if architecture == "llama" and (place := re.search(r"\.attn_([qk])\.", name)):
        heads = config.num_attention_heads if place[1] == "q" else config.num_key_value_heads
        if values.shape[0] % (2 * heads) == 0:  # else the sizes are not the config's: that is said
            halves = values.reshape(heads, -1, 2, *values.shape[1:]).transpose(1, 2)
            return halves.reshape(values.shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return values - 1
    return values
