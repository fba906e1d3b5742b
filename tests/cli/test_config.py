"""A file of options: what wins over what, what is refused, where each value is said to be from."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli_model
import pytest
from command_line import root, run
from rich.console import Console
from typer.testing import Result

from nfox import Conversation, load
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.cli.config.file import ConfigFile, read_config, short
from nfox.cli.config.shown import settable
from nfox.cli.display.theme import make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.errors import UsageError

ROOT = root()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the file that is read by default."""
    for name in [name for name in os.environ if name.startswith("NFOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "nfox").mkdir()
    return tmp_path / "nfox" / "config.toml"


def tokens(model: str, *words: object, **environment: str) -> int:
    """Return how many tokens a reply has: what --max-new-tokens was."""
    done = run("-m", model, "--json", "-p", "hello", *words, **environment)
    assert done.exit_code == 0, done.stderr
    return int(json.loads(done.stdout.splitlines()[-1])["usage"]["completion_tokens"])


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    model: str, file: Path, tmp_path: Path
) -> None:
    file.write_text("max_new_tokens = 3\n")
    other = tmp_path / "other.toml"
    other.write_text("max-new-tokens = 6\n")
    assert tokens(model) == 3
    assert tokens(model, NFOX_MAX_NEW_TOKENS="4") == 4
    assert tokens(model, "-M", 5, NFOX_MAX_NEW_TOKENS="4") == 5
    assert tokens(model, NFOX_CONFIG=str(other)) == 6
    assert tokens(model, "--config", other, NFOX_CONFIG=str(file)) == 6
    assert tokens(model, "--config", os.devnull, "--stop", "quick") > 0


def lines(done: Result) -> dict[str, tuple[str, str]]:
    """Return the value and the origin of every key that `nfox config` prints."""
    assert done.exit_code == 0, done.stderr
    rows = (line.rsplit("  ", 1) for line in done.stdout.splitlines())
    pairs = ((row[0].strip().split(" = ", 1), row[1].strip()) for row in rows)
    return {key: (value, place) for (key, value), place in pairs}


def test_every_value_is_shown_with_its_origin(file: Path) -> None:
    file.write_text('# mine\n\nstop = "fox"\nlive = false\n\n[serve]\nport = 5055\ntop-k = 3\n')
    shown = lines(run("config", NFOX_TOP_P="0.5"))
    assert list(shown)[:3] == ["top-p", "stop", "live"]
    assert shown["stop"] == ('["fox"]', f"{file}:3")
    assert shown["live"] == ("false", f"{file}:4")
    assert shown["top-p"] == ("0.5", "NFOX_TOP_P")
    assert shown["top-k"] == ("-", "default")
    assert shown["max-new-tokens"] == ("512", "default")
    assert len(shown) == len(settable(ROOT))
    serving = lines(run("config", "serve"))
    assert serving["port"] == ("5055", f"{file}:7")
    assert serving["top-k"] == ("3", f"{file}:8")
    assert serving["stop"] == ('["fox"]', f"{file}:3")
    assert run("config", "serv").stderr.endswith("hint: did you mean serve?\n")


def test_commands_that_measure_or_make_data_have_tables_of_their_own(file: Path) -> None:
    file.write_text("temperature = 0.7\n[bench]\nrounds = 5\n[data.distill]\nlimit = 7\n")
    for command in ("race", "generate", "serve", "worker"):
        assert lines(run("config", command))["temperature"] == ("0.7", f"{file}:1")
    bench, distill = lines(run("config", "bench")), lines(run("config", "data", "distill"))
    assert bench["temperature"] == ("-", "default") and bench["rounds"] == ("5", f"{file}:3")
    assert distill["temperature"] == ("0.0", "default") and distill["limit"] == ("7", f"{file}:5")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\n\ntemprature = 1", ":3: there is no option temprature", "did you mean temperature?"),
        ("[serve]\nprot = 1", ":2: there is no option prot in [serve]", "did you mean port?"),
        ("serve.prot = 1", ":1: there is no option prot in [serve]", "did you mean port?"),
        ("\n[srve]\nport = 1", ":2: there is no command srve", "did you mean serve?"),
        ('temperature = "hot"', ":1: --temperature hot: expected a number", ""),
        ("temperature = true", ":1: temperature = true: expected a number", ""),
        ("temperature = -1", ":1: --temperature -1: expected at least 0", ""),
        ('theme = "drk"', ":1: --theme drk: expected one of auto, dark, light", "did you mean"),
        ("quiet = 1", ":1: quiet = 1: expected true or false", ""),
        ("model = [1]", ":1: model = [1]: expected a text", ""),
        ("model = {a = 1}", ':1: model = {"a": 1}: expected a text', ""),
        ("stop = [1]", ":1: stop = [1]: expected a list of texts", ""),
        ("seed = 2020-01-01", ':1: seed = "2020-01-01": expected a number', ""),
        ('prompt = "x"', ":1: prompt is of the command line alone", "take it out"),
        ("no-live = true", ":1: no-live is no key", "live = false"),
        ("lenience = 0.5", ":1: --lenience is of the rule `rejection`", "add --accept"),
        ('method = "warp"', ":1: unknown method 'warp'", "available: auto"),
        ("\nmodel = ", ":2: not TOML: Invalid value", ""),
        ("seed = 1\nseed = 2\n", ":2: not TOML: Cannot overwrite a value", ""),
        ('stop = """\nseed = 1\n"""\nseed = "x"', ":4: --seed x: expected a whole number", ""),
    ],
)
def test_what_cannot_be_used_is_a_line_with_its_place(
    text: str, message: str, hint: str, file: Path
) -> None:
    file.write_text(text)
    done = run("-p", "hi")
    first, *others = done.stderr.splitlines()
    assert (done.exit_code, first) == (2, f"nfox: error: {file}{message}")
    assert len(others) <= 1 and (not hint or others[0].startswith(f"hint: {hint}"))


def test_a_file_that_is_named_must_be_there(file: Path) -> None:
    assert run("config").exit_code == 0
    done = run("--config", "/no/file.toml", "-p", "hi")
    assert (done.exit_code, "/no/file.toml: No such file" in done.stderr) == (2, True)
    done = run("-p", "hi", NFOX_CONFIG="/no/file.toml")
    assert done.stderr.startswith("nfox: error: NFOX_CONFIG: /no/file.toml: No such file")
    file.mkdir()
    assert run("config").exit_code == 0  # no file is there


def test_help_and_the_way_out_need_no_whole_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("model = ")
    assert run("--help").exit_code == run("config", "--help").exit_code == 0
    assert run("config", "--path").stdout == f"{file}\n"
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "seed = $SEED" > "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("VISUAL", str(editor))
    for seed, code in (("", 2), ("7", 0)):
        done = run("config", "--edit", SEED=seed)
        assert (done.exit_code, f"{file}:1: not TOML" in done.stderr) == (code, code == 2)
    assert lines(run("config"))["seed"] == ("7", f"{file}:1")


def test_without_a_terminal_no_editor_is_guessed_and_no_file_begun(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "vi"
    editor.write_text("#!/bin/sh\nexit 0\n")
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    done = run("config", "--edit")
    assert done.exit_code == 2 and "nfox: error: vi needs a terminal" in done.stderr
    assert not file.exists()


def test_a_person_without_a_folder_of_their_own_sees_whole_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert short(Path.home() / "nfox.toml") == "~/nfox.toml"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert short(Path("/etc/nfox.toml")) == "/etc/nfox.toml"


def test_a_new_file_has_every_key_as_a_comment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "true")
    done = run("config", "--edit")
    assert done.exit_code == 0, done.stderr
    begun = file.read_text()
    assert read_config(file, ROOT) == ConfigFile(
        file, {n: {} for n in read_config(file, ROOT).values}
    )
    keys = [line[2:].split(" = ")[0] for line in begun.splitlines() if " = " in line]
    assert keys == [*lines(run("config")), "port"]
    whole = [line[2:] for line in begun.splitlines()[1:] if "= ..." not in line]
    file.write_text("\n".join(whole))
    assert run("config").exit_code == 0, "what stands there is right once it is no comment"


def test_no_option_bears_the_name_of_a_command() -> None:
    def check(command: Any) -> None:
        commands = getattr(command, "commands", {})
        # --config is read before the file is, whose table it would be.
        assert not {p.name for p in command.params} & set(commands) - {"config"}
        for inner in commands.values():
            check(inner)

    check(ROOT)


def test_every_command_takes_a_file(model: str, tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("max-new-tokens = 2\n[generate]\nseed = 1\n")
    for words in (("generate", "--config", other), ("--config", other, "generate")):
        done = run(*words, "-m", model, "hello")
        assert json.loads(done.stdout)["text"] == cli_model.said(2)
    file.write_text("seed = ")
    assert run("generate", "-m", model, "hello").exit_code == 2
    with pytest.raises(UsageError):
        read_config(file, ROOT)


@pytest.fixture
def chat(model: str, tmp_path: Path, file: Path) -> Iterator[ChatApp]:
    file.write_text('temperature = 0.5\nmodel = "some"\n')
    display = DisplayArguments()
    text = io.StringIO()
    engine = load(model)
    chat_app = ChatApp(Conversation(engine), make_screen(display, text), display)
    chat_app.notes = Console(file=text, width=200, highlight=False)
    with ROOT.make_context("nfox", ["--seed", "3"]) as context:
        from nfox.cli.engine_arguments import EngineArguments
        from nfox.cli.options.engine import GenerationArguments, ModelArguments

        given = GenerationArguments(temperature=context.params["temperature"], seed=3)
        engine.use_settings(EngineArguments(ModelArguments(), generation=given)._settings())
        yield chat_app
    engine.close()


def test_the_chat_says_what_was_set_and_what_has_changed_since(chat: ChatApp, file: Path) -> None:
    def do(text: str) -> list[str]:
        output: Any = chat.screen.console.file
        output.seek(0)
        output.truncate()
        assert registry.handle(chat, text)
        return [" ".join(line.split()) for line in output.getvalue().splitlines()]

    shown = do("/config")
    assert f"temperature = 0.5 {file}:1" in shown and "seed = 3 command line" in shown
    assert f'model = "some" {file}:2' in shown and "others have their defaults" in shown[-2]
    assert not any("changed" in row for row in do("/config all"))
    assert "top-p = 1.0 default" in do("/config all")
    do("/set temperature=0.7 stop=x")
    do("/method lookup")
    shown = do("/config")
    for row in ("temperature = 0.7", 'stop = ["x"]', 'method = "lookup"'):
        assert f"{row} changed in the chat" in shown
    assert "seed = 3 command line" in shown
    assert len(do("/config all")) == len(settable(ROOT))
    with pytest.raises(UsageError, match="expected nothing, or all"):
        do("/config everything")
