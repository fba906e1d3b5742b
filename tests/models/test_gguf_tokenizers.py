"""Tokenizers out of GGUF files against the originals, on a text of every script."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from nfox.errors import ModelError
from nfox.files.gguf_header import GgufHeader
from nfox.models.gguf_tokenizer import tokenizer_of

SCRIPTS = (Path(__file__).parents[1] / "fixtures" / "scripts.txt").read_bytes().decode()
SPECIAL = "<s>system\nhi</s> <s> two</s></s>\n<tool>x"


def words(text: str) -> list[str]:
    """Return parts of a text from which tokens of more than one word would be learned."""
    return [text[start : start + 40] for start in range(0, len(text), 20)]


def file_of(raw: Any, architecture: str = "llama", **facts: Any) -> GgufHeader:
    """Return the header that llama.cpp's converter writes of a byte-level tokenizer."""
    state = json.loads(raw.to_str())
    tokens = sorted(raw.get_vocab(), key=raw.get_vocab().get)
    added = {token["content"]: 3 if token["special"] else 4 for token in state["added_tokens"]}
    metadata = {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [added.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in state["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index("</s>"),
        **{f"tokenizer.ggml.{key}": value for key, value in facts.items()},
    }
    return GgufHeader(Path("m.gguf"), metadata, {})


def trained(split: Any, **options: Any) -> Tokenizer:
    """Train a byte-level tokenizer, with a special token, and one that is none."""
    raw = Tokenizer(models.BPE(**options))
    raw.pre_tokenizer = split
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(words(SCRIPTS * 3), trainer)
    raw.add_tokens([AddedToken("<tool>", normalized=False, special=False)])
    return raw


def split_by(pattern: str) -> Any:
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pattern_ = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([pattern_, bytes_])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
SMOLLM = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])
LLAMA3 = split_by(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("name", "split", "options"),
    [
        ("gpt-2", GPT2, {}),
        ("smollm", SMOLLM, {}),
        ("llama-bpe", LLAMA3, {"ignore_merges": True}),
        ("dbrx", LLAMA3, {}),
    ],
)
def test_bytes_are_merged_as_the_original_does(
    name: str, split: Any, options: dict[str, Any]
) -> None:
    raw = trained(split, **options)
    original = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    read = tokenizer_of(file_of(raw, pre=name, add_bos_token=False))
    for text in (SCRIPTS, SPECIAL, f"{SCRIPTS}{SPECIAL}"):
        ids = original(text).input_ids
        assert read(text).input_ids == ids
        assert read.decode(ids) == original.decode(ids) == text
        spoken = original.decode(ids, skip_special_tokens=True)
        assert read.decode(ids, skip_special_tokens=True) == spoken
    assert len(read(SCRIPTS).input_ids) < len(SCRIPTS.encode()) / 1.5, "nothing was merged"


def test_a_word_that_is_a_token_is_one_in_llama_3() -> None:
    """Its merges do not lead to all of its tokens."""
    raw = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, []))
    assert tokenizer_of(file_of(raw, pre="llama-bpe"))("ab").input_ids == [0, 4]
    assert tokenizer_of(file_of(raw, pre="dbrx"))("ab").input_ids == [2, 3]


def test_qwen_composes_characters() -> None:
    raw = trained(split_by(PRETOKENIZE_REGEX))
    state = json.loads(raw.to_str())["model"]
    vocabulary = {**state["vocab"], "<tool>": len(state["vocab"])}
    merges = [tuple(pair) for pair in state["merges"]]
    original = Qwen2Tokenizer(vocabulary, merges, eos_token="</s>", unk_token=None, pad_token=None)
    original.add_tokens([AddedToken("<s>", special=True)])
    original.add_tokens([AddedToken("<tool>", normalized=False)])
    read = tokenizer_of(file_of(raw, "qwen2", pre="qwen2", add_bos_token=False))
    for text in (SCRIPTS, SPECIAL):
        assert read(text).input_ids == original(text).input_ids
    assert read.decode(read("cafe\u0301").input_ids) == unicodedata.normalize("NFC", "cafe\u0301")


def pieces(**options: Any) -> Any:
    """Train a SentencePiece model of merged characters, with bytes for the others."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words(SCRIPTS.replace("\r", "") * 3)),
        model_writer=model,
        model_type="bpe",
        vocab_size=900,
        character_coverage=0.98,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def file_of_pieces(
    model: Any, architecture: str, defined: Sequence[str] = (), **facts: Any
) -> GgufHeader:
    """Return the header that llama.cpp's converter writes of a SentencePiece model.

    Args:
        model: the model.
        architecture: of the language model.
        defined: tokens that were not learned.
        facts: further ones of the tokenizer.
    """
    numbers = range(model.vocab_size())
    types = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        for i in numbers
    ]
    tokens = [model.id_to_piece(i) for i in numbers]
    for number, token in enumerate(tokens):
        if token in defined:
            tokens[number], types[number] = token.replace("▁", " "), 4
    metadata = {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [model.get_score(i) for i in numbers],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **{f"tokenizer.ggml.{key}": value for key, value in facts.items()},
    }
    return GgufHeader(Path("m.gguf"), metadata, {})


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_characters_are_merged_as_sentence_piece_does(architecture: str) -> None:
    model = pieces()
    read = tokenizer_of(file_of_pieces(model, architecture))
    for text in (SCRIPTS, "  two", "x", "a\n b"):
        assert read(text, add_special_tokens=False).input_ids == model.encode(text)
        assert read.decode(model.encode(text)) == text
    # Whatever stands between two special tokens is a text of its own.
    expected = [1, *model.encode("system\nhi"), 2, *model.encode(" two"), 1, *model.encode("x")]
    assert read("<s>system\nhi</s> two<s>x", add_special_tokens=False).input_ids == expected
    assert read("x").input_ids == [1, *model.encode("x")]


def test_gemma_writes_no_space_before_a_text_and_has_tokens_of_several() -> None:
    defined = [*("▁" * count for count in range(2, 8)), "\n\n"]
    model = pieces(add_dummy_prefix=False, user_defined_symbols=defined)
    header = file_of_pieces(model, "gemma2", defined, add_space_prefix=False)
    read = tokenizer_of(header)
    assert "   " in header.metadata["tokenizer.ggml.tokens"]
    for text in ("x  y", "a    b", "\n\na", "Hello, world!", "a   (b)"):
        assert read(text).input_ids == [1, *model.encode(text)], text
        assert read.decode(read(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["default", None])
def test_a_split_that_nobody_can_know_is_refused(name: str | None) -> None:
    raw = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2}, []))
    with pytest.raises(ModelError, match="how its tokenizer splits a text is called"):
        tokenizer_of(file_of(raw, pre=name))


def test_a_file_without_a_vocabulary_has_no_tokenizer() -> None:
    assert (
        tokenizer_of(GgufHeader(Path("m.gguf"), {"tokenizer.ggml.model": "no_vocab"}, {})) is None
    )
