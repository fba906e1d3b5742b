"""vLLM: what `--speculative-config` reads.

Draft models as vLLM 0.33.0 checks them (`config/speculative.py`). Medusa heads as 0.32.0 reads them
(`transformers_utils/configs/medusa.py`, `model_executor/models/medusa.py`); 0.33.0 has none.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from nfox.errors import UsageError
from nfox.export.formats import DraftModel, ExportFormat, ParallelHeads, Written, tokens
from nfox.files.atomic import copy, write_tensors, write_text

# A path with one of these in it is taken for another method, whatever the method that was named.
_TELLING = ("eagle-", "eagle3", "dflash", "dspark")


def write_heads(heads: ParallelHeads, folder: Path) -> Written:
    """Write `config.json` and `model.safetensors`; a matrix that all heads end in is there once."""
    command = _command(heads.base, heads.name, folder, len(heads.blocks))
    words, size = heads.matrices[0].shape
    config = {
        "architectures": ["MedusaModel"],
        "model_type": heads.name,
        "hidden_size": size,
        "vocab_size": words,
        "truncated_vocab_size": words,  # less needs a token_map
        "num_heads": len(heads.blocks),
        "num_hidden_layers": len(heads.blocks[0]),
        "medusa_fc_bias": True,  # without it the biases are left out silently
        "original_lm_head": len(heads.matrices) == 1,
        "logit_scale": 1.0,  # only the likeliest token is drafted, which no scale changes
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", dict(_named(heads)))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    lines = [command, "for vLLM up to 0.32 (pip install 'vllm<0.33'): 0.33 dropped Medusa heads"]
    return Written(["config.json", "model.safetensors"], lines)


def write_draft(draft: DraftModel, folder: Path) -> Written:
    """Copy the model's files.

    Raises:
        UsageError: if vLLM would refuse it.
    """
    command = _command(draft.base, "draft_model", folder, draft.gamma)
    if draft.config.get("is_encoder_decoder"):
        raise UsageError("vLLM takes decoder-only draft models, this is an encoder-decoder")
    ours, theirs = tokens(draft.config), tokens(draft.base_config)
    if None not in (ours, theirs) and ours != theirs:
        raise UsageError(
            f"the draft model has {ours} tokens, {draft.base} has {theirs}: vLLM wants as many",
            "train one with --hidden, which has the base's tokens: nfox train draft",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in draft.files.items():
        copy(path, folder / name)
    missing = f"the config of {draft.base} is not here: vLLM checks that both have as many tokens"
    return Written(list(draft.files), [command] if theirs else [command, missing])


def _named(heads: ParallelHeads) -> Iterator[tuple[str, Tensor]]:
    for k, blocks in enumerate(heads.blocks):
        for layer, (weight, bias) in enumerate(blocks):
            yield f"blocks.{k}.layers.{layer}.weight", weight
            yield f"blocks.{k}.layers.{layer}.bias", bias
    if len(heads.matrices) == 1:
        yield "lm_head.weight", heads.matrices[0]
    else:
        yield from ((f"lm_heads.{k}.weight", matrix) for k, matrix in enumerate(heads.matrices))


def _command(base: str, method: str, folder: Path, gamma: int) -> str:
    """Return how the server is started.

    Raises:
        UsageError: if the folder's name would mislead it.
    """
    telling = next((part for part in _TELLING if part in str(folder).lower()), None)
    if telling:
        raise UsageError(
            f"vLLM takes a path with {telling!r} in it for another method: {folder}",
            "choose another --out",
        )
    what: dict[str, Any] = {
        "method": method,
        "model": str(folder),
        "num_speculative_tokens": gamma,
    }
    return shlex.join(["vllm", "serve", base, "--speculative-config", json.dumps(what)])


FORMAT = ExportFormat(
    {ParallelHeads: write_heads, DraftModel: write_draft},
    "vLLM reads Medusa heads and draft models: nfox train medusa, nfox train draft",
)
