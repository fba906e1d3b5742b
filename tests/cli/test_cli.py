"""The command line: options, exit codes, one answer, lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

import cli_model
import click
import programs
import pytest
from command_line import root
from typer.testing import CliRunner, Result

import nfox
from nfox.cli.app import app
from nfox.cli.chat import events
from nfox.cli.engine_arguments import EngineArguments
from nfox.cli.options.chat import DisplayArguments, SessionArguments
from nfox.cli.options.dataclass_options import grouped
from nfox.cli.options.engine import (
    Accept,
    GenerationArguments,
    MethodArguments,
    ModelArguments,
)
from nfox.controls import sanitize
from nfox.decoding.rules import RULES
from nfox.drafters import method_class, method_names
from nfox.errors import NfoxError
from nfox.text.resolve import available

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "prompt_toolkit", "fastchat.model", "bitsandbytes")
SLOW = (*HEAVY, "rich", "jinja2", "psutil", "packaging", "nfox.text.resolve")
REPLY = sanitize(cli_model.said(31)).lstrip()  # piped: tabs are kept


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NFOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


def invoke(*arguments: str, input: str = "") -> Result:
    return CliRunner().invoke(app, arguments, input=input)


def ask(model: str, *arguments: str, input: str = "") -> Result:
    return invoke("--model", model, "--max-new-tokens", "31", *arguments, input=input)


@contextmanager
def piped(*arguments: str) -> Iterator[tuple[programs.Program, BinaryIO, BinaryIO]]:
    """Start a program; give it with the pipes that it writes its output and its errors to."""
    ends = [os.pipe(), os.pipe()]
    process = programs.start(*arguments, stdout=ends[0][1], stderr=ends[1][1])
    for _, written in ends:
        os.close(written)
    # Without buffers, which would keep more of it from us than we ask for.
    out, err = (os.fdopen(read, "rb", buffering=0) for read, _ in ends)
    with out, err:
        yield process, out, err


CUT = "nfox: cut at 31 tokens; -M N (--max-new-tokens) allows more\n"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_plain_lines_have_no_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(arguments: EngineArguments, **options: object) -> None:
        asked.append(options["bars"])
        raise NfoxError("that is enough")

    monkeypatch.setattr(EngineArguments, "load", load)
    for style in ("rich", "simple", "programmatic"):
        invoke("--style", style, *(() if style == "programmatic" else ("-p", "hi")))
    assert asked == [True, False, False]


def test_help_is_light_and_complete() -> None:
    code = (
        "import sys; sys.argv = ['nfox', '--help']\n"
        "from nfox.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted(set(sys.modules) & set({SLOW!r})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stderr.decode().strip() == "[]"
    help = done.stdout.decode()
    for panel in ("Model", "Method", "Generation", "Display", "Session", "Commands"):
        assert f"\n{panel}\n" in help
    for name in method_names():
        assert name in help


def test_no_option_is_without_an_environment_variable() -> None:
    without = {"prompt", "resume", "version", "no_color"}
    for group in (
        ModelArguments,
        MethodArguments,
        GenerationArguments,
        DisplayArguments,
        SessionArguments,
    ):
        for name, hint in get_type_hints(group, include_extras=True).items():
            assert (hint.__metadata__[0].envvar is None) == (name in without), name


def test_a_group_of_options_may_consist_of_groups() -> None:
    received: list[EngineArguments] = []

    def command(engine_arguments: EngineArguments) -> None:
        received.append(engine_arguments)

    typed = grouped(command)
    parameters = signature(typed).parameters
    groups = (ModelArguments, MethodArguments, GenerationArguments)
    names = [field.name for group in groups for field in fields(group)]
    assert list(parameters) == [*names, "debug", "config"]
    values = {name: parameter.default for name, parameter in parameters.items()}
    typed(**values | {"model": "some", "gamma": 3})
    assert received == [EngineArguments(ModelArguments("some"), MethodArguments(gamma=3))]


def test_every_command_shows_tracebacks_if_asked() -> None:
    def commands(command: click.Command) -> Iterator[click.Command]:
        yield command
        for inner in getattr(command, "commands", {}).values():
            yield from commands(inner)

    without = {
        command.name
        for command in commands(root())
        if "debug" not in {parameter.name for parameter in command.params}
    }
    assert without == {"data", "eval", "train"}  # groups; train reads its own arguments


def test_choices_are_those_of_the_engine() -> None:
    assert Accept.__args__ == RULES  # type: ignore[attr-defined]


def test_version_and_templates() -> None:
    assert invoke("-V").stdout == f"nfox {nfox.__version__}\n"
    shown = invoke("--conv-template", "list")
    assert shown.exit_code == 0
    assert shown.stdout.split() == [*available(), "tokenizer"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--method", "warp"], 2, "unknown method 'warp'"),
        (["--conv-template", "vicunna"], 3, "no conversation template 'vicunna'"),
        (["-o", "gamma"], 2, "not NAME=VALUE"),
        (["--load-in-4bit", "--load-in-8bit"], 2, "4 bit and 8 bit"),
        (["--lenience", "0.5"], 2, "--accept rejection"),
        (["--epsilon", "0.5"], 2, "--accept typical"),
        (["--max-memory", "0=9GiB"], 2, "--device-map"),
        (["--temperature", "-1"], 2, "--temperature"),
        (["--style", "fancy"], 2, "--style"),
        (["-p", "", "--json"], 2, "the prompt is empty"),
        (["--style", "programmatic", "-p", "hi"], 2, "reads prompts from stdin"),
        (["--resume", "-p", "hi"], 2, "--resume is of the chat"),
        (["--gamma", "3", "methods"], 2, "--gamma stands before methods"),
        (["methods", "--model", "./absent"], 3, "./absent: no such folder"),
        (["--model", "/no/such/folder", "-p", "hi"], 3, "no such folder"),
    ],
)
def test_mistakes_are_one_line_and_a_code(arguments: list[str], code: int, said: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == code
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_one_answer(model: str) -> None:
    done = ask(model, "-p", "hello")
    assert (done.exit_code, done.stdout) == (0, REPLY + "\n")
    assert done.stderr == CUT
    whole = ask(model, "-p", "hello", "--stop", "fox")
    assert (whole.exit_code, whole.stdout, whole.stderr) == (0, "The quick brown \n", "")


def test_a_pipe_and_a_prompt_are_joined(model: str) -> None:
    end = lines(ask(model, "--json", "-p", "explain", input="a file\n").stdout)[-1]
    alone = lines(ask(model, "--json", "-p", "explain\n\na file").stdout)[-1]
    dash = lines(ask(model, "--json", "-p", "-", input="explain\n\na file").stdout)[-1]
    assert end["usage"] == alone["usage"] == dash["usage"]


def test_every_method_gives_the_same_answer(model: str) -> None:
    free = [name for name in method_names() if not method_class(name).needs]
    draft = ["--method", "spec", "--draft-model", model]
    answers = [ask(model, "-p", "hello", "--method", name).stdout for name in free]
    answers.append(ask(model, "-p", "hello", *draft, "--gamma", "3").stdout)
    assert set(answers) == {REPLY + "\n"}


def test_a_lossy_rule_is_called_so_where_it_is_asked_for(model: str) -> None:
    lossy = ["-p", "hello", "--accept", "typical", "--temperature", "1"]
    assert "typical: not lossless" in ask(model, *lossy, "-v").stderr
    assert "lossless" not in ask(model, *lossy[:2], "-v").stderr
    assert lines(ask(model, *lossy, "--json").stdout)[0]["lossless"] is False
    done = ask(model, *lossy[2:], "--style", "programmatic", input="")
    assert lines(done.stdout)[0]["lossless"] is False


def test_json_events(model: str) -> None:
    lookup = ("--method", "lookup", "-o", "gamma=8")  # what it drafts depends on no time
    done = ask(model, "-p", "the quick brown dog", "--json", "-vv", *lookup)
    first, *middle, last = lines(done.stdout)
    assert (first["event"], first["schema"]) == ("start", events.SCHEMA)
    assert first["lossless"] is True
    deltas = [event for event in middle if event["event"] == "delta"]
    assert "".join(event["text"] for event in deltas) == last["text"] == cli_model.said(31)
    for event in deltas:
        assert sum(count for count, _ in event["runs"]) == len(event["text"])
    assert {run[1] for event in deltas for run in event["runs"]} == {"a", "b", "c"}
    steps = [event for event in middle if event["event"] == "step"]
    assert len(steps) == last["spec"]["steps"]
    assert sum(len(event["tokens"]) for event in steps) == last["usage"]["completion_tokens"] == 31
    assert last["finish_reason"] == "length"
    assert last["timings"]["draft_n_accepted"] == last["spec"]["accepted"] > 0
    assert not any("choice" in event for event in steps)


def test_json_events_say_what_was_chosen_to_draft_with(model: str) -> None:
    done = ask(model, "-p", "the quick brown dog", "--json", "-vv")
    *middle, last = lines(done.stdout)
    chosen = [event["choice"] for event in middle if event["event"] == "step"]
    assert last["spec"]["method"] == "auto"
    assert last["spec"]["choices"] == {name: chosen.count(name) for name in chosen}


def test_no_event_can_steer_a_terminal() -> None:
    import io
    from contextlib import redirect_stdout

    text = "\x1b[31m \x9b2J \x7f \u202e \u2066 你好"
    with redirect_stdout(io.StringIO()) as out:
        events.write({"text": text})
    assert not set(out.getvalue()) & {"\x1b", "\x9b", "\x7f", "\u202e", "\u2066"}
    assert json.loads(out.getvalue()) == {"text": text}
    assert "你好" in out.getvalue()


def test_stop_and_verbose(model: str) -> None:
    done = ask(model, "-p", "hello", "--stop", "quick", "-v")
    assert done.stdout.strip() == "The"
    assert "steps" in done.stderr and "prefill" in done.stderr
    assert ask(model, "-p", "hello", "--stop", "quick", "-v", "-q").stdout.strip() == "The"


def test_a_list_in_the_environment_is_read_as_a_shell_reads_words(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFOX_STOP", "nowhere ' brown fox'")
    assert ask(model, "-p", "hello").stdout == "The quick\n"
    assert "fox" in ask(model, "-p", "hello", "--stop", "nowhere ' brown").stdout
    monkeypatch.setenv("NFOX_OPTION", "gamma=2 ngram=1")
    first = lines(ask(model, "-p", "hello", "--json").stdout)[0]
    assert "2 tokens after the last 1" in first["drafter"]
    monkeypatch.setenv("NFOX_STOP", "it's")
    done = ask(model, "-p", "hello")
    assert done.exit_code == 2
    assert "NFOX_STOP: No closing quotation" in " ".join(done.stderr.replace("│", "").split())


def test_a_prompt_that_does_not_fit(model: str) -> None:
    done = ask(model, "-p", "x" * 300, "--max-context", "64", "--json")
    assert done.exit_code == 4
    assert "64" in done.stderr
    assert lines(done.stdout)[-1]["code"] == 4


def test_programmatic_lines(model: str) -> None:
    said = [
        '{"role": "user", "content": "one"}',
        "",
        "not json",
        '{"role": "user", "content": "two"}',
        '{"role": "tool", "content": "x"}',
        '{"cmd": "reset"}',
        '{"role": "user", "content": "two"}',
    ]
    done = ask(model, "--style", "programmatic", input="\n".join(said))
    assert done.exit_code == 0
    events_ = [event for event in lines(done.stdout) if event["event"] != "delta"]
    assert [event["event"] for event in events_] == [
        *("start", "end", "error", "end", "error", "reset", "end")
    ]
    one, two, fresh = (event for event in events_ if event["event"] == "end")
    assert one["text"] == two["text"] == fresh["text"] == cli_model.said(31)
    prompts = [event["usage"]["prompt_tokens"] for event in (one, two, fresh)]
    assert prompts[0] == prompts[2] < prompts[1]


def test_sampling_of_the_model(model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(model).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = copy / "generation_config.json"
    data = json.loads(config.read_text())
    config.write_text(json.dumps({**data, "do_sample": True, "temperature": 0.5, "top_p": 0.9}))
    assert ask(str(copy), "-p", "hello", "--sampling", "model").stdout == REPLY + "\n"
    config.write_text(json.dumps({**data, "num_beams": 3}))
    done = ask(str(copy), "-p", "hello", "--sampling", "model")
    assert done.exit_code == 2
    assert "num_beams=3" in done.stderr


def test_what_the_models_sampling_means() -> None:
    from transformers import GenerationConfig

    from nfox.decoding.sampling import Sampling
    from nfox.models.generation_config import sampling_of

    assert sampling_of(GenerationConfig(temperature=0.5)) == Sampling()
    drawn = sampling_of(GenerationConfig(do_sample=True, temperature=0.5, top_p=0.9), seed=3)
    assert drawn == Sampling(temperature=0.5, top_k=50, top_p=0.9, seed=3)
    assert sampling_of(GenerationConfig(repetition_penalty=1.2)) == replace(
        Sampling(), repetition_penalty=1.2
    )


@pytest.mark.slow
def test_a_real_pipe_gets_the_answer_alone(model: str) -> None:
    command = [*programs.COMMAND, "-m", model, "--max-new-tokens", "31"]
    done = subprocess.run(
        command, input=b"hello\n", capture_output=True, env=programs.ENVIRONMENT, timeout=120
    )
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, REPLY + "\n", CUT.encode())


@pytest.mark.slow
def test_nobody_reads(model: str) -> None:
    with piped("-m", model, "-p", "hi", "--max-new-tokens", "3000") as (process, out, err):
        assert out.read(10)
        out.close()
        assert process.wait(120) == 141
        assert err.read() == b""


@pytest.mark.slow
def test_interrupted(model: str) -> None:
    with piped("-m", model, "-p", "hi", "--max-new-tokens", "4000") as (process, out, err):
        begin = out.read(10)
        process.send_signal(signal.SIGINT)
        said = (begin + out.read()).decode()
        assert process.wait(120) == 130
        assert said.endswith("\n") and err.read() == b""
    whole = sanitize(cli_model.said(4000)).lstrip()
    assert whole.startswith(said.strip().rstrip("\ufffd"))  # it may end inside a character
