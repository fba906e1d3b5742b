"""From `ModelOptions` to the arguments of transformers' `from_pretrained`."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from contextlib import ExitStack
from typing import Any

import torch
import transformers

from nfox.errors import ModelError, UsageError
from nfox.models.devices import choose_device, choose_dtype
from nfox.models.options import FormatError, ModelOptions
from nfox.models.torchao_arguments import torchao_arguments


def hub_arguments(options: ModelOptions) -> dict[str, Any]:
    """Return the arguments that say how the files of a model are fetched from the hub."""
    return {
        "revision": options.revision or "main",
        "cache_dir": options.cache_dir,
        "local_files_only": options.offline,
        "trust_remote_code": options.trust_remote_code,
    }


def weight_arguments(
    location: str, config: Any, options: ModelOptions, model_resources: ExitStack
) -> dict[str, Any]:
    """Return the arguments that say how the weights of a model are loaded, and onto which devices.

    Args:
        location: folder or hub id of the model.
        config: the model's config, as transformers reads it.
        options: how the model is loaded.
        model_resources: takes what must be removed once the model is no longer used: the folder
            of the weights that are moved to the disk.

    Raises:
        ModelError: if the model cannot be quantised.
        UsageError: if a device is named that is not there.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": None if options.attn == "auto" else options.attn,
        "weights_only": True,
        **hub_arguments(options),
    }
    if options.quantisation:
        _check_can_be_quantised(location, config, options)
    if options.weight_bits and device.type == "cpu":  # the native library quantises, layer by layer
        arguments["dtype"] = torch.bfloat16
        return arguments
    if options.weight_bits:
        arguments |= torchao_arguments(options.weight_bits)
    elif options.quantisation:
        arguments["quantization_config"] = _quantisation_config(options, dtype)
    if options.device_map:
        arguments |= _device_map_arguments(options, model_resources)
    elif options.quantisation or device.type != "cpu":
        arguments["device_map"] = {"": device}
    return arguments


def _check_can_be_quantised(location: str, config: Any, options: ModelOptions) -> None:
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        kind = stored.get("quant_method", "quantised") if isinstance(stored, dict) else stored
        raise FormatError(
            f"{location} is already quantised ({kind})",
            f"leave {_option(options)} out",
        )
    if options.weight_bits is None and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{_option(options)} needs bitsandbytes, which is not installed",
            "pip install bitsandbytes",
        )


def _option(options: ModelOptions) -> str:
    """Return the option of the command line that quantises."""
    bits = options.weight_bits
    return f"--quantize {bits}" if bits else f"--load-in-{options.quantisation}"


def _quantisation_config(
    options: ModelOptions, dtype: torch.dtype | str
) -> transformers.BitsAndBytesConfig:
    if options.quantisation == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype if dtype != "auto" else torch.bfloat16,
    )


def _device_map_arguments(options: ModelOptions, model_resources: ExitStack) -> dict[str, Any]:
    """Return the arguments by which a model is split over devices."""
    limits = {
        int(device) if device.isdigit() else device: size
        for device, size in options.max_memory.items()
    }
    gpus = torch.accelerator.device_count()
    absent = [device for device in limits if isinstance(device, int) and device >= gpus]
    if absent:
        raise UsageError(f"--max-memory limits GPU {absent[0]}; there are {gpus} GPUs here")
    # Weights stay in the checkpoint's own files, but for those whose layout there is another one.
    offload_folder = tempfile.mkdtemp(prefix="nfox-")
    model_resources.callback(shutil.rmtree, offload_folder, ignore_errors=True)
    return {
        "device_map": options.device_map,
        "max_memory": limits or None,
        "offload_folder": offload_folder,
    }
