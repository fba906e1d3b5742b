"""The config of the model in a GGUF file, which has no config.json: what its metadata says, under
llama.cpp's names.

transformers makes one as well, but leaves out what is not the same for all models of an
architecture: scaled positions, windows, the scale of attention. Here everything is taken over that
changes a logit, and what has no counterpart is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nfox.errors import ModelError
from nfox.files.gguf_header import GgufHeader
from nfox.models.gguf_rotation import OTHER_FILE, count, rotation_of

_REFUSED = (
    "expert_count", "logit_scale", "residual_scale", "embedding_scale", "attention.scale",
    "attention.clamp_kqv", "attention.max_alibi_bias", "attention.temperature_scale",
)  # fmt: skip
"""Keys of metadata by which a model is computed otherwise than its architecture says."""
_GEMMA_27B = {"gemma2": 46, "gemma3": 62}
"""The layers of those models whose attention is scaled by the width of the embedding."""


def config_of(header: GgufHeader) -> dict[str, Any]:
    """Return the config of a model as transformers has it.

    Args:
        header: of the model's file.

    Raises:
        ModelError: if the architecture, or something of the model, is none that can be computed
            here.
    """
    architecture = header.architecture
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{header.path}: a model of architecture {architecture[:40]!r} is not read from GGUF",
            f"what is: {', '.join(ARCHITECTURES)}; or pass the model's safetensors",
        )
    for key in _REFUSED:
        if header.of_architecture(key):
            raise ModelError(f"{header.path}: {architecture}.{key} is not known here", OTHER_FILE)
    return _common(header) | ARCHITECTURES[architecture](header)


def _common(header: GgufHeader) -> dict[str, Any]:
    """Return what the configs of all architectures have."""
    metadata = header.metadata
    heads = count(header, "attention.head_count")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{header.path}: there is no token_embd.weight", OTHER_FILE)
    return {
        "max_position_embeddings": count(header, "context_length"),
        "hidden_size": count(header, "embedding_length"),
        "intermediate_size": count(header, "feed_forward_length"),
        "num_hidden_layers": count(header, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": count(header, "attention.head_count_kv", heads),
        "head_dim": _head_dim(header),
        "rms_norm_eps": header.of_architecture("attention.layer_norm_rms_epsilon", 1e-6),
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "rope_parameters": rotation_of(header),
        # None, where the file is silent: another model's tokens are none of this one.
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": None,
    }


def _head_dim(header: GgufHeader) -> int:
    """Return the width of a head, all of which is rotated but in Phi 3."""
    width = count(header, "embedding_length") // count(header, "attention.head_count")
    rotated = count(header, "rope.dimension_count", width)
    is_llama = header.architecture == "llama"  # of which older files say it by the rotation
    head_dim = count(header, "attention.key_length", rotated if is_llama else width)
    values = count(header, "attention.value_length", head_dim)
    if values != head_dim or (rotated not in (width, head_dim) and header.architecture != "phi3"):
        raise ModelError(
            f"{header.path}: keys of {head_dim} numbers, values of {values} and {rotated} that are "
            "rotated are not known here together",
            OTHER_FILE,
        )
    return head_dim


def _llama(header: GgufHeader) -> dict[str, Any]:
    """Llama; and Mistral, which llama.cpp writes as one."""
    found = header.tensors
    config = {
        "model_type": "llama",
        "attention_bias": "blk.0.attn_q.bias" in found,
        "mlp_bias": "blk.0.ffn_up.bias" in found,
    }
    if window := header.of_architecture("attention.sliding_window"):
        return {"model_type": "mistral", "sliding_window": window}
    return config


def _qwen2(header: GgufHeader) -> dict[str, Any]:
    return {"model_type": "qwen2"}


def _qwen3(header: GgufHeader) -> dict[str, Any]:
    return {"model_type": "qwen3", "attention_bias": "blk.0.attn_q.bias" in header.tensors}


def _phi3(header: GgufHeader) -> dict[str, Any]:
    rotation = rotation_of(header)
    head_dim = _head_dim(header)
    rotated = count(header, "rope.dimension_count", head_dim)
    length = rotation.get("original_max_position_embeddings", count(header, "context_length"))
    return {
        "model_type": "phi3",
        "original_max_position_embeddings": length,
        "rope_parameters": rotation | {"partial_rotary_factor": rotated / head_dim},
        "sliding_window": header.of_architecture("attention.sliding_window") or None,
    }


def _gemma(header: GgufHeader) -> dict[str, Any]:
    return {"model_type": "gemma"}


def _gemma2(header: GgufHeader) -> dict[str, Any]:
    keys = ("attn_logit_softcapping", "final_logit_softcapping")
    limits = {key: header.of_architecture(key) for key in keys}
    return {
        "model_type": "gemma2",
        "query_pre_attn_scalar": _attention_scalar(header),
        "sliding_window": header.of_architecture("attention.sliding_window", 4096),
        **{key: value for key, value in limits.items() if value is not None},
    }


def _gemma3(header: GgufHeader) -> dict[str, Any]:
    every = header.of_architecture("attention.sliding_window_pattern", 6)
    layers = range(count(header, "block_count")) if type(every) is int else ()
    local = header.of_architecture("rope.freq_base_swa", 10000.0)
    slides = every if isinstance(every, list) else [(i + 1) % every > 0 for i in layers]
    return {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": _attention_scalar(header),
        "sliding_window": count(header, "attention.sliding_window"),
        "layer_types": ["sliding_attention" if yes else "full_attention" for yes in slides],
        "final_logit_softcapping": header.of_architecture("final_logit_softcapping"),
        "rope_parameters": {
            "full_attention": rotation_of(header),
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


def _attention_scalar(header: GgufHeader) -> int:
    """Return the number by whose root scores are divided, which no file says: as llama.cpp has
    it, the width of a head, and of the model with 27 billion weights another one.
    """
    if count(header, "block_count") == _GEMMA_27B[header.architecture]:
        return count(header, "embedding_length") // count(header, "attention.head_count")
    return _head_dim(header)


ARCHITECTURES: dict[str, Callable[[GgufHeader], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi3": _phi3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}
"""What else each architecture's config has, by its name in GGUF."""
