"""What the last reply is, whatever became of the conversation: one place says so for all."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from chat_app import contents, do, said
from rich.console import Console

from nfox import Settings
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.gain_notes import GainNotes
from nfox.cli.chat.oneshot import answer_text
from nfox.cli.display.gain import gained_nothing
from nfox.cli.display.token_view import token_view
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.writer import LogWriter
from nfox.cli.options.chat import DisplayArguments
from nfox.controls import sanitize
from nfox.decoding.costs import Costs
from nfox.engine import Engine
from nfox.errors import UsageError

ABOUT_THE_LAST = ("/stats", "/why", "/steps", "/step 1", "/race", "/prove", "/compare", "/heat")
SHOWING_IT = ("/view raw", "/view tokens", "/copy")


def first_words(app: ChatApp) -> str:
    """Return the first tokens of the reply that /steps, /stats and the others speak of."""
    part = app.replies.last_part(app.conversation)
    assert do(app, "/steps") and do(app, "/stats").startswith("cut at ")
    assert part.exchange.reply.text == "".join(piece.text for piece in part.pieces)
    return part.exchange.reply.text


def test_without_a_reply_all_say_so(app: ChatApp) -> None:
    def refused() -> None:
        for line in (*ABOUT_THE_LAST, *SHOWING_IT):
            with pytest.raises(UsageError, match=r"^there is no reply yet$"):
                do(app, line)

    refused()
    do(app, "hello")
    do(app, "/undo")
    refused()
    do(app, "hello")
    do(app, "/reset")
    refused()


def test_what_was_taken_back_is_spoken_of_no_longer(app: ChatApp) -> None:
    texts = []
    for question, length in (("one", 6), ("two", 9), ("three", 12)):
        do(app, f"/set max_new_tokens={length}")
        do(app, question)
        texts.append(first_words(app))
    assert [len(text) > 0 for text in texts] == [True] * 3 and len(set(texts)) == 3
    for count in (2, 1):
        do(app, "/undo")
        assert first_words(app) == texts[count - 1] == contents(app)[-1]
        assert "identical" in do(app, "/prove")
        assert f"cut at {3 * (count + 1)} tokens" in do(app, "/stats")  # its own limit
    do(app, "four")
    assert first_words(app) == contents(app)[-1]


def test_a_reply_of_another_model_or_file_is_none_to_be_taken_apart(
    app: ChatApp, tmp_path: Path
) -> None:
    do(app, "hello")
    for line in (f"/save {tmp_path / 'talk.json'}", "/reset", f"/load {tmp_path / 'talk.json'}"):
        do(app, line)
    for line in ABOUT_THE_LAST:
        with pytest.raises(UsageError, match="decoded is not known"):
            do(app, line)
    assert do(app, "/view raw")
    do(app, "/regen")
    assert first_words(app) == contents(app)[-1]
    app.conversation.go_on_with(app.engine)  # as /model does
    with pytest.raises(UsageError, match="another model's"):
        do(app, "/why")


def test_a_reply_that_never_began_leaves_the_last_one(app: ChatApp) -> None:
    do(app, "hello")
    before = app.replies.last_part(app.conversation)
    for ask in (lambda: app.conversation.send("more"), app.conversation.regenerate):
        stream = app.ask(ask)
        stream.cancel()
        assert not app.show_reply(stream)
        assert app.replies.last_part(app.conversation) is before


def test_a_reply_that_went_on_inside_a_character_is_shown_as_it_is(app: ChatApp) -> None:
    for length in (24, 3):
        do(app, f"/set max_new_tokens={length}")
        do(app, "hello" if length == 24 else "/continue")
    text = contents(app)[-1]
    assert "\ufffd" in do(app, "/view tokens") and "\ufffd" not in text
    assert do(app, "/view raw") == f"{sanitize(text)}\n"


def test_a_reply_that_went_on_is_shown_token_by_token(app: ChatApp, tmp_path: Path) -> None:
    app.log = LogWriter(ConversationLog(tmp_path / "log.db"))
    for length in (24, 3, 5):  # the first one ends inside a character
        do(app, f"/set max_new_tokens={length}")
        do(app, "hello" if length == 24 else "/continue")
    known = app.replies.last(app.conversation)
    assert [len(part.exchange.reply.ids) for part in known.parts] == [24, 3, 5]
    records = [record for part in known.parts for record in part.records]
    *rows, count = do(app, "/view tokens").splitlines()
    assert count.startswith("32 tokens in ")
    assert "\n".join(rows) == token_view(records, app.screen).plain.rstrip("\n")
    assert [token for r in records for token in r.ids] == list(known.message.ids or ())
    do(app, "/reset")
    do(app, "/resume")
    do(app, "/set max_new_tokens=2")
    do(app, "/continue")  # of what it went on with only the text is known
    assert len(first_words(app)) < len(contents(app)[-1])
    with pytest.raises(UsageError, match="is not known"):
        do(app, "/view tokens")


def test_the_steps_of_old_replies_are_not_kept_for_ever(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.cli.chat.replies._MADE", 2)
    app.engine.use_settings(Settings(max_new_tokens=1))
    for _ in range(4):
        do(app, "hello")
    turns = app.conversation.turns
    assert [bool(pieces) for pieces in app.replies.pieces(turns)] == [False, True] * 4
    do(app, "/undo")
    assert app.replies.last(app.conversation).parts
    for _ in range(2):
        do(app, "/undo")
    assert not app.replies.last(app.conversation).parts


def test_steps_are_drawn_a_screenful_at_a_time(app: ChatApp) -> None:
    app.engine.use_settings(Settings(max_new_tokens=60))
    do(app, "/method lookup gamma=8")  # whatever pays on this machine
    do(app, "the quick brown dog")
    whole = do(app, "/steps")
    assert do(app, "/steps all") == whole
    count = len(app.replies.last_part(app.conversation).records)
    file = app.screen.console.file
    console = Console(file=file, force_terminal=True, width=100, height=12, color_system=None)
    app.screen = replace(app.screen, console=console)
    shown, line, pages = "", "/steps", 0
    while line:
        drawn = do(app, line).splitlines()
        assert len(drawn) <= 12 - 2  # the command and the next prompt stand on the screen, too
        rows = [row for row in drawn if not row.startswith(("✓ accepted", "%: "))]
        line = (re.search(r"/steps \d+", rows[-1]) or [""])[0]
        shown += "".join(f"{row}\n" for row in (rows[:-1] if line else rows))
        pages += 1
    assert pages > 2 and shown.split() == whole.rpartition("✓ accepted")[0].split()
    assert do(app, "/steps all") == whole
    for wrong in ("0", str(count + 1), "-1", "x", "1 2", "²"):
        with pytest.raises(UsageError, match=f"1 to {count}, or all"):
            do(app, f"/steps {wrong}")


def test_a_reply_whose_steps_took_longer_than_they_gave_says_so(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.engine.use_settings(Settings(max_new_tokens=60))
    do(app, "/method lookup gamma=8")  # whatever pays on this machine
    do(app, "the quick brown dog")
    part = app.replies.last_part(app.conversation)
    stats = part.exchange.reply.stats
    assert stats.steps >= 16 and stats.tau > 1.1
    stats.seconds = stats.target_seconds * 1.02
    for steepness, told in ((0.0, ""), (1.0, "gained nothing in this reply, τ ")):
        costs = Costs({n: 1.0 + steepness * (n - 1) for n in (1, 2, 4, 8, 16, 32)})
        monkeypatch.setattr(Engine, "costs", costs)
        line = gained_nothing(app.engine, part.exchange.reply, part.records, "τ")
        assert line.startswith(f"guessing ahead {told}") if told else not line
    assert " times as long as one without" in line


def test_a_method_that_guesses_nothing_says_so_once(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = Costs({n: float(n * n) for n in (1, 2, 4, 8, 16, 32)})
    monkeypatch.setattr(Engine, "costs", dear)
    monkeypatch.setattr(app.engine, "_costs", None)  # which would measure again
    line = "jacobi guesses nothing: drafting does not pay on this machine; method auto takes"
    changed = do(app, "/method jacobi")
    assert changed.count(line) == 1
    assert "guess" not in do(app, "hello") and "nothing drafted" in do(app, "again")
    app.gain = GainNotes(app.say)  # as after a start with --method jacobi
    assert do(app, "and again").count(line) == 1
    assert "guess" not in do(app, "once more")


def test_a_reply_in_which_nothing_was_found_to_guess_says_so_once(app: ChatApp) -> None:
    do(app, "/method lookup gamma=8")
    told = "lookup guessed nothing in this reply: no word came a second time; method auto takes"
    app.engine.use_settings(Settings(max_new_tokens=20))

    def footer(steps: int) -> str:
        part = app.replies.last_part(app.conversation)
        part.exchange.reply.stats.drafted, part.exchange.reply.stats.steps = 0, steps
        app.engine.drafter.rewind(0)  # what was found is forgotten
        app._print_footer(part)
        return said(app)

    do(app, "hello")
    assert told not in footer(8)  # too short to say anything about
    assert told in footer(20)
    do(app, "again")
    assert told not in footer(20)


def test_a_prompt_answered_without_a_guess_says_so(
    app: ChatApp, capsys: pytest.CaptureFixture[str]
) -> None:
    app.engine.use_settings(Settings(max_new_tokens=20))
    do(app, "/method lookup gamma=0")
    answer_text(app.engine, "hello", DisplayArguments(stats=False))
    assert "nfox: lookup guesses nothing: as asked for; method auto" in capsys.readouterr().err
    answer_text(app.engine, "hello", DisplayArguments(stats=False, quiet=True))
    assert not capsys.readouterr().err


def test_a_gain_beyond_the_tokens_per_step_was_measured_beside_other_programs(
    app: ChatApp,
) -> None:
    app.engine.use_settings(Settings(max_new_tokens=60))
    do(app, "/method lookup gamma=1")
    do(app, "the quick brown dog")
    stats = app.replies.last_part(app.conversation).exchange.reply.stats
    assert stats.steps >= 16
    told = "other programs ran meanwhile: measure again"
    for seconds, disturbed in ((1e-9, True), (1e9, False)):  # plain decoding takes something else
        stats.seconds = seconds
        assert (told in " ".join(do(app, "/compare").split())) is disturbed
