"""Medusa heads as they were published: `config.json` and `medusa_lm_head.safetensors` or `.pt`, or
as vLLM has them. The names of the weights are those of `MedusaHeads` but for their beginning.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from nfox.errors import ModelError
from nfox.export import vllm
from nfox.export.formats import ParallelHeads
from nfox.files.atomic import read_tensors, write_tensors, write_text
from nfox.files.hub import HubOptions, file_of, json_of
from nfox.heads.checkpoint import HeadsInfo

_WEIGHTS, _OLD_WEIGHTS = "medusa_lm_head.safetensors", "medusa_lm_head.pt"
_BEGINNING = "medusa_head."


def weights_file(location: str, hub: HubOptions) -> Path | None:
    """Return the weights in a published layout; None if a folder or hub repository has none."""
    of_vllm = vllm.is_heads_config(json_of(location, "config.json", hub))
    names = [vllm.WEIGHTS_FILE] if of_vllm else [_WEIGHTS, _OLD_WEIGHTS]
    paths = (file_of(location, name, hub) for name in names)
    return next((path for path in paths if path is not None), None)


def read(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file by the names that `MedusaHeads` gives them."""
    weights = read_tensors(path)
    if path.name == vllm.WEIGHTS_FILE:
        weights = vllm.published_names(weights)
    return {f"heads.{name.removeprefix(_BEGINNING)}": w for name, w in weights.items()}


def inspect(location: str, hub: HubOptions, method: str) -> HeadsInfo | None:
    """Return what is said of the heads in a folder or hub repository; None if there are none in a
    published layout.

    Args:
        location: the folder or repository.
        hub: how the hub is asked.
        method: the name of the method that drafts with such heads.

    Raises:
        ModelError: if the weights are not those of Medusa heads.
    """
    config, path = json_of(location, "config.json", hub), weights_file(location, hub)
    if path is None or not ("medusa_num_heads" in config or vllm.is_heads_config(config)):
        return None
    base = str(config.get("base_model_name_or_path") or location)
    return HeadsInfo(method=method, base=base, config=_sizes(read(path), location))


def write(heads: ParallelHeads, folder: Path) -> list[str]:
    """Write heads in the layout of Medusa's repository, each with a vocabulary matrix.

    Returns:
        The names of the files.
    """
    tensors: dict[str, Tensor] = {}
    for k, blocks in enumerate(heads.blocks):
        for layer, (weight, bias) in enumerate(blocks):
            name = f"{k}.{layer}.linear"
            tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
        matrix = heads.matrices[k % len(heads.matrices)]
        tensors[f"{k}.{len(blocks)}.weight"] = matrix.clone()
    vocabulary_size, hidden_size = heads.matrices[0].shape
    config = {
        "base_model_name_or_path": heads.base,
        "medusa_num_heads": len(heads.blocks),
        "medusa_num_layers": len(heads.blocks[0]),
        "hidden_size": hidden_size,
        "vocab_size": vocabulary_size,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / _WEIGHTS, tensors)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    return ["config.json", _WEIGHTS]


def _sizes(weights: dict[str, Tensor], location: str) -> dict[str, int | bool]:
    """Return the config of published heads as their weights have it: published configs disagree
    with these (2 heads said, 5 stored).

    Args:
        weights: by name, `heads.<head>.<layer>...`.
        location: where they were read, for the error.

    Raises:
        ModelError: if these are not the weights of Medusa heads.
    """
    indices = {tuple(name.split(".")[1:3]) for name in weights}  # of head and layer
    blocks = [w for name, w in weights.items() if name.endswith(".linear.weight") and w.dim() == 2]
    matrices = [
        w
        for name, w in weights.items()
        if name.count(".") == 3 and name.endswith(".weight") and w.dim() == 2
    ]
    if not blocks or any(
        not (len(i) == 2 and _is_index(i[0]) and _is_index(i[1])) for i in indices
    ):
        raise ModelError(f"{location}: the weights are not those of Medusa heads")
    num_heads = 1 + max(int(head) for head, _ in indices)
    return {
        "hidden_size": blocks[0].shape[0],
        "num_heads": num_heads,
        "num_layers": len(blocks) // num_heads,
        "own_vocabulary": bool(matrices),
        "vocab_size": matrices[0].shape[0] if matrices else 0,
    }


def _is_index(text: str) -> bool:
    """Return whether a part of a weight's name is the number of a head or of a layer."""
    return text.isdecimal() and text.isascii() and len(text) < 10
