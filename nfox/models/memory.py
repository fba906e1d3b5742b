"""Whether a model fits into memory, estimated before it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil
import torch

from nfox.errors import NfoxError
from nfox.files.gguf_header import GgufHeader
from nfox.files.hub import HubOptions, json_of, read_json
from nfox.files.model_names import check_hub_id, local_folder
from nfox.models.checkpoint_files import CONTEXT_NAMES, check_files
from nfox.models.devices import choose_device, choose_dtype
from nfox.models.fused_products import PackedProduct
from nfox.models.gguf_config import config_of
from nfox.models.gguf_files import local_gguf, read_model_header
from nfox.models.gguf_model import gguf_dtype
from nfox.models.gguf_packed import EMBEDDINGS, packed_bytes, packed_formats
from nfox.models.options import ModelOptions

# Per weight, with scales and what stays in 16 bit.
_QUANTISED_BYTES = {"4bit": 0.6, "8bit": 1.1, "int4": 0.8, "int8": 1.2}


def weight_bytes(name: str, options: ModelOptions) -> int:
    """Return an estimate of the bytes that the weights of a model take once loaded.

    Args:
        name: the folder of the model, or its GGUF file; for a hub id, of which nothing is known
            before it is downloaded, the estimate is 0.
        options: how the model is loaded; its dtype and quantisation change the size.
    """
    if path := local_gguf(name):
        return _gguf_bytes(read_model_header(path), options)
    folder = local_folder(name)
    if folder is None:
        return 0
    patterns = ("*.safetensors", "*.bin", "*.pt")
    files = next((files for pattern in patterns if (files := list(folder.glob(pattern)))), [])
    if not files:
        return 0
    stored_bytes = sum(file.stat().st_size for file in files)
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {"dtype": "bfloat16"}  # heads are kept in it
    if "quantization_config" in config:
        return stored_bytes
    stored_dtype = _stored_dtype(config)
    weights = stored_bytes / float(stored_dtype.itemsize)
    device = choose_device(options.device)
    if options.weight_bits and device.type == "cpu":  # layer by layer, from weights in bfloat16
        return int(weights * torch.bfloat16.itemsize)
    if options.quantisation:
        return int(weights * _QUANTISED_BYTES[options.quantisation])
    dtype = choose_dtype(options.dtype, device)
    return int(weights * (stored_dtype if isinstance(dtype, str) else dtype).itemsize)


def _gguf_bytes(header: GgufHeader, options: ModelOptions) -> int:
    """Return the bytes that the weights of a GGUF file take once they are loaded."""
    unpacked = gguf_dtype(header, options).itemsize
    if options.keeps_packed:
        packed = packed_formats(header).keys() - {EMBEDDINGS}
        weights = sum(header.tensors[name].count for name in header.tensors.keys() - packed)
        return packed_bytes(header) + weights * unpacked
    weights = sum(tensor.count for tensor in header.tensors.values())
    if not options.quantisation:
        return weights * unpacked
    if options.weight_bits and choose_device(options.device).type == "cpu":  # layer by layer
        return weights * unpacked
    # They are unpacked in the machine's memory before they are packed anew.
    first = unpacked if choose_device(options.device).type == "cpu" else 0
    return int(weights * (first + _QUANTISED_BYTES[options.quantisation]))


def copy_bytes(name: str, options: ModelOptions) -> int:
    """Return an estimate of the bytes that copies of a model's weights take: in bfloat16 on a CPU
    forwards over a tree multiply with weights in a layout of their own, if there is room for them.

    Args:
        name: the folder of the model, or its GGUF file, as for `weight_bytes`.
        options: how the model is loaded.
    """
    device = choose_device(options.device)
    config = config_of_model(name)
    if device.type != "cpu" or options.quantisation or options.device_map or not config:
        return 0
    if number_dtype(name, options) != torch.bfloat16 or "quantization_config" in config:
        return 0
    if options.compile == "off" and not PackedProduct.is_available():
        return 0
    if options.keeps_packed and (path := local_gguf(name)):
        return _gguf_copies(read_model_header(path))
    rows = 0  # of the input embeddings, which are copied where they are the vocabulary matrix too
    if config.get("tie_word_embeddings") is False:
        rows = _size(config, "vocab_size") * _size(config, "hidden_size", "d_model", "n_embd")
    return max(weight_bytes(name, options) - rows * torch.bfloat16.itemsize, 0)


def _gguf_copies(header: GgufHeader) -> int:
    """Return the bytes of copies of the matrices of a GGUF file that are not kept packed."""
    left_out = {*packed_formats(header)}
    if "output.weight" in header.tensors:
        left_out.add(EMBEDDINGS)
    matrices = {name: one.count for name, one in header.tensors.items() if len(one.shape) > 1}
    return sum(matrices[name] for name in matrices.keys() - left_out) * torch.bfloat16.itemsize


def number_dtype(name: str, options: ModelOptions) -> torch.dtype:
    """Return the dtype in which a model of this machine computes once it is loaded; its states and
    cache have it too.
    """
    if path := local_gguf(name):
        return gguf_dtype(read_model_header(path), options)
    device = choose_device(options.device)
    if options.weight_bits and device.type == "cpu":
        return torch.bfloat16
    dtype = choose_dtype(options.dtype, device)
    return _stored_dtype(config_of_model(name)) if isinstance(dtype, str) else dtype


def _stored_dtype(config: dict[str, Any]) -> torch.dtype:
    """Return the dtype of the weights on disk, as a config gives it."""
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def memory_in_use(device: torch.device) -> int:
    """Return the bytes of memory that the process uses.

    On a GPU these are the most bytes of its tensors since torch's peak statistics were reset.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def cache_bytes(config: dict[str, Any], tokens: int, itemsize: int) -> int:
    """Return the bytes of the keys, values and last hidden states of a context.

    Args:
        config: the config of the model, as read from config.json.
        tokens: the number of tokens in the context.
        itemsize: the bytes of one number.
    """
    width = _size(config, "hidden_size", "d_model", "n_embd")
    layers = _size(config, "num_hidden_layers", "n_layer")
    heads = _size(config, "num_attention_heads", "n_head") or 1
    shared = _size(config, "num_key_value_heads") or heads
    head = _size(config, "head_dim") or width // heads
    return int(tokens * itemsize * (2 * layers * shared * head + width))


def context_of(config: dict[str, Any]) -> int:
    """Return the tokens of the context that a config gives; 0 if it gives none."""
    return _size(config, *CONTEXT_NAMES)


def config_of_model(name: str) -> dict[str, Any]:
    """Return the config of a model on this machine; {} for one of the hub."""
    if path := local_gguf(name):
        return config_of(read_model_header(path))
    return json_of(name, "config.json", HubOptions()) if local_folder(name) else {}


def _size(config: dict[str, Any], *names: str) -> int:
    """Return the first of several sizes that a config has; 0 if it has none that is a size. What
    is wrong with it, loading says.
    """
    sizes = (config.get(name) for name in names)
    return next((size for size in sizes if type(size) is int and size > 0), 0)


def free_bytes(options: ModelOptions) -> int:
    """Return the bytes of free memory on the device of a model, on all GPUs for a device map."""
    device = choose_device(options.device)
    if device.type == "cuda":
        count = torch.cuda.device_count() if options.device_map else 1
        index = device.index or 0
        return sum(torch.cuda.mem_get_info(index if count == 1 else i)[0] for i in range(count))
    return int(psutil.virtual_memory().available)


def check_memory(models: Sequence[tuple[str, ModelOptions]], context: int) -> None:
    """Refuse models that cannot fit, before minutes are spent on loading them.

    Args:
        models: the folder or hub id of each model and how it is loaded, the target first.
        context: the number of tokens that the target's cache should hold.

    Raises:
        NfoxError: if weights and cache together are larger than the free memory.
    """
    name, options = models[0]
    for location, _ in models:
        check_hub_id(location)
        folder = local_folder(location)
        if folder is not None and (folder / "config.json").is_file():
            check_files(location, folder)
    weights = [weight_bytes(model, loading) for model, loading in models]
    cache = cache_bytes(config_of_model(name), context, 2)
    free = free_bytes(options)
    if options.device_map is None and sum(weights) + cache > free:
        parts = " + ".join(f"{size / 2**30:.1f}" for size in [*weights, cache])
        raise NfoxError(
            f"{name} needs about {parts} GiB (weights, cache); {free / 2**30:.1f} GiB are free",
            "try --load-in-4bit, a smaller --max-context, or --device-map auto",
        )
