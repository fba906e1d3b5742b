"""A model in llama.cpp and its context: what was read, and what is to be read next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nfox.decoding.cache import common_prefix
from nfox.errors import ModelError, NfoxError
from nfox.eval.peers.llama_cpp_library import failure_reason

_FIRST_CONTEXT = 4096
"""Tokens of the first context: the longest that a model was made for may take much memory."""

_CHUNK = 512
"""Tokens of a prompt in one call, as many as in one of nfox."""


@dataclass(frozen=True)
class Machine:
    """What llama.cpp computes with.

    Args:
        threads: of the processor.
        gpu: whether all layers are on a GPU.
        cache_type: ggml's number of the dtype of keys and values.
        flash: whether it may choose flash attention, which computes in 16 bit.
    """

    threads: int
    gpu: bool
    cache_type: int
    flash: bool


class LlamaContext:
    """A model and the tokens that it has read.

    Args:
        lib: the package llama_cpp.
        file: the model's GGUF.
        machine: what it computes with.
        max_context: the most tokens.

    Attributes:
        tokens: those whose keys and values are in the context.

    Raises:
        ModelError: if llama.cpp does not load the model, or has no memory for a context.
    """

    def __init__(self, lib: Any, file: str, machine: Machine, max_context: int) -> None:
        self.tokens: list[int] = []
        self.handle: Any = None
        self.size = 0
        self._lib = lib
        self._machine = machine
        self._max_context = max_context
        params = lib.llama_model_default_params()
        params.n_gpu_layers = -1 if machine.gpu else 0
        self._model = lib.llama_model_load_from_file(file.encode(), params)
        if not self._model:
            raise ModelError(f"llama.cpp does not load this model: {failure_reason(lib)}")
        vocabulary = lib.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(lib.llama_vocab_n_tokens(vocabulary))
        self._one = (lib.llama_token * 1)()
        self._one_batch = lib.llama_batch_get_one(self._one, 1)
        self._batch = lib.llama_batch_init(_CHUNK, 0, 1)
        try:
            self.make_room(min(_FIRST_CONTEXT, max_context))
        except ModelError:
            self.close()
            raise

    def make_room(self, tokens: int) -> None:
        """Make the context hold so many tokens; if it must be a larger one, it is empty.

        Raises:
            ModelError: if there is no memory for it.
        """
        if tokens <= self.size:
            return
        self._free()
        lib, machine = self._lib, self._machine
        params = lib.llama_context_default_params()
        params.n_ctx = self.size = min(self._max_context, 1 << (tokens - 1).bit_length())
        params.n_batch = _CHUNK
        params.n_threads = params.n_threads_batch = machine.threads
        params.type_k = params.type_v = machine.cache_type
        params.flash_attn_type = -1 if machine.flash else 0  # as it chooses, or off
        params.offload_kqv = params.op_offload = machine.gpu
        self.handle = lib.llama_init_from_model(self._model, params)
        if not self.handle:
            raise ModelError(
                f"llama.cpp has no room for {tokens} tokens: {failure_reason(lib)}",
                "try a smaller --max-context or --max-new-tokens",
            )

    def read(self, tokens: Sequence[int]) -> None:
        """Read all tokens of a text that were not read before, at least the last one."""
        self.keep(min(common_prefix(self.tokens, tokens), len(tokens) - 1))
        lib = self._lib
        for begin in range(len(self.tokens), len(tokens), _CHUNK):
            chunk = tokens[begin : begin + _CHUNK]
            array = (lib.llama_token * len(chunk))(*chunk)
            self._decode(lib.llama_batch_get_one(array, len(chunk)))
            self.tokens += chunk

    def score(self, tokens: Sequence[int]) -> None:
        """Read tokens, and keep the logits after each of them: those of the i-th are number i."""
        if len(tokens) == 1:  # as plain decoding does
            self._one[0] = tokens[0]
            self._decode(self._one_batch)
            self.tokens += tokens
            return
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = len(self.tokens) + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = True
        self._decode(batch)
        self.tokens += tokens

    def keep(self, count: int) -> None:
        """Forget all tokens after the first `count`."""
        if count < len(self.tokens):
            del self.tokens[count:]
            lib = self._lib
            lib.llama_memory_seq_rm(lib.llama_get_memory(self.handle), 0, count, -1)

    def close(self) -> None:
        """Free the memory of the model and of its context."""
        self._free()
        if self._model:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_model_free(self._model)
            self._model = None

    def _free(self) -> None:
        self.tokens.clear()
        self.size = 0
        if self.handle:
            self._lib.llama_free(self.handle)
            self.handle = None

    def _decode(self, batch: Any) -> None:
        code = self._lib.llama_decode(self.handle, batch)
        if code:
            raise NfoxError(f"llama.cpp did not compute: llama_decode returned {code}")
