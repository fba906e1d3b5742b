"""The tokenizer in a GGUF file: its vocabulary, and by their names its kind and how it splits a
text before tokens are merged.

transformers builds one as well. It leaves out how Qwen composes characters, how SmolLM2 takes each
digit by itself, that Llama 3 and Tekken look up whole words before they merge, and that Llama 2 and
Mistral put a space after every special token; of merges that are as good, it takes a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nfox.errors import ModelError
from nfox.files.gguf_header import GgufHeader
from nfox.files.reading import refusing

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of tokens that are looked for in a text before it is split."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_WORD = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+SUFFIX"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*SUFFIX"
    r"|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _WORD.replace("SUFFIX", "").replace("DIGITS", r"\p{N}")
_GPT4O = _WORD.replace("SUFFIX", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("DIGITS", r"\p{N}{1,3}")


class _Split(NamedTuple):
    """How a text is split before the bytes of its parts are merged.

    Args:
        pattern: of the parts.
        single_digits: whether each digit is a part by itself, before the pattern is looked for.
        whole_words: whether a part that is a token is one, whatever its merges say.
        composes: whether characters are composed before all (NFC).
        adds_bos: whether a text begins with the beginning of sequence, where the file is silent.
    """

    pattern: str
    single_digits: bool = False
    whole_words: bool = False
    composes: bool = False
    adds_bos: bool = False


_LLAMA3_SPLIT = _Split(_LLAMA3, whole_words=True, adds_bos=True)
_DIGITS_SPLIT = _Split(_GPT2, single_digits=True)
_SPLITS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo"), _Split(_GPT2)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "exaone"), _DIGITS_SPLIT),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), _LLAMA3_SPLIT),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _Split(_LLAMA3)),
    "qwen2": _Split(_QWEN2, composes=True),
    "deepseek-r1-qwen": _Split(_QWEN2),
    "tekken": _Split(_TEKKEN, whole_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4"), _Split(_GPT4O)),
}
"""By the names that llama.cpp has for them in `tokenizer.ggml.pre`."""


def tokenizer_of(header: GgufHeader) -> Any:
    """Return the tokenizer that a GGUF file holds, as transformers has it; None where it has none.

    Args:
        header: of the model's file.

    Raises:
        ModelError: if it is of a kind that is not known here, or not whole.
    """
    metadata = header.metadata
    kind = metadata.get("tokenizer.ggml.model", "no_vocab")
    if kind in ("no_vocab", "none"):
        return None
    if kind not in _KINDS:
        raise ModelError(f"{header.path}: a tokenizer of kind {kind!r} is not known here", _HINT)
    tokens = header.strings("tokenizer.ggml.tokens")
    types = metadata.get("tokenizer.ggml.token_type")
    if not tokens:
        raise ModelError(f"{header.path}: its tokenizer has no tokens", _HINT)
    if not isinstance(types, list) or len(types) != len(tokens):
        raise ModelError(f"{header.path}: its tokens have no types", _HINT)
    with refusing(f"the tokenizer of {header.path}", error_type=ModelError, hint=_HINT):
        tokenizer = _KINDS[kind](header, tokens)
    special = [
        token for token, kind in zip(tokens, types, strict=True) if kind in (_UNKNOWN, _CONTROL)
    ]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    vocabulary = tokenizer.get_vocab()
    defined = [
        AddedToken(token, special=False, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind == _USER_DEFINED and token in vocabulary
    ]
    tokenizer.add_tokens(defined)
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


_HINT = "copy the model's tokenizer.json into the folder of the file: it is taken first"


def _named_tokens(header: GgufHeader, tokens: Sequence[str]) -> dict[str, str | None]:
    """Return the tokens that have a name in transformers; None for those that the model lacks.

    Raises:
        ModelError: if an id is none of the vocabulary's.
    """
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named: dict[str, str | None] = {}
    for name, key in keys.items():
        token = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token is not None and not (type(token) is int and token < len(tokens)):
            raise ModelError(f"{header.path}: {key}_token_id is {token!r}", _HINT)
        named[f"{name}_token"] = None if token is None else tokens[token]
    return named


def _added(header: GgufHeader, adds_bos: bool) -> dict[str, bool]:
    """Return which tokens are put around a text."""
    bos = header.metadata.get("tokenizer.ggml.add_bos_token", adds_bos)
    eos = header.metadata.get("tokenizer.ggml.add_eos_token", False)
    has_bos, has_eos = (
        f"tokenizer.ggml.{key}_token_id" in header.metadata for key in ("bos", "eos")
    )
    return {"add_bos_token": bool(bos and has_bos), "add_eos_token": bool(eos and has_eos)}


def _merges(header: GgufHeader) -> list[tuple[str, str]]:
    """Return the pairs of tokens that are merged, in their order; [] where the file has none."""
    merges = (merge.partition(" ") for merge in header.strings("tokenizer.ggml.merges"))
    return [(left, right) for left, _, right in merges]


def _byte_level(header: GgufHeader, tokens: Sequence[str]) -> Any:
    """Return a tokenizer that merges bytes, as GPT-2's does."""
    name = header.metadata.get("tokenizer.ggml.pre")
    if name not in _SPLITS:
        raise ModelError(
            f"{header.path}: how its tokenizer splits a text is called {name!r}, which is not "
            "known here",
            _HINT,
        )
    split = _SPLITS[name]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    raw = Tokenizer(models.BPE(vocabulary, _merges(header), ignore_merges=split.whole_words))
    raw.normalizer = normalizers.NFC() if split.composes else None
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split.single_digits else []
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *digits,
            pre_tokenizers.Split(Regex(split.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, **_named_tokens(header, tokens), **_added(header, split.adds_bos)
    )


def _sentence_piece(header: GgufHeader, tokens: Sequence[str]) -> Any:
    """Return a tokenizer that merges characters, as SentencePiece's do."""
    is_gemma = header.architecture.startswith("gemma")
    # Of several spaces; there they are written as they are in a text.
    tokens = [t if t.strip(" ") or not is_gemma else "▁" * len(t) for t in tokens]
    scores = header.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ModelError(f"{header.path}: its tokens have no scores", _HINT)
    if is_gemma:  # its scores do not follow the order of its merges, its tokens do
        scores = [-number for number in range(len(tokens))]
    named = _named_tokens(header, tokens)
    raw = Tokenizer(
        models.BPE(
            {token: number for number, token in enumerate(tokens)},
            _merges(header) or _merges_by_score(tokens, scores),
            unk_token=named["unk_token"],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", "▁")
    raw.normalizer = spaces
    ends: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if header.metadata.get("tokenizer.ggml.add_space_prefix", True):
        # A space goes before every part between special tokens, even before one that is there.
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        ends.append(decoders.Strip(" ", left=1))
    raw.decoder = decoders.Sequence(ends)
    return PreTrainedTokenizerFast(tokenizer_object=raw, **named, **_added(header, adds_bos=True))


def _merges_by_score(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the merges that a vocabulary without any implies: all pairs of tokens that make one,
    the token with the highest score first.
    """
    numbers = {token: number for number, token in enumerate(tokens)}
    merges = []
    for token, score in zip(tokens, scores, strict=True):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in numbers and right in numbers:
                merges.append((-score, len(left), numbers[left], numbers[right], left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


_KINDS: dict[str, Callable[[GgufHeader, Sequence[str]], Any]] = {
    "gpt2": _byte_level,
    "llama": _sentence_piece,
}
"""By the names that llama.cpp has for them in `tokenizer.ggml.model`."""
