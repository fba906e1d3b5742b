"""A reply that repeats itself until it is cut is known by its tokens alone, and it is said."""

from __future__ import annotations

import random

import pytest
from chat_app import do

from nfox import Settings
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.context_notes import _longer
from nfox.cli.chat.oneshot import answer_text
from nfox.cli.chat.repetition import repeated_span
from nfox.cli.options.chat import DisplayArguments

_LINE = "the reply repeats itself; /set repetition_penalty=1.1 often ends that"


def test_the_shortest_span_is_found_wherever_the_text_is_cut() -> None:
    draw = random.Random(3)
    for _ in range(300):
        length = draw.randint(1, 60)
        span = [draw.randrange(50) for _ in range(length - 1)] + [50]  # which stands in it once
        before = draw.choices(range(51, 90), k=draw.randrange(40))
        tail = (span * 400)[: draw.randint(1, 400)]
        is_repeated = len(tail) >= max(64, 4 * length)
        assert repeated_span([*before, *tail]) == (length if is_repeated else 0)


def rows(count: int) -> str:
    return "".join(f"| {day} | Monday | 7 |\n" for day in range(count))


@pytest.mark.parametrize(
    "text",
    [
        "",
        rows(30),
        "| Mo |\n" + "|---|---|\n" * 3,
        "-" * 63,
        ", ".join(map(str, range(100))),
        "".join(f"    x[{name!r}] = y[{name!r}]\n" for name in "abcdefghijkl"),
        "Roses are red and violets are blue,\nthe sea is deep.\n" * 3,
        "ha " * 100 + "and then it ended.",
    ],
)
def test_what_is_no_circle_is_not_taken_for_one(text: str) -> None:
    """Of letters: the shortest tokens that there are, in which most is repeated."""
    assert not repeated_span([*text.encode()])


def test_it_is_said_of_every_such_reply(app: ChatApp) -> None:
    """The model says the same nineteen tokens again and again."""
    app.in_chat = True
    app.engine.use_settings(Settings(max_new_tokens=64))
    assert "repeats itself" not in do(app, "hello")  # not yet four times
    app.engine.use_settings(Settings(max_new_tokens=120))
    for typed in ("again", "and again", "/continue"):
        told = do(app, typed)
        assert told.count(_LINE) == 1
        assert "/continue" not in told  # more of it is more of the same
    app.engine.use_settings(app.engine.settings.changed(repetition_penalty=1.1))
    assert "/set repetition_penalty=1.2" in do(app, "/regen")


def test_a_longer_reply_is_offered_up_to_the_context(app: ChatApp) -> None:
    app.in_chat = True
    app.engine.use_settings(Settings(max_new_tokens=8))
    assert "/set max_new_tokens=32 allows longer ones" in do(app, "hello")
    room = app.engine.max_context
    for limit, allowed in ((8, 32), (room // 2, room)):
        app.engine.use_settings(Settings(max_new_tokens=limit))
        assert f"max_new_tokens={allowed} " in _longer(app.engine)
    app.engine.use_settings(Settings(max_new_tokens=app.engine.max_context))
    assert _longer(app.engine) == "/continue goes on with it"


def test_an_answer_without_a_chat_says_it_by_the_option(
    app: ChatApp, capsys: pytest.CaptureFixture[str]
) -> None:
    app.engine.use_settings(Settings(max_new_tokens=120))
    answer_text(app.engine, "hello", DisplayArguments())
    told = capsys.readouterr().err
    assert "the reply repeats itself; --repetition-penalty 1.1 often ends that" in told
    assert "--max-new-tokens" not in told
    answer_text(app.engine, "hello", DisplayArguments(quiet=True))
    assert not capsys.readouterr().err
