"""A folder that weights are written to: it can be made, and holds no others, which would be lost
in part or taken for what they are not.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from nfox.drafters import method_class, methods_with_heads
from nfox.errors import ModelError, UsageError
from nfox.files.hub import HubOptions, read_json
from nfox.heads.checkpoint import TRAINING_FILE
from nfox.models.adapter_files import CONFIG_FILE
from nfox.models.training_folders import MODEL_CONFIG

_TRAINED = {"draft": "a draft model", "cllm": "a model for Jacobi decoding"}
"""What a training makes that is no heads, by the name after `nfox train`."""


def refuse_other_weights(option: str, folder: Path, name: str, own_config: object = None) -> None:
    """Refuse a folder with weights of another kind than those that are to be written.

    Args:
        option: the option that names the folder, for the error.
        folder: it may be absent.
        name: what is to be written: the name after `nfox train`.
        own_config: the config of a model that is to be written; a model with the same is no other.

    Raises:
        UsageError: if there are such weights.
    """
    found, words = _weights_in(folder)
    if not words or found == name:
        return
    if not found and own_config and read_json(folder / MODEL_CONFIG) == own_config:
        return
    raise UsageError(
        f"{option} {folder} holds {words}, which would be mixed with what is written now",
        f"another folder, such as {option} {folder}-{name}",
    )


def _weights_in(folder: Path) -> tuple[str, str]:
    """Return what lies in a folder: the name of its training, "" where that is not known, and what
    it is in words, "" for nothing. A file that cannot be read says nothing.
    """
    trained = _config(folder / TRAINING_FILE).get("method")
    if isinstance(trained, str):
        return trained, _TRAINED.get(trained, f"weights of {trained[:100]}")
    for name in methods_with_heads() if folder.is_dir() else ():
        with suppress(ModelError):
            if method_class(name).inspect(str(folder), HubOptions(offline=True)):
                return name, f"{name} heads"
    # A training that was cut while it wrote its model is gone on with.
    if _config(folder / MODEL_CONFIG).get("architectures") and not any(folder.glob("checkpoint-*")):
        return "", "a model"
    return "", "an adapter" if (folder / CONFIG_FILE).is_file() else ""


def _config(path: Path) -> dict[str, object]:
    with suppress(ModelError):
        return read_json(path) if path.is_file() else {}
    return {}


def check_output_folder(folder: Path, name: str) -> None:
    """Refuse an output folder that cannot be made, or holds what another training made.

    Args:
        folder: the value of --output_dir.
        name: what is trained: the name after `nfox train`.

    Raises:
        UsageError: if it cannot be used.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"--output_dir {folder}: {there} is no folder", "choose another name")
    refuse_other_weights("--output_dir", folder, name)
