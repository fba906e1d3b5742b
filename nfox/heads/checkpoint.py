"""Trained heads on disk: `drafter.json` says what they are, `heads.safetensors` holds the weights.

The folder lies anywhere, or beside its base as `<base>/nfox/<method>/`, where it is found by
itself. Published layouts are read by the method they belong to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from nfox.errors import ModelError
from nfox.files.atomic import read_tensors, write_tensors, write_text
from nfox.files.hub import HubOptions, file_of, read_json

INFO_FILE = "drafter.json"
WEIGHTS_FILE = "heads.safetensors"
TRAINING_FILE = "training.json"
"""What a trained model in the same folder was trained for, and how."""


class HeadsInfo(BaseModel, extra="forbid"):
    """What `drafter.json` says of trained heads.

    Args:
        method: the name of the method whose heads these are.
        base: the name of the model that they were trained on.
        config: the sizes of their layers, as the method's `Heads.Config` defines them.
        accuracy: [depth][rank] how often a guess was the target's own token; empty if not measured.
        training: the data, steps, seconds, versions and command that they come from.
    """

    method: str
    base: str
    config: dict[str, Any]
    accuracy: list[list[float]] = []
    training: dict[str, Any] = {}


def read_info(location: str, hub: HubOptions | None = None) -> HeadsInfo | None:
    """Read `drafter.json` of a folder or hub repository; None if there is none.

    Args:
        location: a folder or a hub id.
        hub: how files are fetched.

    Raises:
        ModelError: if `drafter.json` is not what it should be.
    """
    path = file_of(location, INFO_FILE, hub or HubOptions())
    if path is None:
        return None
    try:
        return HeadsInfo.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: {where}: {first['msg']}", "write it anew by training") from error


def base_of(location: str, hub: HubOptions | None = None) -> str | None:
    """Return the base model that heads or an adapter name in their config; None for a whole model.

    Args:
        location: a folder or a hub id of heads, of an adapter, or of a model.
        hub: how files are fetched.
    """
    hub = hub or HubOptions()
    path = file_of(location, "config.json", hub)
    config = read_json(path) if path else {}
    local = Path(location).is_dir()
    if config.get("architectures") and not (local and "base_model_name_or_path" in config):
        return None
    if any(Path(location).glob("model*.safetensors")):
        return None
    info = read_info(location, hub)
    if info is not None:
        return info.base
    if not config and (path := file_of(location, "adapter_config.json", hub)):
        config = read_json(path)
    base = config.get("base_model_name_or_path")
    return str(base) if base else None


def read(location: str, hub: HubOptions | None = None) -> dict[str, Tensor]:
    """Read the weights of heads, `heads.safetensors`, of a folder or hub repository.

    Raises:
        ModelError: if they are not there or not whole.
    """
    path = file_of(location, WEIGHTS_FILE, hub or HubOptions())
    if path is None:
        raise ModelError(
            f"{location}: there is {INFO_FILE}, but no {WEIGHTS_FILE}", "copy it again"
        )
    return read_tensors(path)


def write(folder: Path, info: HeadsInfo, tensors: Mapping[str, Tensor]) -> None:
    """Write heads into a folder, their weights in bfloat16; a file appears when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS_FILE, {k: v.to(torch.bfloat16) for k, v in tensors.items()})
    text = json.dumps(info.model_dump(), indent=2, ensure_ascii=False)
    write_text(folder / INFO_FILE, _rows_on_lines(text) + "\n")


def _rows_on_lines(text: str) -> str:
    """Put rows of numbers on one line each."""
    return re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], location: str) -> None:
    """Load weights into a module: all that it has, and nothing else.

    Args:
        module: the heads.
        tensors: the weights by name.
        location: where the weights were read, for the error.

    Raises:
        ModelError: if names or shapes do not fit.
    """
    expected = {name: weight.shape for name, weight in module.state_dict().items()}
    shapes = {name: weight.shape for name, weight in tensors.items()}
    if expected != shapes:
        odd = sorted(expected.keys() ^ shapes.keys()) or [
            name for name in expected if expected[name] != shapes[name]
        ]
        raise ModelError(
            f"{location}: these heads are not what their config says: {odd[0]} is "
            f"{_shape(shapes.get(odd[0]))}, expected {_shape(expected.get(odd[0]))}",
            "copy or train them again",
        )
    module.load_state_dict(dict(tensors))


def _shape(shape: Any) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
