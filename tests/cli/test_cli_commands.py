"""The commands of the chat, and how it takes what goes wrong."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli_model
import pytest
import typer
from chat_app import contents, do, make, said

from nfox import Message, Settings
from nfox.cli.chat import events, input, repl
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry as commands
from nfox.cli.chat.commands.settings import changed
from nfox.cli.chat.interrupt import SecondInterrupt, interruptible
from nfox.cli.chat.oneshot import serve_lines
from nfox.cli.chat.repl import chat_loop
from nfox.cli.display.console import CleanConsole
from nfox.cli.display.header import print_header
from nfox.cli.display.reply_stats import forward_costs
from nfox.cli.display.steps import visible
from nfox.cli.errors import error_boundary
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.writer import LogWriter
from nfox.cli.options.chat import DisplayArguments, SessionArguments
from nfox.decoding import running_costs
from nfox.decoding.costs import Costs
from nfox.drafters import method_names
from nfox.drafters.auto import Auto
from nfox.drafters.common.method import DrafterSpec, Method
from nfox.drafters.lookup import Lookup
from nfox.drafters.none import Autoregressive
from nfox.engine import Engine
from nfox.errors import ContextError, NfoxError, UsageError

FASTCHAT = ("!!exit", "!!reset", "!!remove", "!!regen", "!!save", "!!load")


def test_one_registry_drives_everything(app: ChatApp) -> None:
    listed = do(app, "/help")
    for name, command in commands.registry().items():
        assert name in listed and command.help and command.help.endswith(".")
    assert set(FASTCHAT) < set(commands.registry())
    first_words = {command.names[0] for command in commands.registry().values()}
    assert set(commands.complete(app, "/")) > first_words


@pytest.mark.parametrize("width", [40, 59, 60, 80, 111, 200])
def test_help_stands_in_columns_and_groups(width: int, app: ChatApp) -> None:
    app.notes.width = width
    rows = do(app, "/help").splitlines()
    assert max(map(len, rows)) <= width
    groups = [row for row in rows if row and row[0] != " "]
    named = dict.fromkeys(command.group for command in commands.registry().values())
    assert groups == [*named, "Keys"]
    names = [row.split()[0] for row in rows if row.startswith("  /") and row[2:4] != "//"]
    assert names == list(dict.fromkeys(c.names[0] for c in commands.registry().values()))
    # Whatever goes on in another row is indented deeper than names are.
    starts = {len(row) - len(row.lstrip()) for row in rows} - {0, 2}
    assert len(starts) == 1


def test_a_command_takes_only_what_its_usage_says(app: ChatApp) -> None:
    do(app, "hello")
    before = contents(app)
    for line in (
        "/undo 5",
        "/reset now",
        "/clear x",
        "/regen 3",
        "/compare x",
        "/prove x",
        "/why x",
        "/legend 9",
        "/exit 0",
    ):
        with pytest.raises(UsageError, match=f"{line.split()[0]} takes nothing behind it"):
            do(app, line)
    assert contents(app) == before
    assert do(app, "/help save").startswith("/save !!save FILE  Write the conversation")
    assert do(app, "/help !!remove").startswith("/undo !!remove")
    with pytest.raises(UsageError, match="there is no command /svae"):
        do(app, "/help svae")
    assert do(app, "/undo").startswith("took back: hello")


def test_completion(app: ChatApp) -> None:
    Path("talk.json").touch()
    assert list(commands.complete(app, "/reg")) == ["/regen"]
    assert list(commands.complete(app, "/load t")) == ["talk.json"]
    assert list(commands.complete(app, "/set temp")) == ["temperature="]
    assert set(commands.complete(app, "/method ")) == {*method_names(), "auto"}
    assert not list(commands.complete(app, "hello /"))
    assert not list(commands.complete(app, "/no such"))


def test_what_is_a_message_and_what_is_not(app: ChatApp) -> None:
    assert do(app, "   ") == ""
    with pytest.raises(UsageError) as error:
        do(app, "/regne")
    assert "/regen" in error.value.hint
    assert contents(app) == []
    do(app, "//etc/hosts is a file")
    assert contents(app)[0] == "/etc/hosts is a file"
    assert not commands.handle(app, "!!exit")


def test_a_cut_reply_goes_on(app: ChatApp) -> None:
    with pytest.raises(UsageError, match="no reply"):
        do(app, "/continue")
    do(app, "/set max_new_tokens=9")
    do(app, "hello")
    shown = do(app, "/continue")
    assert shown.startswith(" [red]") and "says" not in shown  # only what is new
    assert contents(app) == ["hello", cli_model.said(18)]
    assert "identical output: yes" in do(app, "/compare")
    do(app, "/continue")
    do(app, "more")
    assert contents(app) == ["hello", cli_model.said(27), "more", cli_model.said(9)]


def test_every_turn_is_kept_and_the_last_talk_comes_back(engine: Engine, app: ChatApp) -> None:
    with pytest.raises(UsageError, match="no conversation in the log"):
        do(app, "/load")
    do(app, "hello")
    assert not ConversationLog().entries()  # it was not asked for
    app.log = LogWriter(ConversationLog())
    for question in ("one", "two"):
        do(app, question)
    before = app.conversation.messages
    later = make(engine)
    assert "loaded 6 messages" in do(later, "/load")
    assert later.conversation.messages == before
    [file] = Path("state/nfox").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    file.unlink()
    file.mkdir()  # a place that cannot be written to is told once, and the chat goes on
    assert "not kept" in do(app, "three")
    assert "not kept" not in do(app, "four")
    assert len(contents(app)) == 10


@pytest.mark.parametrize("kept", [True, False])
def test_a_talk_is_resumed(
    kept: bool,
    app: ChatApp,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def talking(*typed: str, **options: str) -> None:
        said = iter(typed)

        def read(start: str) -> str:
            try:
                return next(said)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(repl, "make_reader", lambda *a, **k: read)
        arguments = SessionArguments(no_input_history=not kept, **options)
        chat_loop(app.engine, 0.0, DisplayArguments(), arguments)

    talking("hello", "/continue")
    talking("/save now.json", resume="last")
    saved = json.loads(Path("now.json").read_text())["messages"]
    assert len(saved) == (2 if kept else 0)
    assert ("no conversation in the log" in capsys.readouterr().err) is not kept


def test_settings_are_parsed_by_what_they_are() -> None:
    made = changed(
        Settings(), "temperature=0.5 top-k=3 max_new_tokens=9 stop='a\\nb' accept=typical"
    )
    assert (made.sampling.temperature, made.sampling.top_k) == (0.5, 3)
    assert (made.max_new_tokens, made.stop, made.accept) == (9, ("a\nb",), "typical")
    assert changed(made, "stop=").stop == ()
    for wrong in ("top_k=half", "colour=red", "top_k", "stop='a", "max_new_tokens=0", "top_p=2"):
        with pytest.raises(UsageError):
            changed(made, wrong)


@pytest.mark.parametrize(
    "stop",
    [(), ("###",), ("###", "END"), ("a b", "'\"", "\n\n", "\t\r", "\\n", "x=y stop=z", "\\\\")],
)
def test_what_set_shows_sets_the_same(stop: tuple[str, ...], app: ChatApp) -> None:
    app.engine.use_settings(replace(Settings(), stop=stop, max_new_tokens=3))
    app.notes.width = 1000
    shown = do(app, "/set").strip()
    assert shown.count(" stop=") >= len(stop)
    assert changed(Settings(), shown) == app.engine.settings
    assert changed(replace(Settings(), stop=("other",)), shown) == app.engine.settings
    row = next(line for line in do(app, "/params").splitlines() if line.startswith("stop"))
    assert shlex.split(row.partition("(default")[0])[1:] == [
        word.removeprefix("stop=") for word in shlex.split(shown) if word.startswith("stop=")
    ]


def test_settings_in_mid_conversation(app: ChatApp) -> None:
    do(app, "hello")
    assert "max_new_tokens=3" in do(app, "/set max_new_tokens=3")
    do(app, "more")
    assert contents(app)[3] == cli_model.said(3)
    assert "typical: not lossless" in do(app, "/set temperature=1 accept=typical")
    assert "(typical)" not in do(app, "/legend")  # nothing is marked in a file


def test_methods_in_mid_conversation(app: ChatApp) -> None:
    for name in ("none", "jacobi", "lookup"):
        assert name in do(app, f"/method {name}")
        do(app, "hello")
        assert app.conversation.last.reply.method == name
    do(app, "/method lookup gamma=2")
    assert "2" in app.engine.drafter.describe()
    assert "the fastest of lookup, jacobi or plain decoding" in do(app, "/method auto")
    assert "lookup" in do(app, "/method auto ngram=2")
    assert set(contents(app)[1::2]) == {cli_model.said(31)}
    for wrong in ("/method warp", "/method lookup gamma", "/method lookup colour=1"):
        with pytest.raises(NfoxError):
            do(app, wrong)
    assert app.engine.method == "lookup"


@pytest.mark.parametrize("name", ["lookup", "jacobi"])
def test_the_header_says_when_drafting_does_not_pay(
    engine: Engine, app: ChatApp, name: str
) -> None:
    flat, steep = Costs({1: 1.0, 32: 1.0}), Costs({1: 1.0, 2: 2.0, 32: 32.0})
    for costs, word in ((flat, False), (steep, True)):
        made = Engine(engine.model, engine.template, drafting=DrafterSpec(name), costs=costs)
        print_header(made, app.screen, 1.0, verbose=True)
        shown = " ".join(said(app).split())
        assert ("plain decoding, drafting does not pay on this machine" in shown) is word
        assert ("plain decoding" in events.start(made)["drafter"]) is word
        assert f"forwards {forward_costs(costs)}" in shown


def test_auto_says_in_a_line_which_methods_it_has_or_how_many(engine: Engine) -> None:
    for count in range(12):
        others: dict[str, Method] = {f"method{number}": Autoregressive() for number in range(count)}
        for free in ({}, {"lookup": Lookup(gamma=2)}):
            words = Auto(engine.model.target, others | free).in_words()
            assert len(f"auto: {words}") <= 80
            if len(others | free) > 3:
                assert words.endswith(f"the fastest of {len(others | free)} methods")
            else:
                assert ("repeated text" in words) == bool(free)
                assert all(name in words for name in others)


def test_an_empty_reply_says_so_and_names_a_template_that_may_be_why(app: ChatApp) -> None:
    assert "empty" not in do(app, "hello")
    do(app, "/set 'stop= The'")
    shown = do(app, "hello")
    assert "(an empty reply: it ended at once)" in shown
    do(app, "/template vicuna_v1.1")
    shown = do(app, "hello")
    assert "the template vicuna_v1.1 is not the model's own: /template tokenizer" in shown.replace(
        "\n", ""
    )
    do(app, "/template tokenizer")


def test_a_template_brings_what_ends_a_reply(app: ChatApp) -> None:
    do(app, "/template chatml")
    assert app.engine.template.name == "chatml"
    assert set(app.engine.template.stop_ids) <= app.engine.stop_ids
    assert "tokenizer" in do(app, "/template tokenizer")


def test_system_message(app: ChatApp) -> None:
    assert "be kind" in do(app, "/system be kind")
    do(app, "hello")
    do(app, "/reset")
    assert contents(app) == ["be kind"]
    assert "be kind" in do(app, "/system")
    assert list(commands.complete(app, "/system ")) == ["default"]
    template = app.engine.template
    app.engine.use_template(replace(template, system="be brief"))  # as --system does
    assert do(app, "/system default") == do(app, "/system") == "system: be brief\n"
    assert app.conversation.system is None
    app.engine.use_template(template)


@pytest.mark.parametrize("space", [" ", "   ", "\n", "\n\n", "\t", "\r\n", "\u3000"])
def test_any_space_ends_the_name_of_a_command(space: str, app: ChatApp) -> None:
    text = "You are  a pirate.\n\n\tSay `arr`."
    do(app, f"/system{space}{text}\n")
    assert app.conversation.system == text
    with pytest.raises(UsageError, match=r"^/undo takes nothing behind it$"):
        do(app, f"/undo{space}5")
    with pytest.raises(UsageError, match=r"^there is no command /usr/bin$"):
        do(app, f"/usr/bin{space}5")


def test_nothing_is_overwritten_but_conversations(app: ChatApp) -> None:
    do(app, "hello")
    do(app, "/save talk.json")
    do(app, "/save talk.json")
    Path("notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        do(app, "/save notes.txt")
    assert Path("notes.txt").read_text() == "mine"


def test_numbers_and_steps(app: ChatApp) -> None:
    for command in ("/stats", "/steps", "/step 1", "/compare", "/prove", "/why", "/race"):
        with pytest.raises(UsageError):
            do(app, command)
    do(app, "the quick brown dog")
    numbers = do(app, "/stats")
    for part in ("tok/s", "τ", "31 tok", "prefill", "ms/step", "by depth", "ms over 1 token"):
        assert part in numbers
    assert "emitted / steps" in do(app, "/stats explain")
    steps = do(app, "/steps")
    assert re.search(r"^ *3  └ ✓ ·brown\b", steps, re.MULTILINE) and "refused" in steps
    whole = do(app, "/step 3")
    assert re.search(r"^step 3 of \d+: 1 of \d+ drafted tokens accepted after ·quick$", whole, re.M)
    assert "\n└ ✓ ·brown p=1" in whole and "ᵀ ·fox· p=1" in whole
    for line in ("/step", "/step 0", "/step 99", "/step x", "/step 1 2", "/step \u00b2"):
        with pytest.raises(UsageError, match=r"which step|no step"):
            do(app, line)


def test_verbose_shows_steps_probabilities_and_trees(engine: Engine, app: ChatApp) -> None:
    loud = make(engine, verbose=2)
    shown = do(loud, "the quick brown dog")
    assert re.search(r"^ *3  └ ✓ ·brown\b", shown, re.MULTILINE)
    assert "ᵀ ·fox·" in shown and "p=0" not in shown
    assert "ms/step" in shown
    plain = make(engine, verbose=1, ascii=True)
    shown = do(plain, "the quick brown dog").partition("step ")[2]
    assert "kept" in shown and "refused" in shown
    assert "_brown^1 _fox_T" in shown
    assert not set(shown) & set("·τ✓✗…↵ᵀ")


def test_a_thought_that_was_cut_is_still_one(app: ChatApp) -> None:
    for begun, inside in (("<think>so", True), ("<think>so</think>yes", False), ("no", False)):
        app.conversation.messages = [Message("user", "<think>"), Message("assistant", begun, (1,))]
        assert app.engine.encode(app.conversation.messages).thinking is inside
    assert not app.engine.encode(app.conversation.messages[:1]).thinking


def test_compare_measures_and_changes_nothing(app: ChatApp) -> None:
    do(app, "/set temperature=0.7 seed=5")
    do(app, "hello")
    engine, before = app.engine, contents(app)
    kept = (engine.method, engine.drafter, engine.settings, list(engine.cache.tokens))
    do(app, "/set temperature=0 max_new_tokens=2")
    do(app, "/set temperature=0.7 max_new_tokens=31")
    told = do(app, "/compare")
    assert "x measured" in told and "identical output: yes" in told
    assert (engine.method, engine.drafter, engine.settings, engine.cache.tokens) == kept
    assert contents(app) == before
    do(app, "more")
    assert contents(app)[3] == cli_model.said(31)
    do(app, "/method none")
    do(app, "more")
    with pytest.raises(UsageError):
        do(app, "/compare")


def test_why_a_reply_was_as_fast_as_it_was(app: ChatApp, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = app.engine
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    costs = engine._costs
    assert costs is not None
    flat = Costs(dict.fromkeys((1, 2, 4, 8, 16, 32), 1e9))  # slower than any reply
    monkeypatch.setattr(costs, "at_load", flat)
    monkeypatch.setattr(costs, "update", lambda: flat)
    monkeypatch.setattr(costs, "now", flat)
    do(app, "the quick brown dog")
    stats = app.replies.last_part(app.conversation).exchange.reply.stats
    stats.target_seconds = stats.seconds  # as where forwards are all that takes time
    told = do(app, "/why")
    gain = re.search(r"\((\d+\.\d+)x\)", told)
    assert gain and float(gain[1]) == round(stats.tau, 2)  # no more can be, whatever was measured
    assert "those of this reply took 0.00 times as long as these" in told
    for part in (
        "prefill",
        "drafting",
        "by depth",
        "by kind",
        "plain decoding",
        "nothing is wrong",
    ):
        assert part in told
    busy = Costs(dict.fromkeys((1, 2, 4, 8, 16, 32), 1.4 * stats.target_seconds / stats.steps))
    monkeypatch.setattr(costs, "now", busy)
    assert "busy" not in do(app, "/why")
    fast = Costs(dict.fromkeys((1, 2, 4, 8, 16, 32), 1e-9))
    monkeypatch.setattr(costs, "now", fast)
    monkeypatch.setattr(costs, "at_load", fast)
    assert "change " not in do(app, "/why")  # nothing else runs
    monkeypatch.setattr(os, "getloadavg", lambda: (1e6, 0.0, 0.0))
    assert "change " in do(app, "/why")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    slower = "a slower machine: the forwards of this reply took "
    assert slower in " ".join(do(app, "/why").split())
    with monkeypatch.context() as patch:
        patch.setattr(engine, "context_slowdown", lambda: 1e12)
        told = " ".join(do(app, "/why").split())
        assert "times as long after" in told and slower not in told  # the context is the cause
    speed = app.replies.last_part(app.conversation).exchange.reply.stats.tokens_per_second
    steep = Costs({n: n / speed for n in (1, 2, 4, 8, 16, 32)})
    monkeypatch.setattr(costs, "now", steep)
    monkeypatch.setattr(costs, "at_load", steep)
    assert "4.0 times" in do(app, "/why")
    monkeypatch.setattr(os, "getloadavg", lambda: (1e6, 0.0, 0.0))
    assert "a busy machine: load 1000000.0 on" in " ".join(do(app, "/why").split())
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    do(app, "/method auto")
    do(app, "the quick brown dog")
    assert "lookup: its guesses take no time" in " ".join(do(app, "/why").split())
    monkeypatch.setattr(costs, "now", flat)
    monkeypatch.setattr(costs, "at_load", flat)
    do(app, "/method none")
    do(app, "hello")
    assert "plain decoding: every token" in do(app, "/why")


def test_a_method_says_what_its_next_reply_drafts(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = app.engine._costs
    assert costs is not None
    monkeypatch.setattr(costs, "at_load", Costs({n: 1.0 * n for n in (1, 2, 4, 8, 16, 32)}))
    monkeypatch.setattr(costs, "now", costs.at_load)
    flat = Costs(dict.fromkeys((1, 2, 4, 8, 16, 32), 1.0))
    monkeypatch.setattr(costs, "update", lambda: flat)
    told = do(app, "/method lookup")
    monkeypatch.setattr(costs, "now", flat)
    assert app.engine.drafter.describe() in " ".join(told.split())
    assert app.engine.make("lookup").describe() == app.engine.drafter.describe()


def test_continued_rows_are_indented(app: ChatApp, monkeypatch: pytest.MonkeyPatch) -> None:
    do(app, "hello")
    narrow = io.StringIO()
    monkeypatch.setattr(app, "notes", CleanConsole(file=narrow, width=50))
    do(app, "/why")
    rows = narrow.getvalue().splitlines()
    assert {row[:10].strip() for row in rows} >= {"time", "by depth", "by kind", "cause", ""}
    assert all(len(row) <= 50 and row[9] == " " != row[10] for row in rows)


def test_depths_at_which_hardly_anything_is_accepted_stand_together(app: ChatApp) -> None:
    do(app, "hello")
    last = app.conversation.last
    assert last is not None
    stats = last.reply.stats
    for tried, reached, shown in (
        ([400] * 7, [300, 100, 1, 0, 0, 0, 0], "0.75  0.25  0.00, and so to depth 7"),
        ([4, 4, 4], [4, 0, 2], "1.00  0.00  0.50"),
        ([4], [0], "0.00"),
    ):
        stats.tried, stats.reached = tried, reached
        line = f"by depth  {shown}  (share accepted)"
        assert line in do(app, "/why") and line in do(app, "/stats")


def test_a_dot_in_the_text_is_no_space(app: ChatApp) -> None:
    symbols = app.screen.symbols
    assert visible("a b\n·", symbols) == "a·b↵·"
    do(app, "hello")
    records = app.replies.last_part(app.conversation).records
    assert "".join(token for record in records for token in record.tokens).startswith(
        " The quick brown"
    )


def test_a_reply_that_gained_nothing_is_told(app: ChatApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "costs", None)  # whatever steps take on this machine
    told = "gained nothing"
    assert told not in do(app, "hello")
    part = app.replies.last_part(app.conversation)
    stats = part.exchange.reply.stats
    stats.tokens = stats.steps = 40
    app._print_footer(part)
    assert told in said(app)
    stats.drafted = 0
    app._print_footer(part)
    assert told not in said(app)


def test_a_reply_is_proved_by_what_made_it(app: ChatApp) -> None:
    do(app, "/set temperature=0.7 seed=5")
    do(app, "hello")
    template = app.engine.template
    do(app, "/template vicuna_v1.1")
    do(app, "/set temperature=0")
    try:
        told = " ".join(do(app, "/prove").split())
        assert "identical: 31 tokens" in told and "temperature 0.7, same noise" in told
        assert f"template {template.name}" in told and "vicuna" not in told
        assert "identical output: yes" in do(app, "/compare")
    finally:
        app.engine.use_template(template)
    turns, known = app.conversation.turns, app.replies.last(app.conversation)
    (part,) = known.parts
    another = replace(part, exchange=replace(part.exchange, adapter="another"))
    app.replies.put(turns, replace(known, parts=(another,)))
    for command in ("/prove", "/compare"):
        with pytest.raises(UsageError, match="another adapter") as refused:
            do(app, command)
        assert "/adapter another" in refused.value.hint
    part.exchange.reply.ids[7] = 3  # which plain decoding never says
    app.replies.put(turns, known)
    told = " ".join(do(app, "/prove").split())
    assert "from token 8 of 31 on" in told and "(id 3)" in told and "a bug" in told
    do(app, "/set temperature=0.7 accept=rejection")
    do(app, "more")
    told = " ".join(do(app, "/prove").split())
    assert "31 tokens of" in told and "as the target would draw them" in told


def test_a_race_leaves_the_conversation_as_it_was(app: ChatApp) -> None:
    do(app, "hello")
    before, last, cached = contents(app), app.conversation.last, list(app.engine.cache.tokens)
    told = " ".join(do(app, "/race none lookup:ngram=2 lookup").split())
    assert "answering with lookup:ngram=2" in told and "identical to none" in told
    assert "measured one after the other" in told and "until then." in told
    assert "answering with none" in do(app, "/race")
    with pytest.raises(UsageError, match="2 to 4 methods"):
        do(app, "/race none")
    assert (contents(app), app.conversation.last) == (before, last)
    assert (app.engine.method, app.engine.cache.tokens) == ("lookup", cached)


def test_a_full_context_is_told_before_and_refused_then(engine: Engine, app: ChatApp) -> None:
    limit, engine.max_context = engine.max_context, 64
    try:
        assert "% full" not in do(app, "twenty-four letters here")  # after which nothing is typed
        do(app, "/undo")
        app.in_chat = True
        assert "95% full" in do(app, "twenty-four letters here")
        before = contents(app)
        with pytest.raises(ContextError) as error:
            do(app, "one more")
        assert "/undo" in error.value.hint
        assert app.next_input == "one more"
        assert contents(app) == before
    finally:
        engine.max_context = limit


def test_what_got_no_answer_stands_in_the_line_again(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.engine.model.target, "read", lambda *_: False)  # cancelled at once
    assert "before anything was said" in do(app, "hello?")
    assert app.next_input == "hello?"
    assert contents(app) == []


def test_the_first_ctrl_c_cancels_the_second_raises_and_a_third_does_nothing(
    engine: Engine,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    stream = engine.stream("hello")
    with interruptible(stream):
        os.kill(os.getpid(), signal.SIGINT)
        assert stream.read_to_end().ids == []
    assert signal.getsignal(signal.SIGINT) is before
    kept = False
    try:
        with pytest.raises(SecondInterrupt), interruptible(stream):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                kept = True
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert kept


def failing_at_the_second(call: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """Return a function that does what another one does, once, and then raises an error."""
    calls = itertools.count()

    def called(*arguments: Any) -> Any:
        if next(calls):
            raise error
        return call(*arguments)

    return called


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("the roof is on fire"), 1)]
)
def test_the_conversation_outlives_the_program(
    error: BaseException,
    code: int,
    app: ChatApp,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read: Callable[[str], str] = lambda start: "hello"  # noqa: E731
    if code == 1:  # nothing can be read any more
        read = failing_at_the_second(read, error)
    else:  # a second Ctrl-C
        target = app.engine.model.target
        monkeypatch.setattr(target, "read", failing_at_the_second(target.read, error))
    monkeypatch.setattr(repl, "make_reader", lambda *a, **k: read)
    with pytest.raises(typer.Exit) as left, error_boundary(debug=False):
        chat_loop(app.engine, 0.0, DisplayArguments(), SessionArguments())
    assert left.value.exit_code == code
    [file] = (Path("state") / "nfox").glob("conversation-*.json")
    saved = json.loads(file.read_text())["messages"]
    assert saved[1]["content"] == cli_model.said(31)
    assert str(file.name) in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_in_a_reply_costs_the_reply_only(
    debug: bool,
    app: ChatApp,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target, typed = app.engine.model.target, iter(["hello", "and then?", "/exit"])
    costs = app.engine.costs
    monkeypatch.setattr(running_costs, "measure_costs", lambda target, time_limit: costs)
    fire = RuntimeError("the roof\nis on fire")
    monkeypatch.setattr(target, "read", failing_at_the_second(target.read, fire))
    monkeypatch.setattr(repl, "make_reader", lambda *a, **k: lambda start: next(typed))
    with error_boundary(debug=debug):
        chat_loop(app.engine, 0.0, DisplayArguments(), SessionArguments())
    told = capsys.readouterr().err
    assert ("Traceback" in told) is debug
    assert ("nfox: error: RuntimeError: the roof is on fire\n" in told) is not debug
    assert [row.content for row in ConversationLog().read().rows] == ["hello", cli_model.said(31)]


def test_an_error_in_a_line_of_json_costs_the_line_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fire = RuntimeError("the roof is on fire")
    monkeypatch.setattr(engine.model.target, "read", failing_at_the_second(lambda *_: False, fire))
    line = json.dumps({"role": "user", "content": "hello"}) + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(line * 2 + '{"cmd": "reset"}\n'))
    serve_lines(engine, DisplayArguments(), SessionArguments())
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["event"] for answer in answers] == ["start", "end", "error", "reset"]
    assert answers[2]["message"] == "RuntimeError: the roof is on fire"
    assert "the roof is on fire" in err


def test_a_conversation_that_no_file_takes_is_printed(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    do(app, "hello \x1b[31m")
    Path("state").touch()
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    app.rescue()
    error, *lines = capsys.readouterr().err.splitlines()
    assert "could not be saved" in error and "\x1b" not in "".join(lines)
    Path("rescued.json").write_text("\n".join(lines))
    before = contents(app)
    app.conversation.reset()
    do(app, "/load rescued.json")
    assert contents(app) == before


def test_what_is_typed_is_remembered_unless_it_begins_with_a_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = input._history(True)
    for line in ("one", " secret", "two"):
        history.store_string(line)
    file = tmp_path / "nfox" / "input_history"
    assert "one" in file.read_text() and "secret" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    input._history(False).store_string("three")
    assert "three" not in file.read_text()


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(lines: list[str], multiline: bool) -> str:
        said = iter(lines)
        monkeypatch.setattr("builtins.input", lambda prompt: next(said))
        none: Callable[[str], list[str]] = lambda typed: []  # noqa: E731
        return input.make_reader(none, plain=True, multiline=multiline, remember=False)("")

    assert reader(["one"], False) == "one"
    assert reader(["one", "two", ""], True) == "one\ntwo"


def test_settings_are_typed_in_more_ways_than_one(app: ChatApp) -> None:
    assert "temperature=0.5" in do(app, "/set temperature 0.5")
    assert do(app, "/set top-k=3").endswith("with these: lossless\n")
    with pytest.raises(UsageError) as misspelt:
        do(app, "/set temperatur=1")
    assert misspelt.value.hint == "did you mean temperature?"
    assert do(app, "/set top-k") == "top_k=3\n"


def test_what_may_follow_a_command_can_be_asked(app: ChatApp) -> None:
    assert "what may follow: " in do(app, "/help race") and "lookup" in do(app, "/help race")
    assert "may follow" not in do(app, "/help undo")
    names = do(app, "/template list").split()
    assert "vicuna_v1.1" in names and do(app, "/template").startswith("in use: ")


def test_a_bare_exit_or_quit_leaves(app: ChatApp) -> None:
    before = contents(app)
    assert not commands.handle(app, " exit ") and not commands.handle(app, "quit")
    assert contents(app) == before


def test_a_reply_that_was_cut_says_how_it_goes_on(app: ChatApp) -> None:
    do(app, "/set max_new_tokens=2")
    assert "/continue" not in do(app, "Hello")  # of one question, after which nothing is typed
    app.in_chat = True
    assert "/continue goes on with it" in do(app, "Hello")
    do(app, "/set max_new_tokens=31 stop=quick")
    assert "/continue" not in do(app, "Hello")
