"""The files of an adapter: what its config asks for, and whether its weights can be that.

peft makes the layers that a config asks for, then looks into the file of weights, and says nothing
of numbers that are none. Here the file decides first.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nfox.errors import ModelError
from nfox.files.atomic import read_tensors
from nfox.files.hub import HubOptions, file_of
from nfox.files.reading import read_object, refusing
from nfox.files.tensors import is_finite, name_some

log = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_NUMBERS = ("r", "init_r", "lora_alpha")
_SWITCHES = ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias")


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter on disk.

    Args:
        name: of the adapter, as the person wrote it, for errors.
        location: its folder or hub id.
        hub: how its files are fetched.
        folder: where its files are, also those of a repository of the hub.
        fields: what its config says.
        weights: the tensors by their names.
    """

    name: str
    location: str
    hub: HubOptions
    folder: Path
    fields: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def title(self) -> str:
        """What the adapter is called in errors."""
        return f"adapter {self.name}"

    def config(self) -> Any:
        """Return peft's config of the adapter.

        Raises:
            ModelError: if adapters of its type are none that change weights, it is of no type that
                peft knows, or asks for a larger rank than the file of weights has.
        """
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig

        kind = self.fields.get("peft_type")
        if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
            raise ModelError(
                f"{self.title}: {CONFIG_FILE} names the type {kind}, unknown to peft",
                "pass the folder of a LoRA; a newer peft may know more types",
            )
        self._tell_unknown_fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])
        self._check_fields()
        config = PeftConfig.from_pretrained(str(self.folder))
        if config.is_prompt_learning or config.is_adaption_prompt or kind == "XLORA":
            raise ModelError(
                f"{self.title}: {kind} adds to the prompt or to the forward; nfox takes "
                "adapters that change weights",
                "pass a LoRA, or another type that peft merges",
            )
        config.inference_mode = True
        config.task_type = None  # what it was trained for decides no shape that is used here
        return config

    def _tell_unknown_fields(self, config_class: type) -> None:
        """Log the fields that this version of peft does not know and that say something."""
        known = {field.name for field in dataclasses.fields(config_class)}
        unknown = [name for name, value in self.fields.items() if value and name not in known]
        if unknown:
            log.warning(
                "%s: this version of peft ignores %s: with a newer one the text may be another",
                self.title,
                name_some(unknown),
            )

    def _check_fields(self) -> None:
        """Refuse what is no number or no switch, and ranks that are larger than anything in the
        file, before memory is asked for.
        """
        for name in _SWITCHES:
            value = self.fields.get(name)
            if not isinstance(value, bool | None):
                raise ModelError(
                    f"{self.title}: {name} in {CONFIG_FILE} is {value!r}, expected true or false",
                    "copy it again",
                )
        numbers = {name: self.fields[name] for name in _NUMBERS if name in self.fields}
        for kind in ("rank", "alpha"):
            pattern = self.fields.get(f"{kind}_pattern") or {}
            with refusing(f"{self.title}: {kind}_pattern in {CONFIG_FILE}", error_type=ModelError):
                numbers |= {f"{kind}_pattern.{part}": value for part, value in pattern.items()}
        most, largest = self._ranks()
        for name, value in numbers.items():
            if type(value) is not int and not ("alpha" in name and type(value) is float):
                raise ModelError(
                    f"{self.title}: {name} in {CONFIG_FILE} is {value!r}, expected a number",
                    "copy it again",
                )
            if "alpha" not in name and value > most:
                raise ModelError(
                    f"{self.title}: {CONFIG_FILE} asks for rank {value}, and the largest in the "
                    f"file of weights is {largest}",
                    "copy it again",
                )

    def _ranks(self) -> tuple[int, int]:
        """Return the largest rank that a config may name, and the largest that the file can have.
        A config may have a general one that no layer uses.
        """
        shapes = {name: tuple(weight.shape) for name, weight in self.weights.items()}
        ranks = [shape[0] for name, shape in shapes.items() if ".lora_A." in name and shape]
        if ranks:
            return max(1024, 16 * max(ranks)), max(ranks)
        largest = max((max(shape, default=1) for shape in shapes.values()), default=1)
        return largest, largest

    @property
    def changes_nothing(self) -> bool:
        """Whether it is a LoRA as training starts with, one factor of which is 0, or one that
        counts for nothing.
        """
        names = {name: re.search(r"\.lora_([AB])\.", name) for name in self.weights}
        if self.fields.get("lora_alpha") == 0 and not self.fields.get("alpha_pattern"):
            return all(names.values())
        return all(names.values()) and not any(
            bool(self.weights[name].any())
            for name, part in names.items()
            if part and part[1] == "B"
        )

    def rows_of(self, path: str) -> int | None:
        """Return the rows of the whole matrix that the file holds for an embedding of the model;
        None if it holds none.

        Args:
            path: the name of the embedding in the model.
        """
        for name, weight in self.weights.items():
            is_part = f".{path}." in f".{name}" and "lora_" not in name
            if is_part and name.endswith(".weight") and weight.dim() == 2:
                return len(weight)
        return None


def find(location: str, name: str, hub: HubOptions) -> AdapterFiles:
    """Return the files of an adapter, which are downloaded where they are not there.

    Args:
        location: folder or hub id of the adapter.
        name: of the adapter, as the person wrote it, for errors.
        hub: how files are fetched; the revision is the base model's.

    Raises:
        ModelError: if a file is missing or not whole, or a weight holds what is no number.
    """
    hub = dataclasses.replace(hub, revision=None)
    config = file_of(location, CONFIG_FILE, hub)
    if config is None:
        in_cache = " in the local cache" if hub.offline else ""
        hint = "leave --offline out, or pass a folder" if hub.offline else "check the id"
        raise ModelError(f"adapter {name}: there is no {CONFIG_FILE}{in_cache}", hint)
    fields = read_object(config, "a config of peft", ModelError)
    paths = (file_of(location, file, hub) for file in _WEIGHTS_FILES)
    path = next((path for path in paths if path is not None), None)
    if path is None:
        raise ModelError(f"adapter {name}: there is no {_WEIGHTS_FILES[0]}", "copy it again")
    weights = read_tensors(path)
    broken = [
        key
        for key, weight in weights.items()
        if not weight.is_floating_point() or not is_finite(weight)
    ]
    if broken:
        raise ModelError(
            f"adapter {name}: weights with NaN, infinities or no floats: {name_some(broken)}",
            "copy it again; if it was saved so, its training failed",
        )
    return AdapterFiles(name, location, hub, path.parent, fields, weights)
