"""Trained heads on disk: `drafter.json` says what they are, `heads.safetensors` holds the weights.

The folder lies anywhere, or beside its base as `<base>/nfox/<method>/`, where it is found by
itself. Published layouts are read by the method they belong to.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nfox.errors import ModelError
from nfox.files.progress import quiet
from nfox.models.loading import ModelOptions, read_json

ABOUT = "drafter.json"
WEIGHTS = "heads.safetensors"
RECORD = "training.json"
"""Says what a model in the folder was trained for, and how."""

_MODEL = "model.safetensors"
_BESIDE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class About(BaseModel, extra="forbid"):
    """What `drafter.json` says.

    Args:
        method: whose heads these are.
        base: name of the model they were trained on.
        config: of the architecture, as the method defines it.
        accuracy: [depth][rank] how often a guess was the target's own token, if measured.
        training: data, steps, seconds, versions, command: where they come from.
    """

    method: str
    base: str
    config: dict[str, Any]
    accuracy: list[list[float]] = []
    training: dict[str, Any] = {}


def file_of(place: str, name: str, options: ModelOptions) -> Path | None:
    """Return a file of a local folder or of a hub repository, downloaded if need be; None if it
    has no such file.

    Args:
        place: folder or hub id.
        name: of the file.
        options: revision, cache_dir and offline are used.
    """
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    quiet()  # neither its five retries nor its bars are for the person
    try:
        return Path(
            hf_hub_download(
                place,
                name,
                revision=options.revision,
                cache_dir=options.cache_dir,
                local_files_only=options.offline,
            )
        )
    except LocalEntryNotFoundError as error:
        if options.offline:
            return None
        raise ModelError(
            f"{place}: the hub cannot be reached, and {name} is not in the local cache",
            "check the network, or pass a folder",
        ) from error
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError):
        return None  # no such file, no such repository, or no right to read it


def about(place: str, options: ModelOptions | None = None) -> About | None:
    """Read what heads a folder or hub repository in our own layout holds; None if it holds none.

    Raises:
        ModelError: if `drafter.json` is not what it should be.
    """
    path = file_of(place, ABOUT, options or ModelOptions())
    if path is None:
        return None
    try:
        return About.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: {where}: {first['msg']}", "write it anew by training") from error


def base_of(place: str, options: ModelOptions | None = None) -> str | None:
    """Return the base model that heads or an adapter name in their config; None for a model.

    Args:
        place: local folder or hub id.
        options: revision and offline are used.
    """
    options = options or ModelOptions()
    path = file_of(place, "config.json", options)
    config = read_json(path) if path else {}
    local = Path(place).is_dir()
    if config.get("architectures") and not (local and "base_model_name_or_path" in config):
        return None
    if any(Path(place).glob("model*.safetensors")):
        return None
    own = about(place, options)
    if own is not None:
        return own.base
    if not config and (path := file_of(place, "adapter_config.json", options)):
        config = read_json(path)
    base = config.get("base_model_name_or_path")
    return str(base) if base else None


def model_files(place: str, options: ModelOptions) -> dict[str, Path]:
    """Return the files of a language model by name: config, weights, and the tokenizer if any.

    Raises:
        ModelError: if a file of weights is missing.
    """
    index = file_of(place, f"{_MODEL}.index.json", options)
    shards = sorted(set(read_json(index)["weight_map"].values())) if index else [_MODEL]
    names = ["config.json", *([f"{_MODEL}.index.json"] if index else []), *shards, *_BESIDE]
    found = {name: file_of(place, name, options) for name in names}
    missing = next((name for name in shards if found[name] is None), None)
    if missing:
        raise ModelError(f"{place}: there is no {missing}", "save it by save_pretrained")
    return {name: path for name, path in found.items() if path is not None}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a PyTorch one without unpickling code.

    Raises:
        ModelError: if it is truncated or something else.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # Mapped, so that to look at names and shapes costs nothing; the oldest format cannot be.
        mapped = zipfile.is_zipfile(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except UNREADABLE as error:
        # What the libraries say is for programmers, and several lines long.
        why = f"{path.stat().st_size:,} bytes" if path.exists() else "no such file"
        why = str(error.strerror) if isinstance(error, PermissionError) else why
        raise ModelError(
            f"{path}: not a whole checkpoint of weights ({why})", "copy it again"
        ) from error


UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
)
"""What torch and safetensors raise over a file that is not whole, or not theirs."""


def read(place: str, options: ModelOptions | None = None) -> dict[str, Tensor]:
    """Read the weights of heads in our own layout.

    Raises:
        ModelError: if they are not there or not whole.
    """
    path = file_of(place, WEIGHTS, options or ModelOptions())
    if path is None:
        raise ModelError(f"{place}: there is {ABOUT}, but no {WEIGHTS}", "copy it again")
    return read_tensors(path)


def write(folder: Path, what: About, tensors: Mapping[str, Tensor]) -> None:
    """Write heads in bf16; a file is complete before it has its name."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, {k: v.to(torch.bfloat16) for k, v in tensors.items()})
    text = json.dumps(what.model_dump(), indent=2, ensure_ascii=False)
    write_text(folder / ABOUT, _rows_on_lines(text) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; it is complete before it has its name."""
    with _complete(path) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is complete before it has its name."""
    with _complete(path) as part:
        part.write_text(text, encoding="utf-8")


def copy(source: Path, path: Path) -> None:
    """Copy a file; it is complete before it has its name."""
    with _complete(path) as part:
        shutil.copyfile(source, part)


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Give another name to write to; what was not written whole, on a full disk, goes."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _rows_on_lines(text: str) -> str:
    """Put rows of numbers on one line each."""
    return re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], place: str) -> None:
    """Load weights into a module, all of them and nothing else.

    Raises:
        ModelError: if names or shapes do not fit.
    """
    own = {name: weight.shape for name, weight in module.state_dict().items()}
    given = {name: weight.shape for name, weight in tensors.items()}
    if own != given:
        odd = sorted(own.keys() ^ given.keys()) or [n for n in own if own[n] != given[n]]
        raise ModelError(
            f"{place}: these heads are not what their config says: {odd[0]} is "
            f"{_shape(given.get(odd[0]))}, expected {_shape(own.get(odd[0]))}",
            "copy or train them again",
        )
    module.load_state_dict(dict(tensors))


def _shape(shape: Any) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
