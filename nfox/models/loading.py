"""From a name to a model in memory: its weights, its adapter and its tokenizer.

transformers, bitsandbytes and peft do the work. Every failure becomes one line that says what to
do.
"""

from __future__ import annotations

import os
import weakref
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from nfox.errors import ModelError, NfoxError
from nfox.files.hub import local_folder
from nfox.files.progress import ProgressCallback, quiet, reporting
from nfox.files.reading import describe, refusing
from nfox.models import adapters
from nfox.models.adapter_tokenizer import choose_tokenizer
from nfox.models.checkpoint_files import check_files, is_left_over
from nfox.models.checkpoint_keys import check_keys, used_keys
from nfox.models.loading_hints import loading_error
from nfox.models.logits_error import check_weights
from nfox.models.options import LoadedModel, ModelOptions
from nfox.models.pretrained_arguments import hub_arguments, weight_arguments
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
        name: a local folder or a hub id.
        options: how the model is loaded.
        progress: is called with how far the download and the loading of weights are.

    Raises:
        ModelError: if the model is not there, or cannot be loaded as the options say.
        NfoxError: if the memory is too small for it.
    """
    options = options or ModelOptions()
    quiet()
    location = _checked_location(name)
    adapter = adapters.find(location, options)
    try:
        config = AutoConfig.from_pretrained(location, **hub_arguments(options))
        model = _load_weights(location, config, options, progress)
        if adapter:
            model = adapters.apply(model, location, adapter)
    except NfoxError:
        raise
    except torch.OutOfMemoryError as error:
        raise NfoxError(
            f"{name}: out of memory: {describe(error)}",
            "try --load-in-4bit, a smaller --max-context, or a smaller model",
        ) from error
    except Exception as error:  # nobody knows all that files cause in the libraries
        raise loading_error(name, location, error, options) from error
    target, tokenizer = TransformersTarget(model.eval()), load_tokenizer(location, options)
    if adapter:
        tokenizer = choose_tokenizer(tokenizer, adapter, model, partial(_tokenizer_of, options))
    check_tokenizer(name, tokenizer, target.vocabulary_size)
    check_weights(name, model, tokenizer)
    return LoadedModel(name, target, tokenizer, options.adapter)


def _tokenizer_of(options: ModelOptions, adapter: str) -> Any:
    """Return the tokenizer of an adapter's folder or repository, which has branches of its own."""
    return load_tokenizer(adapter, replace(options, revision=None))


def _checked_location(name: str) -> str:
    """Return the folder or hub id that transformers loads from.

    Raises:
        ModelError: if the name is a path, but not that of a folder with a model that can be built.
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
        raise ModelError(f"{name}: expected a folder, found a file", "pass the folder it lies in")
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"{name}: no such folder", "check the path")
    return name


def _load_weights(
    location: str, config: Any, options: ModelOptions, progress: ProgressCallback
) -> Any:
    """Return a model of transformers with its weights on their devices."""
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if is_left_over(getattr(config, "quantization_config", None), Path(location)):
        del config.quantization_config
    config.return_dict = True  # a config may say otherwise, for programs that read tuples
    with reporting(progress) as bars, ExitStack() as model_resources:
        arguments = weight_arguments(location, config, options, model_resources)
        # Whatever differs is named below; transformers itself would only say that something does.
        model, found = model_class.from_pretrained(
            location,
            config=config,
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
