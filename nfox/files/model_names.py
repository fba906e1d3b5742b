"""What the name of a model means: a local folder or file, a known model, or a repository of the
Hugging Face hub; and what lies beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from nfox.demo import NAME, TARGET
from nfox.errors import ModelError, did_you_mean
from nfox.known_models import KNOWN, kept_at, shipped_for


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
    """Refuse a known model that was not fetched yet, a name that is nearly one, and a folder or a
    GGUF file that is not there, before they are taken for a hub id.

    Raises:
        ModelError: if it is one of these.
    """
    is_there = local_folder(name) is not None or is_local_file(name)
    if name in KNOWN and not is_there:
        raise ModelError(f"{name} is not on this machine yet", f"nfox get {name}")
    meant = "" if "/" in name else did_you_mean(name.lower(), [NAME, *KNOWN])
    if meant and not is_there and name not in kept_repositories():
        raise ModelError(f"{name}: no such folder, and no model is known by this name", meant)
    if name.lower().endswith(".gguf") and ":" not in name and not is_there:
        hint = "check the path; a file of the hub is org/name:file.gguf"
        raise ModelError(f"{name}: no such file", hint)
    is_path = name.startswith((".", "~", os.sep)) or name.endswith(os.sep)
    is_path = is_path or name.count("/") > 1 or "\\" in name
    if is_path and not is_there:
        raise ModelError(f"{name}: no such folder", "check the path")


def hint_at_model(name: str, otherwise: str) -> str:
    """Return what may be meant by the name of a model that is not there.

    Args:
        name: as it was given.
        otherwise: the hint where it is near to none that is known or in the cache.
    """
    return did_you_mean(name, [NAME, *KNOWN, *kept_repositories()], otherwise)


def beside(model: str) -> list[Path]:
    """Return the folders in which what belongs to a model is looked for, the first one first:
    `<its folder>/nfox`, and what comes with nfox for a known model.
    """
    home = home_of(model)
    own = home / "nfox" if home is not None else None
    return [place for place in (own, shipped_for(model, home)) if place is not None]


def weights_beside(model: str, name: str) -> str | None:
    """Return the folder `<model>/nfox/<name>`, that beside a file, or that which comes with nfox
    for a known model; None if there is none.
    """
    return next((str(place / name) for place in beside(model) if (place / name).is_dir()), None)


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
