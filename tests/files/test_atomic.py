"""Files that are complete or not there, however writing ends."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from full_disk import room

from nfox.errors import NfoxError
from nfox.files import atomic
from nfox.files.atomic import complete_files, write_bytes, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    write_text(file, "before")
    with room(100), pytest.raises(OSError, match="File too large"):
        write_text(file, "x" * 10_000)
    assert file.read_text() == "before"
    assert names(tmp_path) == {"talk.json"}


def test_a_disk_that_tells_only_in_the_end_that_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talk.json"
    write_text(file, "before")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "after")
    assert file.read_text() == "before"
    assert names(tmp_path) == {"talk.json"}


def test_an_interrupt_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talk.json"
    write_text(file, "before")

    def interrupted(path: Path, content: bytes) -> int:
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "after")
    assert file.read_text() == "before"
    assert names(tmp_path) == {"talk.json"}


def test_several_writers_of_one_file_spoil_nothing(tmp_path: Path) -> None:
    file = tmp_path / "last.json"
    texts = [letter * 50_000 for letter in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(file, text), texts))
    assert file.read_text() in texts
    assert names(tmp_path) == {"last.json"}


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "real", tmp_path / "link"
    before = os.umask(0o027)
    try:
        write_text(file, "new")
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    file.chmod(0o604)
    link.symlink_to(file)
    write_text(link, "through the link")
    assert link.is_symlink() and file.read_text() == "through the link"
    assert stat.S_IMODE(file.stat().st_mode) == 0o604
    write_text(file, "secret", private=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_bytes(pipe, b"through the pipe")
        assert read.result(10) == b"through the pipe"
    assert pipe.is_fifo()
    write_text(Path(os.devnull), "nothing")
    assert not Path(os.devnull).is_file()


def test_the_longest_name_can_be_written_and_a_longer_one_is_refused(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * 255)
    write_text(longest, "whole")
    assert longest.read_text() == "whole"
    with pytest.raises(OSError, match="File name too long"):
        write_text(tmp_path / ("x" * 256), "whole")
    assert names(tmp_path) == {longest.name}


def test_a_folder_that_takes_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mounted"
    write_text(file, "before")
    real = os.open

    def refuse_new(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *mode)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "open", refuse_new)
        write_text(file, "after")
        with pytest.raises(PermissionError):
            write_text(tmp_path / "new", "after")
    assert file.read_text() == "after"

    def busy(part: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", busy)
        write_text(file, "mounted on its own")
    assert file.read_text() == "mounted on its own"
    assert names(tmp_path) == {"mounted"}


def test_a_result_that_cannot_be_written_does_not_cost_the_one_before(tmp_path: Path) -> None:
    from nfox.cli.output_files import write_out

    file = tmp_path / "result.json"
    write_out(file, "before")
    with room(100), pytest.raises(NfoxError, match="File too large; what was measured stands"):
        write_out(file, "x" * 10_000)
    assert file.read_text() == "before"


def test_files_of_a_library_replace_those_before_all_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for number in (1, 2):
        with complete_files(folder) as part:
            (part / f"model-{number}-of-2.safetensors").write_text("weights")
            (part / "config.json").write_text(f"{number}")
    (folder / "training.json").write_text("kept")
    before = {"model-2-of-2.safetensors", "config.json", "training.json"}
    assert names(folder) == before
    with room(100), pytest.raises(OSError, match="File too large"), complete_files(folder) as part:
        (part / "config.json").write_text("3")
        (part / "model.safetensors").write_text("x" * 10_000)
    assert names(folder) == before and (folder / "config.json").read_text() == "2"
