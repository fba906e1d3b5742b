"""`nfox generate` in several processes: what comes of it is what comes of one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder
import programs
import pytest
import two_processes
from click.testing import Result
from typer.testing import CliRunner

from nfox.batch import AnswerCounter, BatchPrompt, sort_answers
from nfox.cli.app import app
from nfox.cli.generate import output
from nfox.files.jsonl import append_lines

PROMPTS = tuple(BatchPrompt(f"p{number}", number, (), ("hello",)) for number in range(9))


def line(name: str, **more: object) -> str:
    return json.dumps({"id": name, **more}) + "\n"


def ids(out: Path) -> list[str]:
    return [json.loads(row)["id"] for row in out.read_text().splitlines()]


@pytest.mark.parametrize("seed", range(20))
def test_answers_come_into_the_order_of_the_prompts(seed: int, tmp_path: Path) -> None:
    numbers, out = random.Random(seed), tmp_path / "out.jsonl"
    prompts = numbers.sample(PROMPTS, len(PROMPTS))
    others = [f"other {number}" for number in range(numbers.randint(0, 3))]
    # Each process adds its own in order; how these come to lie between one another is chance.
    queues = [others, *([prompt.id for prompt in prompts[rank::3]] for rank in range(3))]
    queues = [list(queue) for queue in queues]
    while any(queues):
        append_lines(out, line(numbers.choice([queue for queue in queues if queue]).pop(0)))
    before = sorted(out.read_text().splitlines())
    sort_answers(out, prompts)
    assert ids(out) == [*others, *(prompt.id for prompt in prompts)]
    assert sorted(out.read_text().splitlines()) == before
    written = out.stat().st_ino
    sort_answers(out, prompts)
    assert out.stat().st_ino == written  # what is in order is left alone


def test_a_growing_file_is_read_line_by_line(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(line("other") + line("p1") + '{"id": "p2", "te')  # killed in a line
    answers = AnswerCounter(out, PROMPTS[:4])
    assert (answers.missing, answers.refused) == ({"p0", "p2", "p3"}, [])
    assert answers.update() == 0
    append_lines(out, line("p2", text="a\u2028b") + line("p0", error="too long", code=4))
    assert (answers.update(), answers.missing, answers.refused) == (2, {"p3"}, [4])
    with out.open("a") as file:
        file.write('{"id": "p3"')
        file.flush()
        assert answers.update() == 0
        file.write("}\n")
    assert (answers.update(), answers.missing) == (1, set())
    assert AnswerCounter(tmp_path / "absent", PROMPTS).missing == {prompt.id for prompt in PROMPTS}


def asked(place: Path, texts: Sequence[str]) -> Path:
    prompts = place / "in.jsonl"
    rows = [{"id": f"p{number}", "prompt": text} for number, text in enumerate(texts)]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    return prompts


def arguments(prompts: Path, out: Path, tokens: int = 8) -> list[str]:
    """Return a command in which the model samples, under the published names."""
    named = ["--target_model_name", folder.llama(), "--approx_model_name", folder.llama(1, 1)]
    chosen = ["--temperature", 0.8, "--seed", 5, "--dtype", "float32", "-g", 2, "-M", tokens]
    return ["generate", *map(str, [*named, *chosen, "--prompts", prompts, "--out", out])]


def process(rank: int, given: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run one of two processes, in this one."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    return CliRunner().invoke(app, given)


def same(one: Path, other: Path) -> bool:
    """Whether two files say the same, but for what it took."""
    keep = ("id", "text", "tokens", "finish_reason")
    found: list[Any] = [
        [{name: json.loads(row)[name] for name in keep} for row in out.read_text().splitlines()]
        for out in (one, other)
    ]
    return bool(found[0] == found[1])


@pytest.mark.slow
def test_two_processes_write_what_one_writes_also_after_a_kill(tmp_path: Path) -> None:
    prompts = asked(tmp_path, [f"hello {number}" for number in range(24)])
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert CliRunner().invoke(app, arguments(prompts, one, 48)).exit_code == 0
    whole = arguments(prompts, two, 48)
    both = two_processes.start(*whole)
    while not two.exists() or len(two.read_text().splitlines()) < 3:
        assert None in [process.poll() for process in both]
        time.sleep(0.01)
    for process in both:
        process.kill()
        process.wait()
    killed = set(two.read_text().splitlines(keepends=True)[:3])
    assert len(two.read_text().splitlines()) < 24
    done = two_processes.launch(*whole)
    assert done.stdout == ""
    assert same(one, two)
    assert killed < set(two.read_text().splitlines(keepends=True))  # these were not made again
    before = two.read_bytes()
    assert "already" in CliRunner().invoke(app, whole).stderr
    assert two.read_bytes() == before


def test_the_first_process_speaks_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, out = asked(tmp_path, ["hello", "x " * 600, "you"]), tmp_path / "out.jsonl"
    second = process(1, arguments(prompts, out), monkeypatch)
    assert (second.exit_code, second.output) == (0, "")  # a launcher would end the others
    assert ids(out) == ["p1"]
    first = process(0, arguments(prompts, out), monkeypatch)
    assert first.exit_code == 4
    assert "1 of 3 prompts were not answered" in first.stderr
    assert ids(out) == ["p0", "p1", "p2"]


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, out = asked(tmp_path, ["hello", "and", "you"]), tmp_path / "out.jsonl"
    monkeypatch.setattr(output, "_PATIENCE", 0)
    alone = process(0, arguments(prompts, out), monkeypatch)
    assert alone.exit_code == 1
    assert "1 prompt of other processes without an answer" in alone.stderr
    assert "Traceback" not in alone.stderr
    assert process(1, arguments(prompts, out), monkeypatch).exit_code == 0
    assert "already" in process(0, arguments(prompts, out), monkeypatch).stderr
    assert ids(out) == ["p0", "p1", "p2"]


@pytest.mark.slow
def test_two_runs_on_one_file_share_it(tmp_path: Path) -> None:
    """A launcher that was killed leaves its processes, and the same command is given again."""
    prompts = asked(tmp_path, [f"hello {number}" for number in range(12)])
    one, both = tmp_path / "one.jsonl", tmp_path / "both.jsonl"
    assert CliRunner().invoke(app, arguments(prompts, one)).exit_code == 0
    runs = [programs.start(*arguments(prompts, both)) for _ in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert same(one, both)


def test_a_file_that_another_run_put_in_order_is_read_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(line("p2", text="a long answer") + line("p1"))
    answers = AnswerCounter(out, PROMPTS)
    append_lines(out, line("p0") + line("p3", text="another long answer"))
    sort_answers(out, PROMPTS)
    assert answers.update() == 2
    assert answers.missing == {prompt.id for prompt in PROMPTS[4:]}


def test_what_stands_twice_is_put_right(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(line("p1", n=1) + line("p0") + line("p1", n=2))
    sort_answers(out, PROMPTS)
    assert out.read_text() == line("p0") + line("p1", n=1)


def test_a_file_is_gone_on_with_in_the_same_way_only(tmp_path: Path) -> None:
    prompts, out = asked(tmp_path, ["hello", "you"]), tmp_path / "out.jsonl"
    first = CliRunner().invoke(app, arguments(prompts, out))
    assert "nfox: 2 prompts, 0 of them answered before, 0 refused;" in first.stderr
    before = out.read_bytes()
    other = CliRunner().invoke(app, [*arguments(prompts, out), "--temperature", "0.1"])
    assert other.exit_code == 2
    assert "was begun with temperature 0.8, not 0.1" in other.stderr
    plainly = CliRunner().invoke(app, [*arguments(prompts, out), "--method", "none"])
    assert plainly.exit_code == 0  # the text is the same by any method
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "cannot share stdin"),
        (["--prompts", "-", "--out", "x"], "cannot share stdin"),
        (["hello"], "cannot share stdout"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = process(0, ["generate", *given], monkeypatch)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2  # and what to do


def test_a_chat_is_asked_for_under_the_published_names() -> None:
    model, draft = str(folder.llama()), str(folder.llama(1, 1))
    ours = ["--model", model, "--draft-model", draft, "--prompt", "hello"]
    theirs = ["--target_model_name", model, "--approx_model_name", draft, "--input", "hello"]
    done = CliRunner().invoke(app, [*theirs, "-g", "2", "--max_tokens", "8"])
    assert done.exit_code == 0
    assert done.stdout == CliRunner().invoke(app, [*ours, "--gamma", "2", "-M", "8"]).stdout
