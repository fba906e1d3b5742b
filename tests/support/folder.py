"""Model folders as a person has them: tiny random models saved with a tokenizer."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from nfox import drafters
from nfox.drafters.common.heads import HeadsDrafter
from nfox.heads.checkpoint import HeadsInfo, write

TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def tokenizer(text: str = "the quick brown fox jumps over the lazy dog, äöü 😀") -> object:
    """Train a small byte-level tokenizer; another text gives another one."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([text] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    return fast


@cache
def llama(
    layers: int = 2,
    seed: int = 0,
    context: int = 512,
    words: str | None = None,
    endless: bool = False,
) -> Path:
    """Save a tiny random Llama with its tokenizer, once per process; return the folder.

    Args:
        layers: of the decoder.
        seed: of the weights.
        context: tokens that fit.
        words: what the tokenizer is trained on.
        endless: whether it is as good as never the end that is the likeliest token.
    """
    made = tokenizer(words) if words else tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320,  # larger than the tokenizer, as padded embeddings are
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    if endless:
        model.lm_head.weight.data[config.eos_token_id] = 0
    return _save(model, made)


def without_template(place: Path, **options: Any) -> Path:
    """Save the tiny Llama again without a chat template, as base models have none.

    Args:
        place: the folder to write.
        options: of `llama`.
    """
    shutil.copytree(llama(**options), place)
    (place / "chat_template.jinja").unlink()
    return place


@cache
def mamba() -> Path:
    """Save a tiny random Mamba, whose state cannot be rolled back."""
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=1
    )
    return _save(MambaForCausalLM(config), tokenizer())


@cache
def t5() -> Path:
    """Save a tiny random T5."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=320,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_factor=3.0,
    )
    return _save(T5ForConditionalGeneration(config), tokenizer())


@cache
def equipped(**options: Any) -> Path:
    """Save the tiny Llama again, with random weights beside it for every method that needs some.

    Args:
        options: of `llama`.
    """
    place = Path(mkdtemp(prefix="nfox-test-")) / "model"
    shutil.copytree(llama(**options), place)
    shutil.copytree(llama(layers=1, seed=1), place / "nfox" / "spec")
    for name in drafters.method_names():
        method = drafters.method_class(name)
        if issubclass(method, HeadsDrafter):
            write_heads(place / "nfox" / name, method, base="the tiny Llama")
    return place


def write_heads(place: Path, method: type[HeadsDrafter], base: str) -> None:
    """Save random heads for the tiny Llama."""
    torch.manual_seed(5)
    config = method.heads_class.Config(hidden_size=64, vocab_size=320, num_heads=3)
    heads = method.heads_class(config)
    about = HeadsInfo(
        method=method.method_name(),
        base=base,
        config=config.model_dump(),
        accuracy=[[0.6, 0.2, 0.1]] * 3,
    )
    write(place, about, heads.state_dict())


def _save(model: torch.nn.Module, made: object) -> Path:
    folder = Path(mkdtemp(prefix="nfox-test-"))
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
