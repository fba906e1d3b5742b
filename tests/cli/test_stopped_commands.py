"""Ctrl-Z, `fg` and Ctrl-C in commands that work for long: the terminal is given back, the clock
stands, and nothing is half written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cli_model
import pyte
import pytest
import terminals
from chat_terminal import Chat, chatting
from job_control import STOPPED

pytestmark = pytest.mark.slow
CTRL_C, CTRL_Z = b"\x03", b"\x1a"
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"
PAUSE = 1.5  # seconds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


class Stopped:
    """A command that is stopped, goes on, and is interrupted.

    Args:
        chat: its terminal.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat, self.before, self.begin = chat, chat.settings(), time.monotonic()
        self.written = b""

    def until(self, words: bytes) -> None:
        """Wait until it writes something."""
        self.written += self.chat.until(words)

    def until_lines(self, file: Path, count: int) -> list[dict[str, Any]]:
        """Return the JSON of each line of its file, once there are so many, all whole."""
        end = time.monotonic() + 60
        while not file.exists() or file.read_bytes().count(b"\n") < count:
            assert time.monotonic() < end
            self.written += self.chat.rest()
            time.sleep(0.01)
        return lines(file)

    def stop(self) -> None:
        """Press Ctrl-Z, wait, and type `fg`."""
        self.chat.keys(CTRL_Z)
        self.until(STOPPED)
        self._is_restored()
        time.sleep(PAUSE)
        self.chat.keys(b"fg\n")

    def interrupt(self) -> float:
        """Press Ctrl-C; return how long all has taken but for the stop."""
        self.chat.keys(CTRL_C)
        assert self.chat.process.wait(60) == 130
        seconds = time.monotonic() - self.begin - PAUSE
        self.written += self.chat.rest()
        self._is_restored()
        assert b"Traceback" not in self.written
        return seconds

    def _is_restored(self) -> None:
        assert self.chat.settings() == self.before
        assert self.written.rfind(SHOWN) >= self.written.rfind(HIDDEN)


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the JSON of each line of a file, all of which are whole."""
    text = file.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def started(folder: Path, *words: str) -> Iterator[Stopped]:
    with chatting(folder, *words, prepare="job_control:under_a_shell") as chat:
        yield Stopped(chat)


def test_answers_to_many_prompts(model: str, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "work" / "out.jsonl"
    prompts.write_text("hello\n" * 500)
    words = ("generate", "--prompts", str(prompts), "--out", "out.jsonl", "-m", model)
    with started(tmp_path, *words, "--method", "none", "-M", "91", "--threads", "1") as job:
        job.until_lines(out, 1)
        job.stop()
        there = len(lines(out))
        job.until_lines(out, there + 2)
        seconds = job.interrupt()
    answers = lines(out)
    assert {answer["text"] for answer in answers} == {cli_model.said(91)}
    assert sum(answer["timings"]["predicted_ms"] for answer in answers) < 1e3 * seconds
    assert there + 2 <= len(answers) < 500


def test_a_benchmark(model: str, tmp_path: Path) -> None:
    words = ("bench", "-m", model, "--methods", "lookup", "-M", "200", "--json", "out.json")
    with started(tmp_path, *words, "--warmup", "0", "--threads", "1") as job:
        job.until(b"2 of")
        job.stop()
        job.until(b"4 of")
        seconds = job.interrupt()
    assert b"the same command goes on" in job.written
    _, *trials = lines(tmp_path / "work" / "out.json.trials")
    assert len(trials) >= 4 and not (tmp_path / "work" / "out.json").exists()
    taken = sum(stats["seconds"] for trial in trials for stats in trial["stats"])
    assert 0 < taken < seconds


def test_a_doctor(model: str, tmp_path: Path) -> None:
    with started(tmp_path, "doctor", "-m", model, "--threads", "1") as job:
        job.until(b"measuring ")
        job.stop()
        job.until(b"measuring ")
        job.interrupt()
    assert not list((tmp_path / "work").iterdir())


def test_an_answer_in_the_background(model: str, tmp_path: Path) -> None:
    words = ("-m", model, "-p", "hi", "-M", "9", "--method", "none")
    with chatting(tmp_path, *words, prepare="job_control:in_the_background") as job:
        before = job.settings()
        assert job.process.wait(60) == 0
        # On the screen: how the text comes, in one piece or several, depends on what else runs.
        screen = terminals.Terminal(80, 24)
        pyte.ByteStream(screen).feed(job.rest())
        assert terminals.bare(cli_model.said(9)) in terminals.bare("".join(screen.display))
        assert job.settings() == before


def test_an_answer_that_goes_on_in_the_background(model: str, tmp_path: Path) -> None:
    words = ("-m", model, "-p", "hi", "-M", "1500", "--method", "none", "-q", "--no-live")
    with started(tmp_path, *words) as job:
        job.until(cli_model.said(40).strip()[:20].encode())
        job.chat.keys(CTRL_Z)
        job.until(STOPPED)
        job.chat.keys(b"bg\n")
        assert job.chat.process.wait(60) == 0
        assert job.chat.settings() == job.before
