"""Trained heads on disk: `drafter.json` says what they are, `heads.safetensors` holds the weights.

The folder lies anywhere, or beside its base as `<base>/nfox/<method>/`, where it is found by
itself. Published layouts are read by the method they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, field_validator
from torch import Tensor, nn

from nfox.controls import json_text
from nfox.errors import ModelError
from nfox.files.atomic import read_tensors, write_tensors, write_text
from nfox.files.hub import HubOptions, file_of, json_of, read_json
from nfox.files.model_names import local_folder
from nfox.files.reading import refusing
from nfox.files.tensors import is_finite, name_some
from nfox.models.training_folders import HEADS_INFO

INFO_FILE = HEADS_INFO
WEIGHTS_FILE = "heads.safetensors"
TRAINING_FILE = "training.json"
"""What a trained model in the same folder was trained for, and how."""


Rates = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
"""How often the guess of each rank for one depth was right."""


class _TrainingFields(BaseModel, extra="ignore"):
    """What is read again of a record of training, which is for people otherwise."""

    joint: dict[str, Any] | None = None
    base_fingerprint: list[FiniteFloat] | None = None


class HeadsInfo(BaseModel, extra="forbid"):
    """What `drafter.json` says of trained heads.

    Args:
        method: the name of the method whose heads these are.
        base: the name of the model that they were trained on.
        config: the sizes of their layers, as the method's `Heads.Config` defines them.
        accuracy: [depth][rank] how often a guess was the target's own token; empty if not measured.
        frequent_tokens: the token ids, rising, that nearly all of the text they were trained on is
            made of, which guesses are taken from where that is faster; empty for all.
        training: the data, steps, seconds, versions and command that they come from.
    """

    method: str
    base: str
    config: dict[str, Any]
    accuracy: list[Rates] = []
    frequent_tokens: list[NonNegativeInt] = []
    training: dict[str, Any] = {}

    @field_validator("training")
    @classmethod
    def _readable(cls, training: dict[str, Any]) -> dict[str, Any]:
        """Refuse a record whose fields that are read again have another type."""
        _TrainingFields.model_validate(training, strict=True)
        return training


def read_info(location: str, hub: HubOptions | None = None) -> HeadsInfo | None:
    """Return what `drafter.json` of a folder or hub repository says; None if there is none.

    Args:
        location: a folder or a hub id.
        hub: how files are fetched.

    Raises:
        ModelError: if `drafter.json` is not what it should be.
    """
    path = file_of(location, INFO_FILE, hub or HubOptions())
    if path is None:
        return None
    with refusing(path, error_type=ModelError, hint="write it anew by training"):
        return HeadsInfo.model_validate(read_json(path))


def base_of(location: str, hub: HubOptions | None = None) -> str | None:
    """Return the base model that heads or an adapter name in their config; None for a whole model.

    Args:
        location: a folder or a hub id of heads, of an adapter, or of a model.
        hub: how files are fetched.
    """
    hub = hub or HubOptions()
    config, folder = json_of(location, "config.json", hub), local_folder(location)
    if config.get("architectures") and not (folder and "base_model_name_or_path" in config):
        return None
    if folder and any(folder.glob("model*.safetensors")):
        return None
    info = read_info(location, hub)
    if info is not None:
        return info.base
    config = config or json_of(location, "adapter_config.json", hub)
    base = config.get("base_model_name_or_path")
    return str(base) if base else None


def read_weights(location: str, hub: HubOptions | None = None) -> dict[str, Tensor]:
    """Return the weights, by name, in `heads.safetensors` of a folder or hub repository.

    Args:
        location: a folder or a hub id.
        hub: how files are fetched.

    Raises:
        ModelError: if they are not there or not whole.
    """
    path = file_of(location, WEIGHTS_FILE, hub or HubOptions())
    if path is None:
        raise ModelError(
            f"{location}: there is {INFO_FILE}, but no {WEIGHTS_FILE}", "copy it again"
        )
    return read_tensors(path)


def write(folder: Path, info: HeadsInfo, weights: Mapping[str, Tensor]) -> None:
    """Write heads into a folder; each file appears when it is complete.

    Args:
        folder: made if it is not there.
        info: for `drafter.json`.
        weights: by name, for `heads.safetensors`; they are written in bfloat16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    in_16_bit = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    write_tensors(folder / WEIGHTS_FILE, in_16_bit)
    text = json_text(info.model_dump(), indent=2)
    write_text(folder / INFO_FILE, _rows_on_lines(text) + "\n")


def _rows_on_lines(text: str) -> str:
    """Return a JSON text in which every list of numbers is on one line."""
    numbers = re.compile(r"\[\s+([-\d.,\s]+?)\s+\]")
    return numbers.sub(lambda match: f"[{' '.join(match[1].split())}]", text)


def check_layer_count(count: int, weights: Mapping[str, Tensor], location: str) -> None:
    """Refuse heads with more layers than weights, before a layer is made.

    Args:
        count: the layers that their config asks for.
        weights: by name.
        location: where the weights were read, for the error.

    Raises:
        ModelError: if there are fewer weights than layers.
    """
    if count > len(weights):
        raise ModelError(
            f"{location}: these heads are not what their config says: it asks for {count:,} "
            f"layers, and there are {len(weights)} weights",
            _COPY_AGAIN,
        )


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], location: str) -> None:
    """Load the weights of a module, which must be all that it has, and nothing else.

    Args:
        module: the heads; on the meta device they get memory once it is known that all fits.
        weights: by name.
        location: where the weights were read, for the error.

    Raises:
        ModelError: if names or shapes do not fit, or a weight holds what is no number.
    """
    expected = {name: weight.shape for name, weight in module.state_dict().items()}
    shapes = {name: weight.shape for name, weight in weights.items()}
    differing = [
        f"{name} is {_format_shape(shapes.get(name))}, expected {_format_shape(expected.get(name))}"
        for name in expected.keys() | shapes.keys()
        if expected.get(name) != shapes.get(name)
    ]
    if differing:
        raise ModelError(
            f"{location}: these heads are not what their config says: {name_some(differing)}",
            _COPY_AGAIN,
        )
    broken = [
        name
        for name, weight in weights.items()
        if not weight.is_floating_point() or not is_finite(weight)
    ]
    if broken:
        raise ModelError(
            f"{location}: weights with NaN, infinities or no floats: {name_some(broken)}",
            _COPY_AGAIN,
        )
    if any(weight.is_meta for weight in module.parameters()):
        module.to_empty(device="cpu")
    module.load_state_dict(dict(weights))


_COPY_AGAIN = "copy or train them again"


def _format_shape(shape: Any) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
