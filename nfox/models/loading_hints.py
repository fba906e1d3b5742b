"""What a person can do about a model that cannot be loaded, by what its loading raised."""

from __future__ import annotations

import re

from nfox.errors import ModelError
from nfox.files.model_names import is_local_file, local_folder
from nfox.files.reading import describe
from nfox.models.checkpoint_files import complaint
from nfox.models.options import ModelOptions

_PACKAGE = re.compile(r"pip install (?:(?:-U|--upgrade) )?[\w.\[\]>=<-]*\w\]?")

# Heads in the layout of vLLM have a config.json, of a type that is no model's.
_HEADS = "model type `medusa`"

# What the messages of transformers say, and what it means for the person. The first that fits.
_CAUSES = (
    (r"trust_remote_code", "--trust-remote-code runs the code that comes with it, if you trust it"),
    (
        r"does not recognize this architecture|should have a `?model_type",
        "copy the model's own config.json; for a new architecture: pip install -U transformers",
    ),
    (
        r"Unrecognized configuration class",
        "nfox runs causal and encoder-decoder language models",
    ),
    (r"flash_?attention", "install flash-attn, which needs a GPU, or choose another --attn"),
    (r"quant", "the quantization_config of config.json has to be that of the weights, or go"),
)


def loading_error(name: str, location: str, error: Exception, options: ModelOptions) -> ModelError:
    """Return the error that says in one line why a model cannot be loaded, and what to do.

    Args:
        name: the model, as the person wrote it.
        location: the folder or hub id that was loaded from.
        error: what transformers or a library under it raised.
        options: how the model was to be loaded.
    """
    text, folder = " ".join(str(error).split()), local_folder(location)
    if _HEADS in text:
        return ModelError(f"cannot load {name}: it is no model", f"these are heads: --heads {name}")
    if is_local_file(location):
        return ModelError(
            f"cannot load {name}: {describe(error)}",
            "what the file says of its model is not what it should be: download it again",
        )
    package = _PACKAGE.search(text)
    cause = next((hint for words, hint in _CAUSES if re.search(words, text, re.IGNORECASE)), None)
    if package or cause or folder is None:
        hint = package[0] if package else cause or _hub_hint(options)
        return ModelError(f"cannot load {name}: {describe(error)}", hint)
    if found := complaint(folder):
        return ModelError(f"cannot load {name}: {found}", "copy all files of the model again")
    return ModelError(
        f"cannot load {name}: {describe(error)}",
        "a value in config.json or a file of weights is not what it should be: copy both again",
    )


def _hub_hint(options: ModelOptions) -> str:
    if options.offline:
        return "it is not in the local cache: leave --offline out, or pass a folder"
    return "check the id and the network; a gated model needs `hf auth login`"
