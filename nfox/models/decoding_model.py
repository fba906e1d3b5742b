"""Load a model to decode with, in the dtype and with the forward that are fast on this machine."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace

from nfox.models.devices import choose_device, cpu_computes_bfloat16
from nfox.models.forwards import fuse
from nfox.models.gguf_files import is_on_hub, local_gguf, read_model_header
from nfox.models.gguf_packed import packed_formats
from nfox.models.loading import load_model
from nfox.models.memory import check_memory, config_of_model
from nfox.models.native.library import NativeLibraryError, must_compile, native_library
from nfox.models.options import FormatError, LoadedModel, LoadProgress, ModelOptions, Quantisation

log = logging.getLogger(__name__)


def decoding_options(
    name: str, options: ModelOptions, stage: Callable[[str], None] = lambda stage: None
) -> ModelOptions:
    """Return options with the form of weights that is fast, where they leave it open.

    On a CPU without bfloat16 arithmetic the native library is still faster in bfloat16 than torch
    is in float32, as it reads half as many bytes; torch itself is slow in bfloat16 there. What a
    GGUF file has packed is read faster still as it is. What only drafts needs no exact weights,
    since the target judges: it has 8 bits.

    Args:
        name: a local folder, a hub id, or a GGUF file.
        options: how the model is to be loaded.
        stage: is called with a description of what takes seconds.
    """
    leaves_it_open = options.dtype == "auto" and options.quantisation is None
    if not leaves_it_open or not options.tries_native:
        return options
    keeps_packed = options.adapter is None and _may_be_packed(name)
    if cpu_computes_bfloat16() and not (keeps_packed or options.drafts):
        return options
    is_quantised = "quantization_config" in config_of_model(name)
    if is_quantised or choose_device(options.device).type != "cpu":
        return options
    if must_compile():
        stage("compiling for this processor, once")
    try:
        native_library()
    except NativeLibraryError:
        return options
    bits: Quantisation | None = "int8" if options.drafts and not keeps_packed else None
    return replace(options, dtype="bfloat16", keeps_packed=keeps_packed, quantisation=bits)


def _may_be_packed(name: str) -> bool:
    """Return whether a model may be a GGUF file with quantised weights, as all of the hub are until
    they are here.
    """
    path = local_gguf(name)
    return bool(packed_formats(read_model_header(path))) if path else is_on_hub(name)


def load_to_decode(name: str, options: ModelOptions, progress: LoadProgress) -> LoadedModel:
    """Load a model and its tokenizer, and make its forwards fast (`nfox.models.forwards.fuse`).

    A model that cannot have the form that `decoding_options` chose, or that the native library does
    not run then, is loaded again in another one, at last as the options say.

    Args:
        name: a local folder, a hub id, or a GGUF file.
        options: how the model is loaded.
        progress: is told how far that is.

    Raises:
        ModelError: if the model cannot be loaded, or not as the options say.
        NfoxError: if the memory is too small for it.
    """
    fast = decoding_options(name, options, progress.stage)
    if fast is options:
        return _load(name, options, progress)
    try:
        loaded = _load(name, fast, progress)
    except FormatError as error:  # a draft model that cannot have 8 bits
        log.debug("%s is loaded again: %s", name, error.message)
        fast = replace(fast, quantisation=None)
        loaded = _load(name, fast, progress)
    if loaded.target.is_native:
        return loaded
    log.debug("%s is loaded again: %s", name, loaded.target.why_not_native)
    del loaded
    gc.collect()  # a target and its model refer to each other, and both may not fit into memory
    check_memory([(name, options)], 0)
    progress.stage("loading it in another form, in which it is faster")
    return _load(name, options, progress)


def _load(name: str, options: ModelOptions, progress: LoadProgress) -> LoadedModel:
    loaded = load_model(name, options, progress.amount)
    fuse(name, loaded.target, options, progress.stage)
    return loaded
