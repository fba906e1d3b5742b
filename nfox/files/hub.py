"""Files of a model: in a local folder, or in a repository of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfox.errors import ModelError
from nfox.files.model_names import (
    check_hub_id,
    hint_at_model,
    is_local_file,
    kept_repositories,
    local_folder,
)
from nfox.files.reading import read_object, refusing


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


_Asked = tuple[str, str, HubOptions]
_kept_answers: ContextVar[dict[_Asked, Path | None] | None] = ContextVar("answers", default=None)
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
    answers, asked = _answers(), (location, name, hub)
    if asked not in answers:
        try:
            answers[asked] = _download(location, name, hub, bars)
        except _NoAnswerError:
            return None  # which may be another one when it is asked again
    return answers[asked]


class _NoAnswerError(Exception):
    """The hub did not say whether there is such a file: it is busy, or refused this reader."""


@contextmanager
def asking_once() -> Iterator[None]:
    """Ask the hub once for each file while this lasts, however often the file is looked for: every
    method looks for its weights in what a person names, and each question is one over the network.
    """
    token = _kept_answers.set({})
    try:
        yield
    finally:
        _kept_answers.reset(token)


def _answers() -> dict[_Asked, Path | None]:
    """Return where answers of the hub are kept: for no longer than a call, but in `asking_once`."""
    kept = _kept_answers.get()
    return {} if kept is None else kept


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
        RepositoryNotFoundError,
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
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return None  # also where this reader has no right to know of it
    except HfHubHTTPError as error:
        raise _NoAnswerError from error


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
