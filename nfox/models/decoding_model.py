"""Load a model to decode with, in the dtype and with the forward that are fast on this machine."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from nfox.models.devices import cpu_computes_bfloat16
from nfox.models.forwards import fuse
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel, LoadProgress, ModelOptions

log = logging.getLogger(__name__)


def load_to_decode(name: str, options: ModelOptions, progress: LoadProgress) -> LoadedModel:
    """Load a model and its tokenizer, and make its forwards fast (`nfox.models.forwards.fuse`).

    A model that was loaded in bfloat16 for the native library, which then does not run it, is
    loaded again in float32 where torch is slow in bfloat16.

    Args:
        name: a local folder, a hub id, or a GGUF file.
        options: how the model is loaded.
        progress: is told how far that is.

    Raises:
        ModelError: if the model cannot be loaded, or not as the options say.
        NfoxError: if the memory is too small for it.
    """
    loaded = _load(name, options, progress)
    if not _is_slow(loaded, options):
        return loaded
    log.debug("%s again in float32: %s", name, loaded.target.why_not_native)
    del loaded  # first, as both may not fit into memory
    progress.stage("loading it in float32, in which it is faster")
    return _load(name, replace(options, dtype="float32"), progress)


def _load(name: str, options: ModelOptions, progress: LoadProgress) -> LoadedModel:
    loaded = load_model(name, options, progress.amount)
    fuse(name, loaded.target, options, progress.stage)
    return loaded


def _is_slow(loaded: LoadedModel, options: ModelOptions) -> bool:
    """Whether a model computes in bfloat16, though nobody asked for it, on a CPU that cannot."""
    target = loaded.target
    if options.dtype != "auto" or options.weight_bits or target.is_native:
        return False
    in_bfloat16 = target.device.type == "cpu" and target.dtype == torch.bfloat16
    return in_bfloat16 and not cpu_computes_bfloat16()
