"""A model that says one thing: a Llama whose next token depends on the last one alone.

Its attention and its MLP add nothing, so a one-hot embedding meets an output matrix that is a table
of what follows what. What it will say is therefore known, character by character, on every machine.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FOX = "\U0001f98a".encode()  # four tokens for one character
WORDS = (
    *(" The", " quick", " brown", " fox ", " says 你好", " [red]not red[/red]"),
    *(" \x1b[31mloud", "\x1b]0;title\x07", " and", "\tgoes\n", "on 한국어"),
    *(" e\u0301\u0301 👩\u200d👩\u200d👧", "; ", "\n\n", "* until", " then."),
)
ONCE = (
    " The quick brown fox 🦊 says 你好 [red]not red[/red] \x1b[31mloud\x1b]0;title\x07 and\tgoes\n"
    "on 한국어 e\u0301\u0301 👩\u200d👩\u200d👧; \n\n* until then."
)
"""The beginning of every reply; then it starts again at " quick"."""
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] | upper }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


def said(tokens: int) -> str:
    """Return the text of a reply's first so many tokens, if they end between characters; without
    the space in front, which is the tokenizer's.
    """
    order = _order(*_ids())
    first, cycle = order[0], order[1:]
    names = {token: text for text, token in _ids()[0].items()}
    fox = dict(zip(_ids()[1], ("", "", "", "🦊"), strict=True))
    ids = [first, *(cycle[i % len(cycle)] for i in range(tokens - 1))]
    return "".join(fox.get(token, names.get(token, "")) for token in ids).removeprefix(" ")


def _ids() -> tuple[dict[str, int], list[int]]:
    """Return the ids of the words, and those of the bytes of the fox."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    index = {letter: number for number, letter in enumerate(alphabet)}
    fox = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = fox.pre_tokenize_str(FOX.decode())[0][0]
    words = {word: 1 + len(alphabet) + number for number, word in enumerate(WORDS)}
    return words, [index[letter] for letter in letters]


def _order(words: dict[str, int], fox: list[int]) -> list[int]:
    """Return the tokens of `ONCE`."""
    rest = [words[word] for word in WORDS]
    return [*rest[:4], *fox, *rest[4:]]


def save(folder: Path, context: int = 4096) -> Path:
    """Write the model and its tokenizer.

    Args:
        folder: to write them to.
        context: tokens that fit; a reply never ends by itself.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    words, fox = _ids()
    assert fast.convert_tokens_to_ids(list(WORDS)) == list(words.values())
    order = _order(words, fox)
    follows = torch.zeros(320, 320)
    for before, after in [*pairwise(order), (order[-1], order[1])]:
        follows[after, before] = 1
    follows[order[0], vocabulary[":"]] = 1
    _model(follows, int(fast.eos_token_id), context).save_pretrained(folder)
    return folder


def _model(follows: torch.Tensor, end: int, context: int) -> LlamaForCausalLM:
    size = len(follows)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=context,
            bos_token_id=None,
            eos_token_id=end,
        )
    )
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.copy_(follows)
    return model
