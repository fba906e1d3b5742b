"""What becomes of a program whose streams are closed, full, or read by nobody."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import cli_model
import programs
import pytest

pytestmark = pytest.mark.slow
STDOUT_FULL = "nfox: error: stdout: No space left on device"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


def end(*arguments: str, stdout: int | None = None, prepare: str = "") -> tuple[int, str]:
    """Run a program whose stdout leads to a file; return its code and what it told."""
    with tempfile.TemporaryFile() as told:
        process = programs.start(*arguments, stdout=stdout, stderr=told, prepare=prepare)
        code = process.wait(120)
        told.seek(0)
        return code, told.read().decode()


@pytest.mark.parametrize("words", [["--help"], ["methods", "--json"]])
def test_a_full_disk_behind_stdout_is_one_line(words: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    code, told = end(*words, stdout=full)
    os.close(full)
    assert code == 1
    assert told.splitlines()[0] == STDOUT_FULL and "Traceback" not in told


@pytest.mark.parametrize("words", [["-p", "hi"], ["generate", "hi"]])
def test_an_answer_that_cannot_be_written_is_one_line(words: list[str], model: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    code, told = end(*words, "-m", model, "--max-new-tokens", "9", stdout=full)
    os.close(full)
    assert code == 1
    assert told.splitlines()[0] == STDOUT_FULL and len(told.splitlines()) == 2


@pytest.mark.parametrize("words", [["--help"], ["methods"], ["-V"]])
def test_nobody_reads(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    assert end(*words, stdout=write) == (141, "")
    os.close(write)


def test_closed_streams_are_empty_and_take_what_is_written(model: str, tmp_path: Path) -> None:
    words = ["-m", model, "-p", "hi", "--max-new-tokens", "9", "-q"]
    assert end(*words, prepare="broken_streams:without_stdout") == (0, "")
    assert end(*words, prepare="broken_streams:without_any") == (0, "")
    code, told = end("-m", model, prepare="broken_streams:without_stdin")
    assert (code, told.splitlines()[0]) == (2, "nfox: error: the prompt is empty")
    with tempfile.TemporaryFile() as out:
        code, _ = end(*words, stdout=out.fileno(), prepare="broken_streams:without_stdin")
        out.seek(0)
        assert (code, out.read().decode().strip()) == (0, cli_model.said(9).strip())


def test_a_stdin_of_nohup_is_empty_beside_a_text_and_refused_where_it_is_needed(model: str) -> None:
    """In place of a terminal, nohup opens /dev/null for writing alone."""
    unreadable = "nfox: error: stdin cannot be read: Bad file descriptor"
    with open(os.devnull, "wb") as written:  # noqa: PTH123
        for words in (["-p", "-"], ["--style", "programmatic"], ["generate"], []):
            with tempfile.TemporaryFile() as told:
                process = programs.start(*words, "-m", model, stdin=written, stderr=told)
                assert process.wait(120) == 2
                told.seek(0)
                assert told.read().decode().splitlines()[0] == unreadable
        with tempfile.TemporaryFile() as said:
            words = ["-m", model, "-p", "hi", "-M", "9", "-q"]
            assert programs.start(*words, stdin=written, stdout=said).wait(120) == 0
            said.seek(0)
            assert said.read().decode().strip() == cli_model.said(9).strip()


def test_a_signal_ends_a_program_as_ever(model: str) -> None:
    read, write = os.pipe()
    with tempfile.TemporaryFile() as told:
        words = ["-m", model, "-p", "hi", "--max-new-tokens", "4000"]
        process = programs.start(*words, stdout=write, stderr=told)
        os.close(write)
        os.read(read, 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        os.close(read)
        told.seek(0)
        assert told.read() == b""
