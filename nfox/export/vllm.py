"""vLLM: what `--speculative-config` reads.

Draft models as vLLM 0.33.0 checks them (`config/speculative.py`). Medusa heads as 0.32.0 reads them
(`transformers_utils/configs/medusa.py`, `model_executor/models/medusa.py`); 0.33.0 has none.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nfox.errors import UsageError
from nfox.export.formats import (
    DraftModel,
    ExportedFiles,
    ExportFormat,
    ParallelHeads,
    vocabulary_size,
)
from nfox.files.atomic import copy, write_tensors, write_text

_ARCHITECTURES = ["MedusaModel"]
WEIGHTS_FILE = "model.safetensors"
# A path with one of these in it is taken for another method, whatever the method that was named.
_RESERVED = ("eagle-", "eagle3", "dflash", "dspark")


def write_heads(heads: ParallelHeads, folder: Path) -> ExportedFiles:
    """Write `config.json` and `model.safetensors` for vLLM's Medusa; a matrix that all heads end in
    is written once.

    Raises:
        UsageError: if vLLM would misread the folder's name.
    """
    command = _start_command(heads.base, heads.name, folder, len(heads.blocks))
    vocab_size, hidden_size = heads.matrices[0].shape
    config = {
        "architectures": _ARCHITECTURES,
        "model_type": heads.name,
        "hidden_size": hidden_size,
        "vocab_size": vocab_size,
        "truncated_vocab_size": vocab_size,  # less needs a token_map
        "num_heads": len(heads.blocks),
        "num_hidden_layers": len(heads.blocks[0]),
        "medusa_fc_bias": True,  # without it the biases are left out silently
        "original_lm_head": len(heads.matrices) == 1,
        "logit_scale": 1.0,  # only the likeliest token is drafted, which no scale changes
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", dict(_named_weights(heads)))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    note = "for vLLM up to 0.32 (pip install 'vllm<0.33'): 0.33 dropped Medusa heads"
    return ExportedFiles(["config.json", "model.safetensors"], [command, note])


def write_draft(draft: DraftModel, folder: Path) -> ExportedFiles:
    """Copy a draft model's files into a folder.

    Raises:
        UsageError: if vLLM would refuse the model, or misread the folder's name.
    """
    command = _start_command(draft.base, "draft_model", folder, draft.gamma)
    if draft.config.get("is_encoder_decoder"):
        raise UsageError("vLLM takes decoder-only draft models, this is an encoder-decoder")
    size, base_size = vocabulary_size(draft.config), vocabulary_size(draft.base_config)
    if None not in (size, base_size) and size != base_size:
        raise UsageError(
            f"the draft model has {size} tokens, {draft.base} has {base_size}: vLLM wants as many",
            "train one with --hidden, which has the base's tokens: nfox train draft",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in draft.files.items():
        copy(path, folder / name)
    note = f"the config of {draft.base} is not here: vLLM checks that both have as many tokens"
    return ExportedFiles(list(draft.files), [command] if base_size else [command, note])


def _named_weights(heads: ParallelHeads) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of heads with the names that vLLM reads them by."""
    for k, blocks in enumerate(heads.blocks):
        for layer, (weight, bias) in enumerate(blocks):
            yield f"blocks.{k}.layers.{layer}.weight", weight
            yield f"blocks.{k}.layers.{layer}.bias", bias
    if len(heads.matrices) == 1:
        yield "lm_head.weight", heads.matrices[0]
    else:
        yield from ((f"lm_heads.{k}.weight", matrix) for k, matrix in enumerate(heads.matrices))


def is_heads_config(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is that of heads in this layout."""
    return config.get("architectures") == _ARCHITECTURES


def published_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of heads in this layout by the names that Medusa's have. A matrix that all
    end in is the base's.
    """
    depth = 1 + max((int(name.split(".")[3]) for name in weights if ".layers." in name), default=-1)
    renamed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        kind, head, *rest = name.split(".")
        if kind == "blocks":
            renamed[f"{head}.{rest[1]}.linear.{rest[2]}"] = weight
        elif kind == "lm_heads":
            renamed[f"{head}.{depth}.weight"] = weight
    return renamed


def _start_command(base: str, method: str, folder: Path, gamma: int) -> str:
    """Return the command that starts vLLM's server with what was written.

    Args:
        base: the name of the target.
        method: vLLM's name of the method.
        folder: where the files are.
        gamma: the tokens to draft in every step.

    Raises:
        UsageError: if vLLM would misread the folder's name.
    """
    reserved = next((part for part in _RESERVED if part in str(folder).lower()), None)
    if reserved:
        raise UsageError(
            f"vLLM takes a path with {reserved!r} in it for another method: {folder}",
            "choose another --out",
        )
    config: dict[str, Any] = {
        "method": method,
        "model": str(folder),
        "num_speculative_tokens": gamma,
    }
    return shlex.join(["vllm", "serve", base, "--speculative-config", json.dumps(config)])


FORMAT = ExportFormat(
    {ParallelHeads: write_heads, DraftModel: write_draft},
    "vLLM reads Medusa heads and draft models: nfox train medusa, nfox train draft",
)
