"""GGUF files as llama.cpp's converter writes them, of models and tokenizers of transformers.

The names of tensors are those of the package gguf, and not the reader's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

Types = gguf.GGMLQuantizationType
K_QUANTS = {
    **{Types.Q2_K: 80, Types.Q3_K: 108, Types.Q4_K: 0, Types.Q5_K: 0, Types.Q6_K: 208},
    Types.IQ4_NL: 0,
}
"""Types that the package unpacks only, and where the scales of a block lie in it."""


def write(
    path: Path,
    model: Any,
    tokenizer: Any = None,
    type_: gguf.GGMLQuantizationType = Types.F32,
    metadata: dict[str, Any] | None = None,
    others: dict[str, gguf.GGMLQuantizationType] | None = None,
) -> dict[str, torch.Tensor]:
    """Write a model, and return its weights as they are once packed, by transformers' names.

    Args:
        path: of the file.
        model: of one of the architectures that llama.cpp has.
        tokenizer: a byte-level one that splits as GPT-2's does; None writes no vocabulary.
        type_: of its matrices. A norm, and a matrix whose rows have no whole blocks, is F32.
        metadata: further strings, integers or numbers, which replace others.
        others: the types of matrices by the last part of their names, where it is another one.
    """
    config = model.config
    name = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    arch = next(key for key, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
    writer = gguf.GGUFWriter(path, name)
    for key, value in (_facts(config, name) | _words(tokenizer) | (metadata or {})).items():
        _add(writer, key, value)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    state = dict(model.state_dict())
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    packed = {}
    for key, weight in state.items():
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        kind = (others or {}).get(key.split(".")[-2], type_)
        packed[key] = _put(writer, stored, key, weight.float(), config, name, kind)
    for key, values in _divisors(model).items():
        writer.add_tensor(key, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return packed


def _add(writer: Any, key: str, value: Any) -> None:
    kinds = {str: "add_string", bool: "add_bool", int: "add_uint32", float: "add_float32"}
    getattr(writer, kinds.get(type(value), "add_array"))(key, value)


def _facts(config: Any, name: str) -> dict[str, Any]:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotation = config.rope_parameters.get("full_attention", config.rope_parameters)
    facts = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rotation["rope_theta"]),
        "rope.dimension_count": int(head_dim * rotation.get("partial_rotary_factor", 1.0)),
    }
    if name != "phi3":
        facts |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    if (window := getattr(config, "sliding_window", None)) is not None:
        facts["attention.sliding_window"] = window
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            facts[key] = float(getattr(config, key))
    if rotation["rope_type"] in ("linear", "yarn"):
        facts |= {
            "rope.scaling.type": rotation["rope_type"],
            "rope.scaling.factor": rotation["factor"],
        }
    if original := rotation.get("original_max_position_embeddings"):
        facts["rope.scaling.original_context_length"] = original
    return {f"{name}.{key}": value for key, value in facts.items()}


def _words(tokenizer: Any) -> dict[str, Any]:
    if tokenizer is None:
        return {"tokenizer.ggml.model": "no_vocab"}
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = set(tokenizer.all_special_tokens)
    merges = tokenizer.backend_tokenizer.model.__getstate__()
    import json

    pairs = json.loads(merges)["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in pairs],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": False,
        **({"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}),
    }


def _put(
    writer: Any, stored: str, key: str, weight: torch.Tensor, config: Any, name: str, type_: Any
) -> torch.Tensor:
    """Write a tensor; return it as transformers has it once it is packed."""
    values = weight
    heads = 0
    if name == "llama" and ("q_proj" in key or "k_proj" in key):
        heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
        values = values.reshape(heads, 2, -1, *values.shape[1:]).transpose(1, 2).reshape_as(values)
    if name.startswith("gemma") and key.endswith("norm.weight"):
        values = values + 1
    data, block = values.numpy(), gguf.GGML_QUANT_SIZES[type_][0]
    kind = type_ if data.ndim > 1 and data.shape[-1] % block == 0 else Types.F32
    packed = _pack(data, kind)
    writer.add_tensor(stored, packed, raw_dtype=kind)
    values = torch.tensor(gguf.dequantize(packed, kind)).reshape(weight.shape)
    if name.startswith("gemma") and key.endswith("norm.weight"):
        values = values - 1
    if heads:
        rows = values.reshape(heads, -1, 2, *values.shape[1:])
        values = torch.cat([rows[:, :, :1], rows[:, :, 1:]], 2).transpose(1, 2)
    return values.reshape(weight.shape)


def _pack(data: np.ndarray, kind: Any) -> np.ndarray:
    if kind not in K_QUANTS:
        return gguf.quantize(data, kind)
    # Any bytes are weights of these types, if their scales are numbers.
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(data.size).integers(
        0, 256, (data.size // elements, size), dtype=np.uint8
    )
    scales = np.full((len(blocks), 2), 0.0021, dtype=np.float16).view(np.uint8)
    end = min(K_QUANTS[kind] + 4, size)
    blocks[:, K_QUANTS[kind] : end] = scales[:, : end - K_QUANTS[kind]]
    return blocks.reshape(*data.shape[:-1], -1)


def _divisors(model: Any) -> dict[str, np.ndarray]:
    """Return the tensors by which positions are scaled, where numbers of the metadata do not."""
    config = model.config
    rotation = config.rope_parameters
    if rotation.get("rope_type") == "longrope":
        return {
            f"rope_factors_{length}.weight": np.array(rotation[f"{length}_factor"], np.float32)
            for length in ("long", "short")
        }
    if rotation.get("rope_type") != "llama3":
        return {}
    frequencies = model.model.rotary_emb.inv_freq.float()
    steps = torch.arange(len(frequencies)).float() / len(frequencies)
    return {"rope_freqs.weight": (rotation["rope_theta"] ** -steps / frequencies).numpy()}
