"""What a training leaves in its output folder beside heads: a whole base, or an adapter.

Such a folder goes by its name: nobody has to know what is in which part of it.
"""

from __future__ import annotations

from pathlib import Path

from nfox.errors import ModelError
from nfox.files.model_names import is_local_file, local_folder
from nfox.files.reading import refusing
from nfox.models.adapter_files import CONFIG_FILE
from nfox.models.gguf_files import SUFFIX as GGUF_SUFFIX

ADAPTER_FOLDER, BASE_FOLDER = "adapter", "base"
"""The folders in the output folder: of the adapter in peft's layout, of a wholly trained base."""
MODEL_CONFIG = "config.json"


HEADS_INFO = "drafter.json"
_TRAINER_STATE = "trainer_state.json"


def option_for(location: str) -> str:
    """Return a hint with the option that takes what lies in a folder; "" where nothing is known
    of it.
    """
    if is_local_file(location):
        if location.endswith(GGUF_SUFFIX):
            return f"this is a model: --model {location}, or --draft-model {location}"
        return "a folder is expected here, and this is a file"
    folder = local_folder(location)
    if folder is None:
        return ""
    kinds = {
        HEADS_INFO: f"these are heads: --heads {folder}",
        CONFIG_FILE: f"this is an adapter: --adapter {folder}",
        _TRAINER_STATE: "this is a checkpoint, from which its training goes on; what the training "
        f"made is in {folder.parent}",
        MODEL_CONFIG: f"this is a model: --model {folder}, or --draft-model {folder}",
        f"*{GGUF_SUFFIX}": f"this is a model: --model {folder}, or --draft-model {folder}",
    }
    return next((hint for pattern, hint in kinds.items() if any(folder.glob(pattern))), "")


def describe_folder(location: str) -> str:
    """Return what lies in a folder of which `option_for` knows nothing, instead of heads."""
    folder = local_folder(location)
    if folder is None:
        return "heads are what `nfox train` wrote, or published ones"
    with refusing(location, error_type=ModelError):
        names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "the folder is empty"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"neither heads nor a model nor an adapter: in it are {', '.join(names[:_NAMED])}{more}"


_NAMED = 3  # files of a folder, where it is said what is in it


def base_in(location: str) -> Path | None:
    """Return the wholly trained base in the output folder of a training; None if it has none, or
    is a model itself.
    """
    folder = local_folder(location)
    if folder is None:
        return None
    base = folder / BASE_FOLDER
    is_whole = (base / MODEL_CONFIG).is_file() and not (folder / MODEL_CONFIG).is_file()
    return base if is_whole else None


def adapter_in(location: str) -> Path | None:
    """Return the adapter that a folder is, or that a training left in it; None if there is none, or
    the folder is a whole model, beside which adapters are chosen by name.
    """
    folder = local_folder(location)
    if folder is None or (folder / MODEL_CONFIG).is_file():
        return None
    places = (folder, folder / ADAPTER_FOLDER)
    return next((place for place in places if (place / CONFIG_FILE).is_file()), None)
