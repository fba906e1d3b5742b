"""llama.cpp, by llama-cpp-python: it gets the loaded weights as a GGUF file.

It is called by the C functions that the package passes on, not by its class `Llama`: two calls a
token, so that what is timed is llama.cpp.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.decoding.generate import Limits, Prompt
from nfox.decoding.sampling import Sampling
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError
from nfox.eval.peers.base import OnTokens, Peer
from nfox.eval.peers.gguf import kind, package, write
from nfox.reply import Settings

_FIRST = 4096
"""Tokens of the first context: keys and values of all that a model was made for may be huge."""

_CHUNK = 512
"""Tokens of a prompt in one call, as many as nfox reads."""

_FILE = "model.gguf"
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_RANDOM_SEED = 2**32 - 1  # takes another seed every time


class LlamaCpp(Peer):
    """Plain decoding by llama.cpp: same weights, keys and values in the same dtype, same threads.

    Its sums are rounded elsewhere than torch's, so near-ties between two tokens may fall the other
    way. Above temperature 0 it draws by its own random numbers.

    Args:
        engine: with the model.
        lib: package llama_cpp.
        folder: with the model as `_FILE`; taken away once it is loaded.

    Raises:
        ModelError: if it does not load the model, or has no memory for a context.
    """

    name: ClassVar[str] = "llama.cpp"

    def __init__(self, engine: Engine, lib: Any, folder: TemporaryDirectory[str]) -> None:
        target = engine.model.target
        self._lib = lib
        self._folder = folder
        self._most = engine.max_context
        self._words = target.vocabulary_size
        self._dtype = target.dtype
        self._flash = target.dtype != torch.float32  # which computes in 16 bit
        self._gpu = target.device.type != "cpu"
        self._read: list[int] = []  # tokens whose keys and values are kept
        self._context: Any = None
        self._size = 0
        params = lib.llama_model_default_params()
        params.n_gpu_layers = -1 if self._gpu else 0
        file = str(Path(folder.name) / _FILE).encode()
        self._model = lib.llama_model_load_from_file(file, params)
        folder.cleanup()  # so that a kill leaves nothing; on Windows `close` does it
        if not self._model:
            raise ModelError(f"llama.cpp does not load this model: {_reason(lib)}")
        try:
            self._make_room(min(_FIRST, self._most))
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
        _listen(lib)
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
        """What the prompt has in common with what was read is not read again."""
        lib, ids, most = self._lib, prompt.ids, limits.max_tokens
        self._make_room(len(ids) + most - 1)  # the last token is told, not read
        kept = min(common_prefix(self._read, ids), len(ids) - 1)
        del self._read[kept:]
        lib.llama_memory_seq_rm(lib.llama_get_memory(self._context), 0, kept, -1)
        for start in range(kept, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            array = (lib.llama_token * len(part))(*part)
            self._decode(lib.llama_batch_get_one(array, len(part)))
            self._read += part
        one = (lib.llama_token * 1)()
        batch = lib.llama_batch_get_one(one, 1)
        sampler = _sampler(lib, self._words, settings.sampling, ids, most)
        try:
            for left in range(most - 1, -1, -1):
                token = lib.llama_sampler_sample(sampler, self._context, -1)
                on_tokens([token])
                if not left or token in limits.stop_ids:
                    break
                one[0] = token
                self._decode(batch)
                self._read.append(token)
        finally:
            lib.llama_sampler_free(sampler)

    @override
    def begin(self) -> None:
        self._read.clear()

    @override
    def describe(self) -> str:
        dtype = str(self._dtype).removeprefix("torch.")
        where = "on the GPU" if self._gpu else f"threads {torch.get_num_threads()}"
        flash = "as it chooses" if self._flash else "off"
        return (
            f"llama-cpp-python {self._lib.__version__}, weights and cache {dtype}, {where}, "
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
        """Have a context for so many tokens; a larger one than before is empty.

        Raises:
            ModelError: if there is no memory for it.
        """
        if tokens <= self._size:
            return
        self._free()
        lib, params = self._lib, self._lib.llama_context_default_params()
        params.n_ctx = self._size = min(self._most, 1 << (tokens - 1).bit_length())
        params.n_batch = _CHUNK
        params.n_threads = params.n_threads_batch = torch.get_num_threads()
        params.type_k = params.type_v = kind(self._dtype)
        params.flash_attn_type = -1 if self._flash else 0  # as it chooses, or off
        params.offload_kqv = params.op_offload = self._gpu
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise ModelError(
                f"llama.cpp has no room for {tokens} tokens: {_reason(lib)}",
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


def _sampler(lib: Any, words: int, sampling: Sampling, prompt: Sequence[int], limit: int) -> Any:
    """Return a chain of its samplers, to be freed.

    Args:
        lib: package llama_cpp.
        words: of the vocabulary.
        sampling: how tokens are chosen.
        prompt: what the repetition penalty counts as said before.
        limit: tokens that will be drawn at most.
    """
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    penalty, links = sampling.repetition_penalty, []
    if penalty != 1:
        last = len(prompt) + limit
        links.append(lib.llama_sampler_init_penalties(words, last, penalty, 0.0, 0.0))
    if sampling.greedy:
        links.append(lib.llama_sampler_init_greedy())
    else:
        links += [  # those that are off pass everything
            lib.llama_sampler_init_top_k(sampling.top_k),
            lib.llama_sampler_init_temp(sampling.temperature),
            lib.llama_sampler_init_top_p(sampling.top_p, 1),
            lib.llama_sampler_init_min_p(sampling.min_p, 1),
            lib.llama_sampler_init_dist(sampling.seed % _RANDOM_SEED),
        ]
    for link in links:
        lib.llama_sampler_chain_add(chain, link)
    if penalty != 1:
        for token in prompt:
            lib.llama_sampler_accept(chain, token)
    return chain


@cache
def _listen(lib: Any) -> tuple[deque[str], Any]:
    """Start it, and keep what it says off the terminal.

    Returns:
        Its latest errors, and what hears them: it must live as long as the process.
    """
    said: deque[str] = deque(maxlen=3)

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def hear(level: int, text: bytes, data: Any) -> None:
        if level == _ERROR:
            said.append(text.decode(errors="replace").strip())

    lib.llama_log_set(hear, None)
    lib.llama_backend_init()
    return said, hear


def _reason(lib: Any) -> str:
    """Return the first of the latest errors: what follows it says only that it failed."""
    said = _listen(lib)[0]
    return said[0] if said else "it does not say why"
