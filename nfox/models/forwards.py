"""What a person demands of the forward that runs a model, before and after it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nfox.errors import ModelError, UsageError
from nfox.models.devices import choose_device
from nfox.models.native.library import NativeLibraryError, must_compile, native_library
from nfox.models.options import ModelOptions
from nfox.models.transformers_target import TransformersTarget

log = logging.getLogger(__name__)

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
    target.fuse(native=options.compile != "off")
    option = "--reproducible" if options.reproducible else "--compile on"
    if (options.reproducible or options.compile == "on") and not target.is_native:
        raise ModelError(
            f"{option}: {name} does not run by the native library: {target.why_not_native}",
            f"it runs models of Llama's kind: leave {option} out, or --dtype, if that is another",
        )


def _demanded_by(options: ModelOptions) -> str | None:
    """Return the option that cannot do without the native library on a CPU; None without one."""
    if options.weight_bits:
        return f"--quantize {options.weight_bits}"
    if options.reproducible:
        return "--reproducible"
    return "--compile on" if options.compile == "on" else None
