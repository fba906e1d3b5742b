"""A loaded checkpoint as a GGUF file: the same weights, in the same dtype, for llama.cpp.

The file has no vocabulary: token ids go in and come out, and llama.cpp loads a model without one.
So the tokenizer need not be one of those that llama.cpp knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfox.errors import ModelError, NfoxError
from nfox.eval.peers.packages import package
from nfox.models.options import LoadedModel
from nfox.models.packed_layers import packed_layers
from nfox.models.transformers_target import TransformersTarget

_ARCHITECTURES = {
    "LlamaForCausalLM": "LLAMA",
    "MistralForCausalLM": "LLAMA",
    "Qwen2ForCausalLM": "QWEN2",
    "Qwen3ForCausalLM": "QWEN3",
}
"""Classes of transformers that llama.cpp computes alike, and its names of their architectures."""

_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
_ROTATIONS = ("default", "linear", "llama3")
"""Kinds of rotary embedding that consist of fixed frequencies alone."""


def ggml_type(dtype: torch.dtype) -> Any:
    """Return the number of a dtype in GGUF and llama.cpp."""
    return package("gguf", "gguf").GGMLQuantizationType[_DTYPES[dtype]]


def write(model: LoadedModel, path: Path) -> None:
    """Write a model as GGUF; one tensor at a time is copied.

    Args:
        model: a Llama, Mistral, Qwen 2 or Qwen 3 that is not quantised.
        path: of the file.

    Raises:
        ModelError: for a model that llama.cpp does not compute alike, or without the package gguf.
        NfoxError: if the file cannot be written, as on a full disk.
    """
    target = model.target
    _check(target)
    gguf = package("gguf", "gguf")
    arch = gguf.MODEL_ARCH[_ARCHITECTURES[type(target.model).__name__]]
    tensors = list(_tensors(target, arch, gguf))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _write_facts(target, writer)
    for name, tensor, _ in tensors:
        dtype = _dtype(tensor)
        size = tensor.numel() * dtype.itemsize
        writer.add_tensor_info(name, tensor.shape, None, size, raw_dtype=ggml_type(dtype))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor, heads in tensors:
            writer.write_tensor_data(_as_numpy(tensor, heads))
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
    """Refuse a model that llama.cpp would not compute, or would compute otherwise.

    Raises:
        ModelError: with the first difference.
    """
    model_class = type(target.model).__name__
    if model_class not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ModelError(f"a {model_class} cannot be written as GGUF here", f"what can: {known}")
    is_packed = any(packed_layers(target.model))
    if is_packed or getattr(target.config, "quantization_config", None) is not None:
        raise ModelError(
            "quantised weights cannot be written as GGUF: llama.cpp quantises otherwise",
            "compare with a target that is not quantised",
        )
    for name, tensor in target.model.named_parameters():
        if tensor.is_meta:
            raise ModelError(f"{name} is not in memory, so it cannot be written as GGUF")
        if tensor.dtype not in _DTYPES:
            raise ModelError(f"GGUF has no counterpart of {tensor.dtype}", "try --dtype float32")
    difference = next(_differences(target), None)
    if difference:
        raise ModelError(f"llama.cpp computes this model otherwise: it has {difference}")


def _differences(target: TransformersTarget) -> Iterator[str]:
    """Yield the parts of a model that llama.cpp would compute otherwise."""
    config = target.config
    if config.hidden_act != "silu":
        yield f"activation {config.hidden_act}"
    window, kinds = (getattr(config, name, None) for name in ("sliding_window", "layer_types"))
    if window and window < target.max_context and set(kinds or ()) != {"full_attention"}:
        yield f"a sliding window of {window} tokens"
    rotation = _rotation(target)
    scaled = rotation != "default" and _ARCHITECTURES[type(target.model).__name__] != "LLAMA"
    if rotation not in _ROTATIONS or scaled:
        yield f"rotary embedding {rotation}"


def _write_facts(target: TransformersTarget, writer: Any) -> None:
    """Write the sizes of a model and the facts of its layers."""
    config = target.config
    head_dim = _head_dim(config)
    writer.add_context_length(target.max_context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
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
        known = names.get_type_and_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ModelError(f"GGUF has no name for {name}")
        tensor_type, gguf_name = known
        yield gguf_name, tensor.detach(), heads.get(tensor_type, 0)


def _rope_factors(target: TransformersTarget) -> Tensor | None:
    """Return the divisors of the plain frequencies, [D / 2]; None where frequencies are plain."""
    if _rotation(target) == "default":
        return None
    frequencies: Tensor = target.model.model.rotary_emb.inv_freq.float().cpu()
    dim, base = _head_dim(target.config), target.config.rope_parameters["rope_theta"]
    factors: Tensor = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim) / frequencies
    return factors


def _rotation(target: TransformersTarget) -> str:
    return str(target.config.rope_parameters.get("rope_type", "default"))


def _head_dim(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype that a tensor is written in: norms and biases are float32 in every GGUF."""
    return torch.float32 if tensor.dim() == 1 else tensor.dtype


def _as_numpy(tensor: Tensor, heads: int) -> Any:
    """Return a tensor as an array of numpy, in the order of rows and the dtype of the file.

    Args:
        tensor: as the model has it.
        heads: the number of heads, for queries or keys whose rows are to be interleaved:
            transformers rotates pairs of the two halves of a head, llama.cpp pairs of neighbours. 0
            leaves rows where they are, as Qwen's.
    """
    if heads:
        tensor = tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape_as(tensor)
    tensor = tensor.to("cpu", _dtype(tensor)).contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
