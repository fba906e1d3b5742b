"""What a stream promises: the text of the whole reply, each piece with an honest source."""

from __future__ import annotations

import random

import pytest
from spelling import ACCENT, FAMILY, FLAGS, KINDS, STRINGS, THUMB, decode, encode, make

from nfox.controls import sanitize
from nfox.decoding.drafter import StepTimes
from nfox.decoding.generate import Prompt, Step
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Verdict
from nfox.reply import Reply, Request, Settings
from nfox.reply_text import to_updates
from nfox.text.pieces import Piece, ThinkSplitter
from nfox.text.stream import TextStream

SOURCES = ("accepted", "corrected", "bonus")


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_that_is_left_out_is_no_stop_string(kind: str) -> None:
    """What the reply does not show cannot end it: " Hi you" up to the first space is "Hi"."""
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choices("  ab", k=12))
        stops = ["".join(rng.choices("  ab", k=rng.randint(1, 3))) for _ in range(2)]
        ids = encode(kind, text)
        stream = TextStream(make(kind), stops, trim=True)
        pieces = [piece for id in ids for piece in stream.push(id, "bonus", 0)] + stream.finish()
        shown = decode(kind, ids).removeprefix(" ")
        assert stream.text == stopped_reference(shown, stops)
        assert "".join(piece.text for piece in pieces) == stream.text


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", ["\n", "é", "o\n"])
def test_a_stop_string_of_the_last_tokens_is_why_the_reply_ended(kind: str, stop: str) -> None:
    """Bytes are text only when nothing more can come, which is after the last step."""
    ids = encode(kind, f"Hello{stop}")
    times, verdict = StepTimes(0.5, 0.5, 0, 0, 0), Verdict([0], 0, [])
    tree, sources = TokenTree((0,), (-1,)), ("bonus",) * len(ids)
    reply, request = Reply("none"), Request(Prompt((0,)), Settings(stop=(stop,)))
    steps = iter([Step(tuple(ids), sources, tree, verdict, times, "length")])
    list(to_updates(steps, make(kind), request, reply, frozenset()))
    assert (reply.text, reply.finish) == ("Hello", "stop")
