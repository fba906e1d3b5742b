"""GGUF files by the names that people give: a file, a folder that holds one, and transformers' own
spelling for a file of the hub, org/name:file.gguf.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from nfox.errors import ModelError
from nfox.files.gguf_header import GgufHeader, read_header
from nfox.files.hub import HubOptions, file_of
from nfox.files.model_names import is_local_file, local_folder
from nfox.files.reading import refusing

SUFFIX = ".gguf"
_ON_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.gguf)", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
_OF_SEVERAL_FILES = "split.count"


def is_on_hub(name: str) -> bool:
    """Return whether a name is that of a GGUF file in a repository of the hub."""
    return _ON_HUB.fullmatch(name) is not None and not is_local_file(name)


def find_gguf(name: str, hub: HubOptions, bars: type[Any] | None = None) -> Path | None:
    """Return the GGUF file that the name of a model means; None if it means another kind of model.

    Args:
        name: a file, a folder, or a hub id, with a colon and the name of a GGUF file after it.
        hub: how a file of the hub is fetched. One that is not in the local cache is downloaded.
        bars: the class of bars of tqdm that a download reports to; None reports nothing.

    Raises:
        ModelError: if a folder holds several, or the hub has no such file.
    """
    if is_on_hub(name) and (place := _ON_HUB.fullmatch(name)):
        path = file_of(place["repository"], place["file"], hub, bars)
        if path is None:
            where = "in the local cache" if hub.offline else "on the hub, or no right to read it"
            raise ModelError(f"{name}: there is no such file {where}", "check the name")
        return path
    return local_gguf(name)


def local_gguf(name: str) -> Path | None:
    """Return the GGUF file that is, or lies in, what the name of a model means on this machine;
    None if there is none, or the folder holds the model in another form.

    Raises:
        ModelError: if a folder holds several.
    """
    if is_local_file(name):
        path = Path(name).expanduser()
        return path if path.suffix.lower() == SUFFIX else None
    folder = local_folder(name)
    if folder is None or (folder / "config.json").is_file():
        return None
    with refusing(name, error_type=ModelError, hint="check the path"):
        found = sorted(path for path in folder.iterdir() if _is_model(path))
    if len(found) > 1 and not _PART.search(found[0].name):
        names = ", ".join(path.name for path in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ModelError(
            f"{name}: there are {len(found)} GGUF files in this folder: {names}{more}",
            f"name one: --model {found[0]}",
        )
    return found[0] if found else None


def _is_model(path: Path) -> bool:
    """Whether a file is a language model, and no projector of images that lies beside one."""
    return path.suffix.lower() == SUFFIX and not path.name.startswith("mmproj") and path.is_file()


@lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> GgufHeader:
    """Return the header of a file, which is asked for several times."""
    return read_header(path)


def read_model_header(path: Path) -> GgufHeader:
    """Return the header of the file of a whole model.

    Args:
        path: of the file.

    Raises:
        ModelError: if it is no GGUF file, or not whole, or one of several files of a model.
    """
    part = _PART.search(path.name)
    with refusing(path, error_type=ModelError, hint="check the path"):
        state = path.stat()
    header = _read(path, state.st_mtime_ns, state.st_size)
    count = header.metadata.get(_OF_SEVERAL_FILES, int(part[1]) if part else 1)
    if type(count) is not int or count > 1:
        raise ModelError(
            f"{path}: a model in {count} files is not read",
            f"merge them: llama-gguf-split --merge {path.name} model.gguf",
        )
    return header
