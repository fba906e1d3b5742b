"""A loaded checkpoint as a GGUF file: the same weights, in the same dtype, for llama.cpp.

The file has no vocabulary: ids go in and ids come out, and llama.cpp takes a model without one. So
there is nothing to be said about tokenizers, of which it knows some and not others.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfox.errors import ModelError, NfoxError
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget

_ARCHITECTURES = {
    "LlamaForCausalLM": "LLAMA",
    "MistralForCausalLM": "LLAMA",
    "Qwen2ForCausalLM": "QWEN2",
    "Qwen3ForCausalLM": "QWEN3",
}
"""Classes of transformers whose sums llama.cpp does too, and what it calls them."""

_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
_ROTATIONS = ("default", "linear", "llama3")
"""Kinds of rotary embedding that are fixed frequencies and nothing else."""


def package(name: str, install: str) -> Any:
    """Import an optional package.

    Args:
        name: of the module.
        install: what pip is told.

    Raises:
        ModelError: if it is not there, or does not start.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(f"{install} is not installed", f"pip install {install}") from error
    except (ImportError, OSError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise ModelError(f"{install} does not start: {said}", f"pip install {install}") from error


def kind(dtype: torch.dtype) -> Any:
    """Return the number that GGUF and llama.cpp have for a dtype of a model that `write` takes."""
    return package("gguf", "gguf").GGMLQuantizationType[_DTYPES[dtype]]


def write(model: LoadedModel, path: Path) -> None:
    """Write a model as GGUF; of the tensors one at a time is copied.

    Args:
        model: a Llama, Mistral, Qwen 2 or Qwen 3 that is not quantised.
        path: of the file.

    Raises:
        ModelError: for a model that llama.cpp does not compute alike, or without package gguf.
        NfoxError: if it cannot be written, as on a full disk.
    """
    target = model.target
    _check(target)
    gguf = package("gguf", "gguf")
    arch = gguf.MODEL_ARCH[_ARCHITECTURES[type(target.model).__name__]]
    tensors = list(_tensors(target, arch, gguf))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _describe(target, writer)
    for name, tensor, _ in tensors:
        dtype = _dtype(tensor)
        size = tensor.numel() * dtype.itemsize
        writer.add_tensor_info(name, tensor.shape, None, size, raw_dtype=kind(dtype))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor, heads in tensors:
            writer.write_tensor_data(_numbers(tensor, heads))
        end = writer.fout[0].tell()
        writer.close()
        if path.stat().st_size < end:  # numpy does not look whether its last bytes were written
            raise OSError
    except OSError as error:
        why = error.strerror or "the disk is full"
        raise NfoxError(
            f"{path} was not written: {why}", "free some space, or name another folder by TMPDIR"
        ) from error
    finally:
        writer.close()


def _check(target: TransformersTarget) -> None:
    """Refuse what llama.cpp would not compute, or would compute otherwise.

    Raises:
        ModelError: with what it is.
    """
    kind = type(target.model).__name__
    if kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ModelError(f"a {kind} cannot be written as GGUF here", f"what can: {known}")
    if getattr(target.config, "quantization_config", None) is not None:
        raise ModelError(
            "quantised weights cannot be written as GGUF: llama.cpp quantises otherwise",
            "compare with a target that is not quantised",
        )
    for name, tensor in target.model.named_parameters():
        if tensor.is_meta:
            raise ModelError(f"{name} is not in memory, so it cannot be written as GGUF")
        if tensor.dtype not in _DTYPES:
            raise ModelError(f"GGUF has no counterpart of {tensor.dtype}", "try --dtype float32")
    other = next(_otherwise(target), None)
    if other:
        raise ModelError(f"llama.cpp computes this model otherwise: it has {other}")


def _otherwise(target: TransformersTarget) -> Iterator[str]:
    """Yield what llama.cpp would not do as the model does."""
    config = target.config
    if config.hidden_act != "silu":
        yield f"activation {config.hidden_act}"
    window, kinds = (getattr(config, name, None) for name in ("sliding_window", "layer_types"))
    if window and window < target.max_context and set(kinds or ()) != {"full_attention"}:
        yield f"a sliding window of {window} tokens"
    kind = _rotation(target)
    scaled = kind != "default" and _ARCHITECTURES[type(target.model).__name__] != "LLAMA"
    if kind not in _ROTATIONS or scaled:
        yield f"rotary embedding {kind}"


def _describe(target: TransformersTarget, writer: Any) -> None:
    """Write everything but the weights."""
    config = target.config
    head = _head_dim(config)
    writer.add_context_length(target.max_context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(target.vocabulary_size)
    writer.add_tokenizer_model("no_vocab")


def _tensors(target: TransformersTarget, arch: Any, gguf: Any) -> Iterator[tuple[str, Tensor, int]]:
    """Yield GGUF's names, tensors, and the number of heads where rows are to be interleaved.

    Raises:
        ModelError: for a tensor that the architecture has no name for.
    """
    config = target.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {}
    if arch == gguf.MODEL_ARCH.LLAMA:
        heads[gguf.MODEL_TENSOR.ATTN_Q] = config.num_attention_heads
        heads[gguf.MODEL_TENSOR.ATTN_K] = config.num_key_value_heads
    factors = _rope_factors(target)
    if factors is not None:
        name = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]
        yield f"{name}.weight", factors, 0
    for name, tensor in target.model.named_parameters():  # tied weights come once
        found = names.get_type_and_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"GGUF has no name for {name}")
        yield found[1], tensor.detach(), heads.get(found[0], 0)


def _rope_factors(target: TransformersTarget) -> Tensor | None:
    """Return [D / 2] what plain frequencies are divided by; None where they are plain."""
    if _rotation(target) == "default":
        return None
    found: Tensor = target.model.model.rotary_emb.inv_freq.float().cpu()
    dim, base = _head_dim(target.config), target.config.rope_parameters["rope_theta"]
    factors: Tensor = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim) / found
    return factors


def _rotation(target: TransformersTarget) -> str:
    return str(target.config.rope_parameters.get("rope_type", "default"))


def _head_dim(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _dtype(tensor: Tensor) -> torch.dtype:
    """Return what a tensor is written in: norms and biases are float32 in every GGUF."""
    return torch.float32 if tensor.dim() == 1 else tensor.dtype


def _numbers(tensor: Tensor, heads: int) -> Any:
    """Return a tensor as numpy writes it.

    Args:
        tensor: as the model has it.
        heads: of queries or keys that are rotated: in pairs of the two halves of a head by
            transformers, in pairs of neighbours by llama.cpp, so the halves are interleaved. 0
            leaves rows where they are, as Qwen's.
    """
    if heads:
        tensor = tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape_as(tensor)
    tensor = tensor.to("cpu", _dtype(tensor)).contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
