"""Models in GGUF files: their weights, their configs and what they decode to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf_file
import pytest
import torch
import transformers
from gguf_file import Types

from nfox.models.loading import load_model
from nfox.models.options import ModelOptions

FLOAT32 = ModelOptions(dtype="float32", device="cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "head_dim": 16,
    "initializer_range": 0.3, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.0, 1.1, 1.2, 1.5, 2.0], "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 9.0],
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 24,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
_GEMMA = {"query_pre_attn_scalar": 16, "sliding_window": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama 3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, linear": ("Llama", {"rope_parameters": LINEAR, "head_dim": 32}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "qwen2": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "phi3": ("Phi3", {"sliding_window": 8}),
    "phi3, long": (
        "Phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 32},
    ),
    "gemma": ("Gemma", {"tie_word_embeddings": True}),
    "gemma2": (
        "Gemma2",
        _GEMMA
        | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 9.0}
        | {"tie_word_embeddings": True},
    ),
    "gemma3": (
        "Gemma3",
        _GEMMA
        | {
            "num_hidden_layers": 7,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": LINEAR | {"rope_theta": 1000000.0},
            },
        },
    ),
}  # fmt: skip


def made(name: str, **changes: Any) -> Any:
    """Return a tiny random model of a family, none of whose weights are all alike."""
    family, options = FAMILIES[name]
    kind = f"{family}TextConfig" if family == "Gemma3" else f"{family}Config"
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**SIZES | options | changes)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for key, weight in model.named_parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in key else 0.0, 0.3)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Return the logits of a text that is longer than windows and first lengths are."""
    ids = torch.arange(80)[None] * 7 % 48
    return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_has_the_logits_of_the_model_that_was_written(name: str, tmp_path: Path) -> None:
    model = made(name)
    gguf_file.write(tmp_path / "m.gguf", model)
    read = load_model(str(tmp_path / "m.gguf"), FLOAT32).target.model
    for key, weight in model.state_dict().items():
        # Gemma's norms are written with a 1 added.
        assert torch.allclose(read.state_dict()[key], weight, atol=1e-6), key
    assert torch.allclose(logits(read), logits(model), atol=1e-4)


PACKED = (
    *(Types.F16, Types.BF16, Types.Q8_0, Types.Q4_0, Types.Q4_1, Types.Q5_0, Types.Q5_1),
    *(Types.Q2_K, Types.Q3_K, Types.Q4_K, Types.Q5_K, Types.Q6_K),
)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_what_is_packed_comes_back_as_the_package_unpacks_it(
    kind: Types, name: str, tmp_path: Path
) -> None:
    model = made(name, hidden_size=256, intermediate_size=32, num_hidden_layers=1, vocab_size=16)
    packed = gguf_file.write(tmp_path / "m.gguf", model, type_=kind)
    read = load_model(str(tmp_path / "m.gguf"), FLOAT32).target.model.state_dict()
    for key, weight in packed.items():
        assert torch.equal(read[key], weight), key
    matrix = "model.layers.0.self_attn.q_proj.weight"
    assert (read[matrix] != model.state_dict()[matrix]).any(), "it was not packed"
