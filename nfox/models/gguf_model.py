"""What transformers needs of a model besides its weights, out of a GGUF file: the config, the
dtype, the tokenizer, and the tokens that end a reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig

from nfox.files.gguf_header import GgufHeader
from nfox.files.model_names import is_local_file
from nfox.models.checkpoint_files import check_sizes
from nfox.models.devices import choose_device, choose_dtype
from nfox.models.gguf_config import config_of
from nfox.models.gguf_tokenizer import tokenizer_of
from nfox.models.options import ModelOptions
from nfox.models.tokenizers import load_tokenizer

_DTYPES = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
"""The types of tensors that are not packed."""
_STOP_KEYS = ("eos", "eot", "eom")
_STOPS = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>"}
    | {"<|end_of_text|>", "<EOT>", "_<EOT>", "< EOT >", "<|end_of_turn|>"}
)
"""Tokens that end a reply whatever the model, as llama.cpp has them: a file names one only."""
_LEAST_AGREEMENT = 0.98
"""The share of tokens that a tokenizer must have under the same ids to be the model's."""


def gguf_config(name: str, header: GgufHeader) -> Any:
    """Return the config of the model in a file.

    Args:
        name: the model, as the person wrote it.
        header: of the file.

    Raises:
        ModelError: if the model is none that is computed here, or the config asks for sizes that
            its weights cannot have.
    """
    fields = config_of(header)
    check_sizes(
        name, fields, sum(tensor.count for tensor in header.tensors.values()), "its metadata"
    )
    return AutoConfig.for_model(**fields)


def gguf_dtype(header: GgufHeader, options: ModelOptions) -> torch.dtype:
    """Return the dtype that the weights of a file are unpacked to: where the options leave it to
    the file, that of its matrices, and bfloat16 for packed ones.
    """
    device = choose_device(options.device)
    if options.weight_bits and device.type == "cpu":  # the native library quantises them
        return torch.bfloat16
    dtype = choose_dtype(options.dtype, device)
    if not isinstance(dtype, str):
        return dtype
    matrices = [tensor for tensor in header.tensors.values() if len(tensor.shape) > 1]
    types = {_DTYPES.get(tensor.type_id, torch.bfloat16) for tensor in matrices}
    return types.pop() if len(types) == 1 else torch.bfloat16


def stop_ids(header: GgufHeader) -> set[int]:
    """Return the ids of the tokens that end a reply of a model."""
    keys = [f"tokenizer.ggml.{key}_token_id" for key in _STOP_KEYS]
    ids = {header.metadata[key] for key in keys if type(header.metadata.get(key)) is int}
    tokens = header.strings("tokenizer.ggml.tokens")
    return ids | {number for number, token in enumerate(tokens) if token in _STOPS}


def gguf_tokenizer(header: GgufHeader, options: ModelOptions) -> Any:
    """Return the tokenizer of the model in a file: that of the tokenizer.json in its folder, where
    it has the same tokens, or else the file's own; None if there is none.

    Args:
        header: of the file.
        options: how files are read.

    Raises:
        ModelError: if it cannot be read.
    """
    folder = header.path.parent
    tokens = header.strings("tokenizer.ggml.tokens")
    if is_local_file(str(folder / "tokenizer.json")):
        tokenizer = load_tokenizer(str(folder), options)
        if _has_tokens(tokenizer, tokens):
            tokenizer.chat_template = tokenizer.chat_template or header.metadata.get(
                "tokenizer.chat_template"
            )
            return tokenizer
    return tokenizer_of(header)


def _has_tokens(tokenizer: Any, tokens: Sequence[str]) -> bool:
    """Whether a tokenizer has nearly all of a file's tokens under the same ids."""
    ids = tokenizer.get_vocab()
    equal: int = sum(ids.get(token) == number for number, token in enumerate(tokens))
    return equal >= _LEAST_AGREEMENT * len(tokens)
