"""From a name to a model in memory: dtype, quantisation, devices, adapters; and what can go wrong.

transformers, bitsandbytes and peft do the work. Every failure becomes one line that says what to
do.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from nfox.errors import ModelError, NfoxError, UsageError
from nfox.files.progress import Progress, quiet, reported
from nfox.models import adapters
from nfox.models.devices import choose_device, choose_dtype
from nfox.models.options import LoadedModel, ModelOptions
from nfox.models.transformers_target import TransformersTarget


def load_model(
    name: str,
    options: ModelOptions | None = None,
    on_progress: Progress = lambda what, done, total: None,
) -> LoadedModel:
    """Load a causal or encoder-decoder language model and its tokenizer.

    Args:
        name: a local folder or a hub id.
        options: how.
        on_progress: told how far the download and the loading of weights are.

    Raises:
        ModelError: if it is not there, or cannot be loaded as asked.
    """
    options = options or ModelOptions()
    quiet()
    folder = _existing(name)
    try:
        config = AutoConfig.from_pretrained(folder, **_hub(options))
        model = _load(folder, config, options, on_progress)
    except NfoxError:
        raise
    except torch.OutOfMemoryError as error:
        raise NfoxError(f"{name}: out of memory: {_line(error)}", _SMALLER) from error
    except _FAILURES as error:
        raise ModelError(f"cannot load {name}: {_line(error)}", _hint(name, options)) from error
    tokenizer = _load_tokenizer(folder, options)
    return LoadedModel(name, TransformersTarget(model.eval()), tokenizer, options.adapter)


# What transformers and the libraries under it raise on files that are not what they should be.
_FAILURES = (
    OSError,
    EOFError,
    ValueError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    SafetensorError,
)
_SMALLER = "try --load-in-4bit, a smaller --max-context, or a smaller model"


def _existing(name: str) -> str:
    """Return what transformers should load; a folder must be one."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{name}: there is no config.json in this folder",
                "pass a folder written by save_pretrained, or a hub id like Qwen/Qwen3-0.6B",
            )
        return str(path)
    if path.exists():
        raise ModelError(f"{name}: expected a folder, found a file", "pass the folder it lies in")
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"{name}: no such folder", "check the path")
    return name


def _hub(options: ModelOptions) -> dict[str, Any]:
    return {
        "revision": options.revision or "main",
        "cache_dir": options.cache_dir,
        "local_files_only": options.offline,
        "trust_remote_code": options.trust_remote_code,
    }


def _load(folder: str, config: Any, options: ModelOptions, on_progress: Progress) -> Any:
    """Load weights, move them, add the adapter."""
    device = choose_device(options.device)
    arguments: dict[str, Any] = {
        "dtype": choose_dtype(options.dtype, device),
        "attn_implementation": None if options.attn == "auto" else options.attn,
        "weights_only": True,
        **_hub(options),
    }
    if options.quantisation:
        arguments["quantization_config"] = _quantisation(folder, config, options, arguments)
    if not options.device_map and (options.quantisation or device.type != "cpu"):
        arguments["device_map"] = {"": device}
    encodes = bool(config.is_encoder_decoder)
    loader = AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM
    with reported(on_progress) as bars, ExitStack() as beside:
        if options.device_map:
            arguments |= _split(options, beside)
        model = loader.from_pretrained(folder, tqdm_class=bars, **arguments)
        weakref.finalize(model, beside.pop_all().close)
    return _adapted(model, folder, options) if options.adapter else model


def _split(options: ModelOptions, beside: ExitStack) -> dict[str, Any]:
    """Return what transformers splits a model by.

    Args:
        options: say how.
        beside: gets what is to be done away with when the model is.
    """
    limits = {int(k) if k.isdigit() else k: v for k, v in options.max_memory.items()}
    there = torch.accelerator.device_count()
    absent = [k for k in limits if isinstance(k, int) and k >= there]
    if absent:
        raise UsageError(f"--max-memory limits GPU {absent[0]}; there are {there} GPUs here")
    # Weights stay in the checkpoint's own files, but for those in another layout than there.
    rest = tempfile.mkdtemp(prefix="nfox-")
    beside.callback(shutil.rmtree, rest, ignore_errors=True)
    limited = limits or None
    return {"device_map": options.device_map, "max_memory": limited, "offload_folder": rest}


def _quantisation(
    folder: str, config: Any, options: ModelOptions, arguments: dict[str, Any]
) -> transformers.BitsAndBytesConfig:
    already = getattr(config, "quantization_config", None)
    if already is not None:
        kind = already.get("quant_method", "quantised") if isinstance(already, dict) else already
        raise ModelError(
            f"{folder} is already quantised ({kind})",
            f"leave --load-in-{options.quantisation} out",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"--load-in-{options.quantisation} needs bitsandbytes, which is not installed",
            "pip install bitsandbytes",
        )
    compute = arguments["dtype"] if arguments["dtype"] != "auto" else torch.bfloat16
    if options.quantisation == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
    )


def _adapted(model: Any, folder: str, options: ModelOptions) -> Any:
    """Merge a LoRA into the weights: left unmerged it costs two small products a layer and step.

    It is left so on quantised weights, where most of it would be rounded away.
    """
    from peft import PeftModel

    if any(weight.is_meta for weight in model.parameters()):
        raise ModelError(
            f"the adapter {options.adapter} cannot be merged: parts of {folder} found no room in "
            "memory",
            "a higher --max-memory, or a merged model",
        )
    name = adapters.location(folder, str(options.adapter))
    adapted = PeftModel.from_pretrained(
        model, name, cache_dir=options.cache_dir, local_files_only=options.offline
    )
    if getattr(model, "is_quantized", False):
        return adapted.get_base_model()
    return adapted.merge_and_unload()


def _load_tokenizer(folder: str, options: ModelOptions) -> Any:
    """Load the tokenizer; a folder without one gives None."""
    path = Path(folder)
    if path.is_dir() and not any(path.glob("*token*")) and not any(path.glob("*vocab*")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, **_hub(options))
    except _FAILURES as error:
        raise ModelError(f"cannot load the tokenizer of {folder}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """Return the first line of an error, at most 200 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _hint(name: str, options: ModelOptions) -> str:
    if Path(name).is_dir():
        return "check that the folder holds a whole checkpoint"
    if options.offline:
        return "it is not in the local cache: leave --offline out, or pass a folder"
    return "check the id and the network; a gated model needs `hf auth login`"
