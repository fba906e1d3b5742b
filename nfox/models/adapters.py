"""LoRAs that lie beside a model and go by a name: `<model>/nfox/adapters/<name>/`.

An adapter makes another target of a model. Every method runs on it, and its speed is compared with
its own plain decoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nfox.errors import ModelError
from nfox.models.options import ModelOptions

_CONFIG = "adapter_config.json"


def _adapters_folder(model: str) -> Path:
    return Path(model).expanduser() / "nfox" / "adapters"


def available(model: str) -> list[str]:
    """Return the names of the adapters that lie beside a model, given its folder or hub id."""
    return sorted(file.parent.name for file in _adapters_folder(model).glob(f"*/{_CONFIG}"))


def location(model: str, adapter: str) -> str:
    """Return the folder or hub id of an adapter.

    Args:
        model: folder or hub id of the base model.
        adapter: the name of an adapter that lies beside the model, a folder, or a hub id.

    Raises:
        ModelError: if there is no such adapter.
    """
    if adapter in available(model):
        return str(_adapters_folder(model) / adapter)
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        if not (folder / _CONFIG).is_file():
            raise ModelError(f"adapter {adapter}: there is no {_CONFIG} in this folder")
        return str(folder)
    if adapter.count("/") != 1 or adapter.startswith((".", "/", "~")):
        known = ", ".join(available(model))
        raise ModelError(
            f"adapter {adapter}: no such folder, and none of this name beside {model}",
            f"there is {known}" if known else "pass the folder of a LoRA, or its hub id",
        )
    return adapter


def apply(model: Any, base: str, options: ModelOptions) -> Any:
    """Return a model of transformers with the LoRA that the options name.

    The LoRA is merged into the weights: unmerged it costs two small products per layer and
    forward. On quantised weights it stays unmerged, because most of it would be rounded away.

    Args:
        model: the base model, which is changed.
        base: folder or hub id of the base model.
        options: the adapter, and how its files are fetched.

    Raises:
        ModelError: if there is no such adapter, or it cannot be merged.
    """
    from peft import PeftModel

    if any(weight.is_meta for weight in model.parameters()):
        raise ModelError(
            f"the adapter {options.adapter} cannot be merged: parts of {base} found no room in "
            "memory",
            "a higher --max-memory, or a merged model",
        )
    adapted = PeftModel.from_pretrained(
        model,
        location(base, str(options.adapter)),
        cache_dir=options.cache_dir,
        local_files_only=options.offline,
    )
    if getattr(model, "is_quantized", False):
        return adapted.get_base_model()
    return adapted.merge_and_unload()
