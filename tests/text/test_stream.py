"""What a stream promises: the text of the whole reply, each piece with an honest source."""

from __future__ import annotations

import json
import random
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nfox.text.pieces import Piece, ThinkSplitter, sanitize
from nfox.text.stream import TextStream

FAMILY, FLAGS, THUMB, ACCENT = "👩\u200d👩\u200d👧", "🇩🇪🇫🇷", "👍🏽", "e\u0301"
STRINGS = [
    "Hello world, how are you?",
    f"{FAMILY} {FLAGS}{THUMB} \U0001f3f4\U000e0067\U000e0062\U000e007f ❤\ufe0f 1\ufe0f\u20e3",
    f"caf{ACCENT} na\u00efve  two  spaces \n\n\ttab",
    "日本語と한국어 和 עִבְרִית اَلْعَرَبِيَّة हिन्दी \u1100\u1161\u11a8",
]
SOURCES = ("accepted", "corrected", "bonus")
KINDS = ("byte-level", "metaspace", "slow")


class CharacterTokenizer:
    """A tokenizer without a Rust backend: one token per byte, the decoding left to Python."""

    unk_token_id = None

    def __len__(self) -> int:
        return 256

    def __call__(self, text: str, **_: object) -> list[int]:
        return list(text.encode())

    def convert_tokens_to_ids(self, token: str) -> None:
        return None

    def decode(self, ids: list[int], **_: object) -> str:
        return bytes(ids).decode(errors="replace")


@cache
def make(kind: str):
    if kind == "slow":
        return CharacterTokenizer()
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special, letters = ["<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        prepend, spaces = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([prepend, spaces])
        space = decoders.Replace("▁", " ")
        tokenizer.decoder = decoders.Sequence(
            [space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        letters = []
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(STRINGS[:1] * 5, trainer)
    data = json.loads(tokenizer.to_str())
    # Only these are special: bytes are text.
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>" if kind == "metaspace" else None,
    )


def encode(kind: str, text: str) -> list[int]:
    if kind == "slow":
        return make(kind)(text)
    return make(kind)(text, add_special_tokens=False).input_ids


def decode(kind: str, ids: list[int]) -> str:
    return make(kind).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def run(kind: str, ids: list[int], sources=None, stop=(), context=()) -> tuple[TextStream, list]:
    stream = TextStream(make(kind), stop, context)
    pieces: list[Piece] = []
    for step, id in enumerate(ids):
        pieces += stream.push(id, sources[step] if sources else "bonus", step)
    pieces += stream.finish()
    assert stream.finish() == []
    assert "".join(piece.text for piece in pieces) == stream.text
    assert all(piece.text for piece in pieces)
    return stream, pieces


def random_text(rng: random.Random) -> str:
    letters = [chr(rng.choice((rng.randrange(0x20, 0x250), rng.randrange(0x1F300, 0x1FA00))))]
    letters += rng.choices("".join(STRINGS), k=rng.randrange(20))
    rng.shuffle(letters)
    return "".join(letters)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_joined_are_the_decoded_reply(kind: str) -> None:
    rng = random.Random(0)
    for text in [*STRINGS, *(random_text(rng) for _ in range(200))]:
        assert run(kind, encode(kind, text))[0].text == text


@pytest.mark.parametrize("kind", KINDS)
def test_that_holds_for_any_tokens_and_after_any_context(kind: str) -> None:
    """Half characters, broken bytes, special tokens, spaces at the borders."""
    rng = random.Random(1)
    few = [*encode(kind, "  é😀"), 0, 1, 200]
    for trial in range(600):
        choices = few if trial % 2 else range(len(make(kind)))
        ids = rng.choices(choices, k=rng.randrange(12))
        past = rng.randrange(len(ids) + 1) if trial % 3 == 0 else 0
        stream, _ = run(kind, ids[past:], context=ids[:past])
        assert stream.text == decode(kind, ids)[len(decode(kind, ids[:past])) :]


def test_the_space_before_a_continued_reply_is_kept() -> None:
    past, more = encode("metaspace", "Hello"), encode("metaspace", "world")
    assert run("metaspace", more)[0].text == "world"
    assert run("metaspace", more, context=past)[0].text == " world"


@pytest.mark.parametrize("kind", KINDS)
def test_text_leaves_as_soon_as_it_is_certain(kind: str) -> None:
    stream, ids = TextStream(make(kind)), encode(kind, "Hello world")
    for count, id in enumerate(ids, 1):
        stream.push(id, "bonus", 0)
        assert stream.text == decode(kind, ids[:count])


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_is_accepted_only_if_all_its_tokens_were(kind: str) -> None:
    ids = encode(kind, "é😀")
    for sources in (
        ["accepted"] * len(ids),
        *(
            [*["accepted"] * i, "bonus", *["accepted"] * (len(ids) - i - 1)]
            for i in range(len(ids))
        ),
        ["corrected", *["bonus"] * (len(ids) - 1)],
    ):
        _, pieces = run(kind, ids, sources)
        allowed = {source for source in SOURCES if source in sources}
        assert {piece.source for piece in pieces} <= allowed
        if sources[-1] == "bonus":
            assert pieces[-1].source != "accepted"
    one = encode("byte-level", "😀")
    for sources, expected in (("aab", "bonus"), ("aba", "bonus"), ("cba", "corrected")):
        names = {"a": "accepted", "b": "bonus", "c": "corrected"}
        padded = [names[letter] for letter in sources] + ["accepted"] * (len(one) - 3)
        assert [piece.source for piece in run("byte-level", one, padded)[1]] == [expected]


def test_every_piece_has_the_source_of_its_own_tokens() -> None:
    ids = encode("byte-level", "Hello world, how are you?")
    sources = random.Random(0).choices(SOURCES, k=len(ids))
    _, pieces = run("byte-level", ids, sources)
    assert [piece.source for piece in pieces] == sources


def test_a_piece_knows_the_step_of_its_last_token() -> None:
    ids = encode("byte-level", "😀a")
    _, pieces = run("byte-level", ids)
    assert [(piece.text, piece.step) for piece in pieces] == [
        ("😀", len(ids) - 2),
        ("a", len(ids) - 1),
    ]


@pytest.mark.parametrize(
    "cluster",
    [FAMILY, "🇩🇪", THUMB, ACCENT, "❤\ufe0f", "1\ufe0f\u20e3", "\u1100\u1161\u11a8", "اَ", "हि"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_style_never_changes_inside_a_character(kind: str, cluster: str) -> None:
    ids = encode(kind, f"x{cluster}y")
    for seed in range(10):
        sources = random.Random(seed).choices(SOURCES, k=len(ids))
        _, pieces = run(kind, ids, sources)
        styles = [piece.source for piece in pieces for _ in piece.text]
        assert len(set(styles[1 : 1 + len(cluster)])) == 1


def test_the_next_flag_is_a_character_of_its_own() -> None:
    ids = encode("slow", FLAGS)
    sources = ["accepted"] * (len(ids) // 2) + ["corrected"] * (len(ids) // 2)
    styles = [piece.source for piece in run("slow", ids, sources)[1] for _ in piece.text]
    assert styles == ["accepted", "accepted", "corrected", "corrected"]


def stopped_reference(text: str, stops: list[str]) -> str:
    """Cut where, letter by letter, the first stop string is complete (the longest of several)."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - len(max(complete, key=len))]
    return text


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("Hello world", ["lo w"]),
        ("Hello world", ["Hello"]),
        ("Hello world", ["world"]),
        ("Hello world", ["word", "o wo", "nothing"]),
        ("Hello hello", ["llo hello", "lo"]),
        ("aaaaab", ["aab"]),
        ("abababac", ["ababac"]),
        ("abcd", ["abcd", "bc"]),
        ("abc", ["bc", "abc"]),
        ("a###b", ["###"]),
        ("a##", ["###"]),
        ("say 😀 no", ["😀"]),
        ("nothing", [""]),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_stop_string_is_shown(kind: str, text: str, stops: list[str]) -> None:
    expected = stopped_reference(text, [stop for stop in stops if stop])
    stream, _ = run(kind, encode(kind, text), stop=stops)
    assert stream.text == expected
    assert stream.stopped == (expected != text)
    assert stream.stopped_by is None or text[len(expected) :].startswith(stream.stopped_by)


@pytest.mark.parametrize("kind", KINDS)
def test_stop_strings_cut_random_text_wherever_its_tokens_end(kind: str) -> None:
    rng = random.Random(2)
    for _ in range(300):
        text = "".join(rng.choices("ab c", k=15)).strip() or "a"
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
        stream, _ = run(kind, encode(kind, text), stop=stops)
        assert stream.text == stopped_reference(text, stops)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [" Hello world", "  two", "none", " ", "", "\n a"])
def test_one_space_in_front_can_be_left_out(kind: str, text: str) -> None:
    tokenizer, ids = make(kind), encode(kind, text)
    untrimmed, trimmed = TextStream(tokenizer), TextStream(tokenizer, trim=True)
    pieces = []
    for id in ids:
        untrimmed.push(id, "bonus", 0)
        pieces += trimmed.push(id, "bonus", 0)
    untrimmed.finish()
    pieces += trimmed.finish()
    assert trimmed.text == untrimmed.text.removeprefix(" ")
    assert "".join(piece.text for piece in pieces) == trimmed.text
    assert all(piece.text for piece in pieces)


def test_after_a_stop_string_nothing_comes() -> None:
    stream = TextStream(make("byte-level"), ["lo"])
    for id in encode("byte-level", "Hello world"):
        stream.push(id, "bonus", 0)
    assert stream.push(encode("byte-level", "more")[0], "bonus", 0) == []
    assert (stream.text, stream.stopped_by, stream.finish()) == ("Hel", "lo", [])


def test_a_terminal_gets_text_and_no_commands() -> None:
    steering = "\x1b[31mred\x1b]0;title\x07\x9b2J\x00\x7f\r\u202e\u2066\u2069"
    assert sanitize(steering) == "[31mred]0;title2J"
    for text in STRINGS:
        assert sanitize(text + "\u200e\u200f") == text + "\u200e\u200f"


def test_thinking_is_told_apart_however_the_text_is_cut() -> None:
    parts = [("Hi <th", False), ("<think>so <b> then</think>", True), (" done <", False)]
    parts += [("<think></think>", True), ("</think> <thin", False)]
    text = "".join(part for part, _ in parts)
    expected = [inside for part, inside in parts for _ in part]
    for seed in range(50):
        rng, splitter, at = random.Random(seed), ThinkSplitter(), 0
        result: list[tuple[Piece, bool]] = []
        while at < len(text):
            end = at + rng.randint(1, 9)
            result += splitter.push(Piece(text[at:end], "bonus", at))
            at = end
        result += splitter.finish()
        assert "".join(piece.text for piece, _ in result) == text
        assert [inside for piece, inside in result for _ in piece.text] == expected


def test_a_reply_may_begin_inside_a_thought() -> None:
    splitter = ThinkSplitter(inside=True)
    result = splitter.push(Piece("so</think>Hi", "bonus", 0)) + splitter.finish()
    assert [(piece.text, inside) for piece, inside in result] == [
        ("so</think>", True),
        ("Hi", False),
    ]
