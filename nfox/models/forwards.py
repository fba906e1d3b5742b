"""What a person demands of the forward that runs a model, before and after it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nfox.decoding.threads import one_thread
from nfox.errors import ModelError, UsageError
from nfox.models.devices import choose_device
from nfox.models.native.library import NativeLibraryError, must_compile, native_library
from nfox.models.options import ModelOptions
from nfox.models.packed_layers import packed_layers
from nfox.models.transformers_target import TransformersTarget

log = logging.getLogger(__name__)

_FEW_BYTES = 300e6  # of weights, which one thread reads in some hundredths of a second
_NATIVE = "the native library runs models of Llama's kind in bfloat16 on a CPU"


def check_before(options: ModelOptions) -> None:
    """Refuse what no model can be loaded for here, and say what is slower than it need be.

    Raises:
        ModelError: if the native library is asked for and cannot be had.
        UsageError: if it is asked for and left out at once.
    """
    on_cpu = choose_device(options.device).type == "cpu"
    if options.weight_bits and on_cpu and options.compile == "off":
        raise UsageError(
            "--quantize runs by the native library on a CPU, which --compile off leaves out",
            "choose one of the two",
        )
    if options.quantisation and options.weight_bits is None and on_cpu:
        bits = options.quantisation[0]
        log.warning(
            "--load-in-%sbit is slower than bfloat16 on a CPU; --quantize int%s is faster",
            bits,
            bits,
        )
    option = _demanded_by(options)
    if option is None or (options.weight_bits and not on_cpu and option.startswith("--quantize")):
        return
    if not on_cpu:
        raise ModelError(f"{option}: {_NATIVE}", f"--device cpu, or leave {option} out")
    try:
        native_library()
    except NativeLibraryError as error:
        raise ModelError(
            f"{option} needs the native library: {error}",
            f"install a C++ compiler such as g++, or leave {option} out",
        ) from error


def fuse(
    name: str, target: TransformersTarget, options: ModelOptions, stage: Callable[[str], None]
) -> None:
    """Run the forwards of a model as fast as the options allow, see `TransformersTarget.fuse`.

    Args:
        name: the model, as the person wrote it.
        target: the model.
        options: how it was loaded.
        stage: is called with a description of what takes seconds.

    Raises:
        ModelError: if it does not run by the native library, and the options demand that.
    """
    if options.compile != "off" and must_compile():
        stage("compiling for this processor, once")
    with sparing_threads(target.model, options):
        target.fuse(native=options.compile != "off")
    option = "--reproducible" if options.reproducible else "--compile on"
    if (options.reproducible or options.compile == "on") and not target.is_native:
        raise ModelError(
            f"{option}: {name} does not run by the native library: {target.why_not_native}",
            f"it runs models of Llama's kind: leave {option} out, or --dtype, if that is another",
        )


def sparing_threads(model: Any, options: ModelOptions) -> AbstractContextManager[None]:
    """Return a context for the few forwards that try a model: with one thread for a small one,
    whose forwards take no time so. All threads would wait for each other in each product, seconds
    in all where other programs run, and it is not yet known which number is faster.

    Args:
        model: of transformers.
        options: how it was loaded; a number of threads that was asked for stays.
    """
    packed = sum(layer.nbytes for layer in packed_layers(model))
    is_small = model.get_memory_footprint() + packed < _FEW_BYTES
    return one_thread() if is_small and options.threads is None else nullcontext()


def _demanded_by(options: ModelOptions) -> str | None:
    """Return the option that cannot do without the native library on a CPU; None without one."""
    if options.weight_bits:
        return f"--quantize {options.weight_bits}"
    if options.reproducible:
        return "--reproducible"
    return "--compile on" if options.compile == "on" else None
