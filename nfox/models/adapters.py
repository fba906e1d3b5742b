"""LoRAs that lie beside a model and go by a name: `<model>/nfox/adapters/<name>/`.

An adapter makes another target of a model. Every method runs on it, and its speed is compared with
its own plain decoding.
"""

from __future__ import annotations

from pathlib import Path

from nfox.errors import ModelError

_CONFIG = "adapter_config.json"


def _beside(model: str) -> Path:
    return Path(model).expanduser() / "nfox" / "adapters"


def available(model: str) -> list[str]:
    """Return the names of the adapters that lie beside a model."""
    return sorted(file.parent.name for file in _beside(model).glob(f"*/{_CONFIG}"))


def location(model: str, adapter: str) -> str:
    """Return the folder or hub id of an adapter.

    Args:
        model: folder or hub id of its base.
        adapter: a name beside it, a folder, or a hub id.

    Raises:
        ModelError: if there is none.
    """
    if adapter in available(model):
        return str(_beside(model) / adapter)
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
