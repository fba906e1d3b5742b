"""Files of a model: in a local folder, or in a repository of the Hugging Face hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfox.demo import TARGET
from nfox.errors import ModelError, did_you_mean
from nfox.files.reading import read_object, refusing
from nfox.known_models import KNOWN, kept_at, shipped_for


@dataclass(frozen=True)
class HubOptions:
    """How files are fetched from the hub.

    Args:
        revision: commit, tag or branch; None is the repository's main branch.
        cache_dir: the folder where downloads are kept; None is the hub's own folder.
        offline: use files that are in the local cache only.
    """

    revision: str | None = None
    cache_dir: str | None = None
    offline: bool = False


_WEIGHTS = "model.safetensors"
_TIMEOUT = 10.0  # seconds in which the hub must answer
_OTHER_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def local_folder(name: str) -> Path | None:
    """Return the folder that the name of a model means, that of a known model where it was fetched
    to; None if there is no such folder, as for a hub id. A file may name anything: what no file
    system takes is no folder.
    """
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() else kept_at(name)
    except (OSError, RuntimeError, ValueError):  # too long, of a person who is not there, a NUL
        return None


def short_name(name: str) -> str:
    """Return the name of a model for a person: without the folders around it."""
    if Path(name) == TARGET:
        return "the embedded model"
    return Path(name).name if is_local_file(name) or Path(name).is_dir() else name


def home_of(name: str) -> Path | None:
    """Return the folder in whose `nfox/` lies what belongs to a model: its own, or that in which
    the file lies that it is; None for a hub id.
    """
    return Path(name).expanduser().parent if is_local_file(name) else local_folder(name)


def check_hub_id(name: str) -> None:
    """Refuse a known model that was not fetched yet, and a folder or a GGUF file that is not there,
    before they are taken for a hub id.

    Raises:
        ModelError: if it is one of these.
    """
    is_there = local_folder(name) is not None
    if name in KNOWN and not is_there:
        raise ModelError(f"{name} is not on this machine yet", f"nfox get {name}")
    meant = "" if "/" in name else did_you_mean(name.lower(), KNOWN)
    if meant and not is_there and name not in kept_repositories():
        raise ModelError(f"{name}: no such folder, and no model is known by this name", meant)
    if name.lower().endswith(".gguf") and ":" not in name and not is_local_file(name):
        hint = "check the path; a file of the hub is org/name:file.gguf"
        raise ModelError(f"{name}: no such file", hint)
    is_path = name.startswith((".", "~", os.sep)) or name.endswith(os.sep)
    is_path = is_path or name.count("/") > 1 or "\\" in name
    if is_path and not is_local_file(name) and local_folder(name) is None:
        raise ModelError(f"{name}: no such folder", "check the path")


def hint_at_model(name: str, otherwise: str) -> str:
    """Return what may be meant by the name of a model that is not there.

    Args:
        name: as it was given.
        otherwise: the hint where it is near to none that is known or in the cache.
    """
    return did_you_mean(name, [*KNOWN, *kept_repositories()], otherwise)


def beside(model: str) -> list[Path]:
    """Return the folders in which what belongs to a model is looked for, the first one first:
    `<its folder>/nfox`, and what comes with nfox for a known model.
    """
    home = home_of(model)
    own = home / "nfox" if home is not None else None
    return [place for place in (own, shipped_for(model, home)) if place is not None]


def adapters_beside(model: str) -> dict[str, Path]:
    """Return the folders of the adapters that lie beside a model, by their names."""
    places = [place / "adapters" for place in reversed(beside(model))]
    files = [file for place in places for file in place.glob("*/adapter_config.json")]
    return {file.parent.name: file.parent for file in files}


def kept_repositories() -> list[str]:
    """Return the ids of the models that are in the hub's cache, in whole or in part."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*"))
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]


def is_local_file(name: str) -> bool:
    """Return whether the name of a model is that of a file."""
    try:
        return Path(name).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def file_of(
    location: str, name: str, hub: HubOptions, bars: type[Any] | None = None
) -> Path | None:
    """Return the path of a file of a local folder or of a hub repository; None if there is no such
    file. A file of the hub is downloaded unless it is in the local cache.

    Args:
        location: a folder or a hub id.
        name: the name of the file.
        hub: how files are fetched from the hub.
        bars: the class of bars of tqdm that a download reports to; None reports nothing.

    Raises:
        ModelError: if the hub cannot be reached.
    """
    if (folder := local_folder(location)) is not None:
        return folder / name if (folder / name).is_file() else None
    if is_local_file(location):  # which has no files
        return None
    return _download(location, name, hub, bars)


def _download(
    repository: str, name: str, hub: HubOptions, bars: type[Any] | None = None
) -> Path | None:
    """Return the path of a file of a repository in the local cache; None if there is none."""
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    from nfox.files.progress import quiet

    check_hub_id(repository)
    quiet()  # neither its five retries nor its bars are for the person
    if not hub.offline and repository not in kept_repositories():
        _check_reachable(repository, name, hub)
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository,
                name,
                revision=hub.revision,
                cache_dir=hub.cache_dir,
                local_files_only=hub.offline,
                tqdm_class=bars,
            )
        )
    except LocalEntryNotFoundError as error:
        if hub.offline:
            return None
        raise _unreachable(repository, name) from error
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError):
        return None  # no such file, no such repository, or no right to read it


def _check_reachable(repository: str, name: str, hub: HubOptions) -> None:
    """Refuse at once where the hub cannot be reached: its library would ask it again and again, for
    half a minute.

    Raises:
        ModelError: if there is no answer, whatever it would be.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        HfHubHTTPError,
        HFValidationError,
    )

    answers = EntryNotFoundError, FileMetadataError, HfHubHTTPError, HFValidationError
    try:
        url = hf_hub_url(repository, name, revision=hub.revision)
        get_hf_file_metadata(url, timeout=_TIMEOUT)
    except answers:
        return  # which are understood by who asks for the file
    except Exception as error:  # each version of the library has another client, with its errors
        raise _unreachable(repository, name) from error


def _unreachable(repository: str, name: str) -> ModelError:
    return ModelError(
        f"{repository}: the hub cannot be reached, and {name} is not in the local cache",
        hint_at_model(repository, "check the network, or pass a folder"),
    )


def model_files(location: str, hub: HubOptions) -> dict[str, Path]:
    """Return the paths of the files of a language model by their names: the config, the weights,
    and those of the tokenizer that there are.

    Args:
        location: a folder or a hub id.
        hub: how files are fetched from the hub.

    Raises:
        ModelError: if a file of weights is missing, or the hub cannot be reached.
    """
    index = file_of(location, f"{_WEIGHTS}.index.json", hub)
    shards = _shards(index) if index else [_WEIGHTS]
    names = ["config.json", *([f"{_WEIGHTS}.index.json"] if index else []), *shards, *_OTHER_FILES]
    paths = {name: file_of(location, name, hub) for name in names}
    missing = next((name for name in shards if paths[name] is None), None)
    if missing:
        raise ModelError(f"{location}: there is no {missing}", "save it by save_pretrained")
    return {name: path for name, path in paths.items() if path is not None}


def _shards(index: Path) -> list[str]:
    """Return the names of the files of weights that an index names, which lie beside it."""
    with refusing(index, '{"weight_map": {TENSOR: FILE}}', ModelError):
        names = sorted(set(read_json(index)["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("weight_map names files of other folders")
        return names


def json_of(location: str, name: str, hub: HubOptions) -> dict[str, Any]:
    """Return the JSON object in a file of a folder or hub repository; {} if there is no file."""
    path = file_of(location, name, hub)
    return read_json(path) if path else {}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file of a model holds, in which an infinity may stand.

    Raises:
        ModelError: if the file cannot be read, or holds no JSON object.
    """
    return read_object(path, error_type=ModelError, non_finite=True)
