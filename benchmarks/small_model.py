"""A small random model, for benchmarks that are not of models."""

from __future__ import annotations

from pathlib import Path


def save(folder: Path, context: int = 64) -> Path:
    """Save a small random model with the embedded one's tokenizer; return its folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from nfox.demo import TARGET

    tokenizer = AutoTokenizer.from_pretrained(TARGET)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
