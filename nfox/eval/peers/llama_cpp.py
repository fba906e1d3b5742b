"""llama.cpp, by llama-cpp-python: it gets the loaded weights as a GGUF file.

It is called by the C functions that the package exports, not by its class `Llama`: two calls a
token, so that what is timed is llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.decoding.generate import Limits, Prompt
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError
from nfox.eval.peers.base import OnTokens, Peer
from nfox.eval.peers.gguf import ggml_type, package, write
from nfox.eval.peers.llama_cpp_library import failure_reason, make_sampler, start
from nfox.reply import Settings

_FIRST_CONTEXT = 4096
"""Tokens of the first context: the longest that a model was made for may take much memory."""

_CHUNK = 512
"""Tokens of a prompt in one call, as many as in one of nfox."""

_FILE = "model.gguf"


class LlamaCpp(Peer):
    """Plain decoding by llama.cpp: same weights, keys and values in the same dtype, same threads.

    Its sums are rounded elsewhere than torch's, so near-ties between two tokens may fall the other
    way. Above temperature 0 it draws by its own random numbers.

    Args:
        engine: the engine with the model.
        lib: the package llama_cpp.
        folder: holds the model as `_FILE`; removed once it is loaded.

    Raises:
        ModelError: if it does not load the model, or has no memory for a context.
    """

    name: ClassVar[str] = "llama.cpp"

    def __init__(self, engine: Engine, lib: Any, folder: TemporaryDirectory[str]) -> None:
        target = engine.model.target
        self._lib = lib
        self._folder = folder
        self._max_context = engine.max_context
        self._vocabulary_size = target.vocabulary_size
        self._dtype = target.dtype
        self._flash = target.dtype != torch.float32  # flash attention computes in 16 bit
        self._gpu = target.device.type != "cpu"
        self._read: list[int] = []  # tokens whose keys and values are in the context
        self._context: Any = None
        self._size = 0
        params = lib.llama_model_default_params()
        params.n_gpu_layers = -1 if self._gpu else 0
        file = str(Path(folder.name) / _FILE).encode()
        self._model = lib.llama_model_load_from_file(file, params)
        folder.cleanup()  # so that a kill leaves nothing; on Windows `close` does it
        if not self._model:
            raise ModelError(f"llama.cpp does not load this model: {failure_reason(lib)}")
        try:
            self._make_room(min(_FIRST_CONTEXT, self._max_context))
        except ModelError:
            self.close()
            raise

    @override
    @classmethod
    def build(cls, engine: Engine) -> Self:
        lib = package("llama_cpp", "llama-cpp-python")
        if engine.model.target.device.type != "cpu" and not lib.llama_supports_gpu_offload():
            raise ModelError(
                "llama-cpp-python was built for the CPU alone, and the target is on a GPU",
                "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall llama-cpp-python, "
                "or --device cpu",
            )
        start(lib)
        folder = TemporaryDirectory(prefix="nfox-", ignore_cleanup_errors=True)
        try:
            write(engine.model, Path(folder.name) / _FILE)
            return cls(engine, lib, folder)
        except BaseException:
            folder.cleanup()
            raise

    @override
    def answer(
        self, prompt: Prompt, settings: Settings, limits: Limits, on_tokens: OnTokens
    ) -> None:
        """Answer a prompt; the tokens that begin it and were read before are not read again."""
        lib, ids, max_tokens = self._lib, prompt.ids, limits.max_tokens
        self._make_room(len(ids) + max_tokens - 1)  # the last token is returned, not read
        self._read_prompt(ids)
        token_array = (lib.llama_token * 1)()
        batch = lib.llama_batch_get_one(token_array, 1)
        sampler = make_sampler(lib, self._vocabulary_size, settings.sampling, ids, max_tokens)
        try:
            for left in range(max_tokens - 1, -1, -1):
                token = lib.llama_sampler_sample(sampler, self._context, -1)
                on_tokens([token])
                if not left or token in limits.stop_ids:
                    break
                token_array[0] = token
                self._decode(batch)
                self._read.append(token)
        finally:
            lib.llama_sampler_free(sampler)

    def _read_prompt(self, ids: Sequence[int]) -> None:
        lib = self._lib
        common = min(common_prefix(self._read, ids), len(ids) - 1)
        del self._read[common:]
        lib.llama_memory_seq_rm(lib.llama_get_memory(self._context), 0, common, -1)
        for begin in range(common, len(ids), _CHUNK):
            chunk = ids[begin : begin + _CHUNK]
            array = (lib.llama_token * len(chunk))(*chunk)
            self._decode(lib.llama_batch_get_one(array, len(chunk)))
            self._read += chunk

    @override
    def begin(self) -> None:
        self._read.clear()

    @override
    def describe(self) -> str:
        dtype = str(self._dtype).removeprefix("torch.")
        device = "on the GPU" if self._gpu else f"threads {torch.get_num_threads()}"
        flash = "as it chooses" if self._flash else "off"
        return (
            f"llama-cpp-python {self._lib.__version__}, weights and cache {dtype}, {device}, "
            f"flash attention {flash}"
        )

    @override
    def close(self) -> None:
        self._free()
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None
        self._folder.cleanup()

    def _make_room(self, tokens: int) -> None:
        """Make the context hold so many tokens; if it must be a larger one, it is empty.

        Raises:
            ModelError: if there is no memory for it.
        """
        if tokens <= self._size:
            return
        self._free()
        lib, params = self._lib, self._lib.llama_context_default_params()
        params.n_ctx = self._size = min(self._max_context, 1 << (tokens - 1).bit_length())
        params.n_batch = _CHUNK
        params.n_threads = params.n_threads_batch = torch.get_num_threads()
        params.type_k = params.type_v = ggml_type(self._dtype)
        params.flash_attn_type = -1 if self._flash else 0  # as it chooses, or off
        params.offload_kqv = params.op_offload = self._gpu
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise ModelError(
                f"llama.cpp has no room for {tokens} tokens: {failure_reason(lib)}",
                "try a smaller --max-context or --max-new-tokens",
            )

    def _free(self) -> None:
        self._read.clear()
        self._size = 0
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None

    def _decode(self, batch: Any) -> None:
        code = self._lib.llama_decode(self._context, batch)
        if code:
            raise NfoxError(f"llama.cpp did not compute: llama_decode returned {code}")
