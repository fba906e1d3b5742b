"""The files of a checkpoint in a folder: what of them cannot be loaded as it is, and why.

transformers builds a model of whatever size its config asks for before it looks at the weights, and
names neither the file nor the cause where something is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nfox.errors import ModelError
from nfox.files.hub import read_json

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_ADAPTER = "adapter_config.json"
_LFS = b"version https://git-lfs"
_BITSANDBYTES = re.compile(r"\.(SCB|absmax|quant_map|weight_format|quant_state\.\S+)$")

_WIDTHS = ("hidden_size", "d_model", "n_embd")
_ROWS = (
    *("vocab_size", "intermediate_size", "ffn_dim", "d_ff", "n_inner", "n_positions"),
    *("encoder_ffn_dim", "decoder_ffn_dim", "num_attention_heads", "head_dim"),
    "num_key_value_heads",
)
_COUNTS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    *("decoder_layers", "num_decoder_layers"),
)
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""By which a config may say how long a context is."""
# What nfox reads of any config. transformers checks the fields of the architecture only.
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("sliding_window", *CONTEXT_NAMES), int),
    "layer_types": list,
    "quantization_config": dict,
    **dict.fromkeys(("logit_scale", "logits_scaling", "final_logit_softcapping"), (int, float)),
    **dict.fromkeys(("embedding_multiplier", "num_nextn_predict_layers"), (int, float)),
}
_LEAST_LAYER = 256  # bytes that a layer takes in a file at least
_MOST_PER_BYTE = 4  # numbers, of weights that are quantised to 4 bits or fewer


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads the weights of a folder from, missing ones as well.

    Raises:
        ModelError: if the index of the files cannot be read.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
                raise ModelError(
                    f"{index}: weight_map must give the file of each tensor", "copy the file again"
                )
            return [folder / place for place in sorted(set(places.values()))]
    return []


def check_files(name: str, folder: Path) -> None:
    """Refuse a folder whose configs cannot be read or ask for sizes that its weights cannot have.

    Args:
        name: the model, as the person wrote it.
        folder: where it lies.

    Raises:
        ModelError: if the folder is none of a model that can be built.
    """
    config = read_json(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        read_json(folder / "generation_config.json")
    files = weight_files(folder)
    if found := next(filter(None, map(_absence, files)), ""):
        raise ModelError(f"{name}: {found}", "copy all files of the model again")
    for part in _parts(config):
        for key in part.keys() & _TYPES.keys():
            value = part[key]
            if value and (value is True or not isinstance(value, _TYPES[key])):
                raise ModelError(
                    f"{name}: config.json gives {key} as {str(value)[:40]!r}",
                    "copy the model's own config.json",
                )
    if (folder / _ADAPTER).is_file():
        raise _adapter_error(name, folder, is_model=bool(files))
    if files:
        check_sizes(name, config, sum(file.stat().st_size for file in files), "config.json")


def check_sizes(name: str, config: dict[str, Any], stored: int, source: str) -> None:
    """Refuse a config that asks for sizes which the weights cannot have.

    Args:
        name: the model, as the person wrote it.
        config: its fields.
        stored: the bytes of all weights.
        source: where the config stands.

    Raises:
        ModelError: with the largest of the sizes.
    """
    if beyond := [size for size in _sizes(config, stored) if size[1] > size[2]]:
        told = max(beyond, key=lambda size: size[1])[0]
        raise ModelError(
            f"{name}: {source} asks for {told}, and the weights have "
            f"{stored / 2**20:,.1f} MiB in all",
            f"{source} is not that of these weights: copy both from one model",
        )


def _absence(file: Path) -> str:
    """Return in what way a file of weights is not there; "" if it is."""
    if not file.is_file():
        return f"there is no {file.name}"
    with file.open("rb") as opened:
        begin = opened.read(len(_LFS))
    if begin == _LFS:
        return f"{file.name} is a pointer of git-lfs and not the file itself"
    return "" if begin else f"{file.name} is empty"


def _adapter_error(name: str, folder: Path, *, is_model: bool) -> ModelError:
    if is_model:
        return ModelError(
            f"{name}: a model and an adapter lie in one folder, and whether the weights hold the "
            "adapter already cannot be told",
            f"move {_ADAPTER} and adapter_model.* into a folder of their own; --adapter adds them",
        )
    base = read_json(folder / _ADAPTER).get("base_model_name_or_path") or "its base model"
    return ModelError(f"{name} is an adapter, not a model", f"--model {base} --adapter {name}")


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a config and the configs in it: those of the parts of a model that has several."""
    return [config, *(part for part in config.values() if isinstance(part, dict))]


def _sizes(config: dict[str, Any], stored: int) -> Iterator[tuple[str, int, int]]:
    """Yield what each size in a config says, its value, and the most that it can be.

    Args:
        config: as read from the file.
        stored: the bytes of all weights.
    """
    for part in _parts(config):
        sizes = {key: value for key, value in part.items() if type(value) is int}
        widths = [(sizes[key], f" with {key}={sizes[key]}") for key in _WIDTHS if key in sizes]
        width, told = max([(1, ""), *widths])
        for key in sizes.keys() & {*_ROWS}:
            yield f"{key}={sizes[key]}{told}", sizes[key], _MOST_PER_BYTE * stored // width
        for key in sizes.keys() & {*_COUNTS}:
            yield f"{key}={sizes[key]}", sizes[key], stored // _LEAST_LAYER


def complaint(folder: Path) -> str:
    """Return what is wrong with the files of weights that could not be loaded; "" if that is not
    known.
    """
    files = weight_files(folder)
    if not files:
        return f"there is no {' or '.join(_WEIGHTS)} in the folder"
    for file in files:
        if file.suffix == ".safetensors":
            try:
                safe_open(file, framework="pt").keys()  # type: ignore[no-untyped-call]
            except SafetensorError as error:
                return f"{file.name} is not whole ({error})"
    return ""


def is_left_over(quantisation: Any, folder: Path) -> bool:
    """Return whether a config says that weights are quantised by bitsandbytes which are not: the
    adapter of a quantised model was merged into the weights of the model itself.

    Args:
        quantisation: the config's `quantization_config`.
        folder: of the model.
    """
    if not isinstance(quantisation, dict) or quantisation.get("quant_method") != "bitsandbytes":
        return False
    files = weight_files(folder) if folder.is_dir() else []
    if not files or any(file.suffix != ".safetensors" for file in files):
        return False
    keys: list[str] = []
    for file in files:
        keys += safe_open(file, framework="pt").keys()  # type: ignore[no-untyped-call]
    return not any(_BITSANDBYTES.search(key) for key in keys)
