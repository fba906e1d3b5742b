"""From a name to a model in memory: its weights, its adapter and its tokenizer.

transformers, bitsandbytes and peft do the work. Every failure becomes one line that says what to
do.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
)

from nfox.errors import ModelError, NfoxError
from nfox.files.gguf_header import GgufHeader
from nfox.files.hub import file_of
from nfox.files.model_names import check_hub_id, hint_at_model, local_folder
from nfox.files.progress import ProgressCallback, quiet, reporting
from nfox.files.reading import describe, refusing
from nfox.models import adapters
from nfox.models.adapter_tokenizer import choose_tokenizer
from nfox.models.checkpoint_files import check_files, is_left_over
from nfox.models.checkpoint_keys import check_keys, used_keys
from nfox.models.forwards import check_before, sparing_threads
from nfox.models.gguf_files import find_gguf, read_model_header
from nfox.models.gguf_model import gguf_config, gguf_dtype, gguf_tokenizer, stop_ids
from nfox.models.gguf_packed import EMBEDDINGS, packed_formats, put_packed
from nfox.models.gguf_weights import unpack
from nfox.models.loading_hints import loading_error
from nfox.models.logits_error import check_weights
from nfox.models.options import LoadedModel, ModelOptions
from nfox.models.pretrained_arguments import hub_arguments, weight_arguments
from nfox.models.quantised_layers import quantise_layers
from nfox.models.tokenizers import check_tokenizer, load_tokenizer
from nfox.models.training_folders import base_in, option_for
from nfox.models.transformers_target import TransformersTarget


def load_model(
    name: str,
    options: ModelOptions | None = None,
    progress: ProgressCallback = lambda unit, done, total: None,
) -> LoadedModel:
    """Load a causal or encoder-decoder language model and its tokenizer.

    Args:
        name: a local folder, a hub id, or a GGUF file, also one of the hub: org/name:file.gguf.
        options: how the model is loaded.
        progress: is called with how far the download and the loading of weights are.

    Raises:
        ModelError: if the model is not there, or cannot be loaded as the options say.
        NfoxError: if the memory is too small for it.
    """
    options = options or ModelOptions()
    quiet()
    check_before(options)
    header = _gguf_header(name, options, progress)
    location = str(header.path) if header else _checked_location(name, options)
    adapter = adapters.find(location, options)
    with _in_one_line(name, location, options):
        if header:
            model = _load_gguf(name, header, options, progress)
        else:
            model = _load_pretrained(location, options, progress)
        if adapter:
            model = adapters.apply(model, location, adapter)
    model.eval()
    tokenizer = gguf_tokenizer(header, options) if header else load_tokenizer(location, options)
    if adapter:
        tokenizer = choose_tokenizer(tokenizer, adapter, model, partial(_tokenizer_of, options))
    with sparing_threads(model, options):
        check_weights(name, model, tokenizer)
    if options.weight_bits and model.device.type == "cpu":
        quantise_layers(name, model, options.weight_bits, warns=not options.drafts)
    target = TransformersTarget(model, _stored_in(header, options))
    check_tokenizer(name, tokenizer, target.vocabulary_size)
    return LoadedModel(name, target, tokenizer, options.adapter)


def _stored_in(header: GgufHeader | None, options: ModelOptions) -> Path | None:
    """Return the GGUF file of which weights are kept as they are stored; None for none."""
    keeps_some = header and options.keeps_packed and packed_formats(header)
    return header.path if header and keeps_some else None


@contextmanager
def _in_one_line(name: str, location: str, options: ModelOptions) -> Iterator[None]:
    """Raise whatever loading a model raises within this context as one line with what to do."""
    try:
        yield
    except NfoxError:
        raise
    except torch.OutOfMemoryError as error:
        raise NfoxError(
            f"{name}: out of memory: {describe(error)}",
            "try --load-in-4bit, a smaller --max-context, or a smaller model",
        ) from error
    except Exception as error:  # nobody knows all that files cause in the libraries
        raise loading_error(name, location, error, options) from error


def _tokenizer_of(options: ModelOptions, adapter: str) -> Any:
    """Return the tokenizer of an adapter's folder or repository, which has branches of its own."""
    return load_tokenizer(adapter, replace(options, revision=None))


def _checked_location(name: str, options: ModelOptions) -> str:
    """Return the folder or hub id that transformers loads from.

    Raises:
        ModelError: if the name is a path, but not that of a folder with a model that can be built,
            or if the hub is needed and cannot be reached.
    """
    path = local_folder(name)
    if path is not None:
        path = base_in(name) or path
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{name}: there is no config.json in this folder",
                option_for(name)
                or "pass a folder written by save_pretrained, or a hub id like Qwen/Qwen3-0.6B",
            )
        with refusing(name, error_type=ModelError, hint="copy all files of the model again"):
            check_files(name, path)
        return str(path)
    with refusing(name, error_type=ModelError, hint="check the path"):
        is_file = Path(name).expanduser().exists()
    if is_file:
        raise ModelError(
            f"{name}: found a file, expected a folder or a GGUF file",
            "pass the folder it lies in",
        )
    check_hub_id(name)
    if file_of(name, "config.json", options.hub) is None and options.hub.offline:
        hint = hint_at_model(name, "leave --offline out, or pass a folder")
        raise ModelError(f"{name}: it is not in the local cache", hint)
    return name


def _gguf_header(name: str, options: ModelOptions, progress: ProgressCallback) -> GgufHeader | None:
    """Return the header of the GGUF file that a name means; None if it means another model."""
    with reporting(progress) as bars:
        path = find_gguf(name, options.hub, bars)
    return read_model_header(path) if path else None


def _load_pretrained(location: str, options: ModelOptions, progress: ProgressCallback) -> Any:
    """Return a model of transformers from a folder, or from a repository of the hub."""
    config = AutoConfig.from_pretrained(location, **hub_arguments(options))
    if is_left_over(getattr(config, "quantization_config", None), Path(location)):
        del config.quantization_config
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return _load_weights(model_class, location, config, options, progress)


def _load_gguf(
    name: str, header: GgufHeader, options: ModelOptions, progress: ProgressCallback
) -> Any:
    """Return a model of transformers with the weights of a GGUF file on their devices."""
    config = gguf_config(name, header)
    dtype = gguf_dtype(header, options)
    packed = packed_formats(header) if options.keeps_packed else {}
    left_out = packed.keys() - {EMBEDDINGS}
    weights = unpack(header, config, dtype, partial(progress, "weights"), left_out)
    options = replace(options, dtype=str(dtype).removeprefix("torch."))
    # Where the weights are all there, the classes that find one for a name have nothing to find.
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model = _load_weights(model_class, name, config, options, lambda *counts: None, weights)
    model.generation_config.eos_token_id = sorted(stop_ids(header)) or None
    put_packed(model, header, packed)
    return model


def _load_weights(
    model_class: Any,
    location: str,
    config: Any,
    options: ModelOptions,
    progress: ProgressCallback,
    weights: dict[str, torch.Tensor] | None = None,
) -> Any:
    """Return a model of transformers with its weights on their devices.

    Args:
        model_class: of transformers.
        location: their folder or hub id.
        config: of the model.
        options: how the model is loaded.
        progress: told how far that is.
        weights: by name, in place of those there.
    """
    config.return_dict = True  # a config may say otherwise, for programs that read tuples
    with reporting(progress) as bars, ExitStack() as model_resources:
        arguments = weight_arguments(location, config, options, model_resources)
        # Whatever differs is named below; transformers itself would only say that something does.
        model, found = model_class.from_pretrained(
            location if weights is None else None,
            config=config,
            state_dict=weights,
            tqdm_class=bars,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
        )
        check_keys(
            location,
            missing=found["missing_keys"],
            unexpected=used_keys(found["unexpected_keys"], found["missing_keys"], model),
            mismatched=found["mismatched_keys"],
        )
        weakref.finalize(model, model_resources.pop_all().close)
    return model
