"""What `llama_cpp` calls of the library besides decoding: samplers, quantisation, and its log."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nfox.decoding.sampling import Sampling
from nfox.errors import ModelError

_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_RANDOM_SEED = 2**32 - 1  # takes another seed every time


def make_sampler(
    lib: Any, vocabulary_size: int, sampling: Sampling, prompt: Sequence[int], max_tokens: int
) -> Any:
    """Return a chain of the library's samplers, to be freed.

    Args:
        lib: the package llama_cpp.
        vocabulary_size: of the model.
        sampling: how tokens are chosen.
        prompt: token ids that the repetition penalty counts as seen before.
        max_tokens: tokens that will be drawn at most.
    """
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    penalty, samplers = sampling.repetition_penalty, []
    if penalty != 1:
        window = len(prompt) + max_tokens
        samplers.append(
            lib.llama_sampler_init_penalties(vocabulary_size, window, penalty, 0.0, 0.0)
        )
    if sampling.greedy:
        samplers.append(lib.llama_sampler_init_greedy())
    else:
        samplers += [  # those that are off pass everything
            lib.llama_sampler_init_top_k(sampling.top_k),
            lib.llama_sampler_init_temp(sampling.temperature),
            lib.llama_sampler_init_top_p(sampling.top_p, 1),
            lib.llama_sampler_init_min_p(sampling.min_p, 1),
            lib.llama_sampler_init_dist(sampling.seed % _RANDOM_SEED),
        ]
    for sampler in samplers:
        lib.llama_sampler_chain_add(chain, sampler)
    if penalty != 1:
        for token in prompt:
            lib.llama_sampler_accept(chain, token)
    return chain


def quantise(lib: Any, file: str, kind: str, threads: int) -> str:
    """Return a quantised copy of a GGUF, beside it.

    Args:
        lib: the package llama_cpp.
        file: with weights of any kind; those that are quantised are rounded once more.
        kind: as llama.cpp calls it, such as "Q8_0".
        threads: of the processor.

    Raises:
        ModelError: if llama.cpp does not quantise it.
    """
    quantised = str(Path(file).with_suffix(f".{kind}.gguf"))
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.nthread, params.allow_requantize = threads, True
    if lib.llama_model_quantize(file.encode(), quantised.encode(), params):
        raise ModelError(f"llama.cpp does not quantise this model: {failure_reason(lib)}")
    return quantised


@cache
def start(lib: Any) -> tuple[deque[str], Any]:
    """Start the library, and keep what it logs off the terminal.

    Args:
        lib: the package llama_cpp.

    Returns:
        Its latest errors, and the callback for its log, which must live as long as the process.
    """
    errors: deque[str] = deque(maxlen=3)

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(level: int, text: bytes, data: Any) -> None:
        if level == _ERROR:
            errors.append(text.decode(errors="replace").strip())

    lib.llama_log_set(on_log, None)
    lib.llama_backend_init()
    return errors, on_log


def failure_reason(lib: Any) -> str:
    """Return the first of the latest errors: what follows it says only that it failed."""
    errors = start(lib)[0]
    return errors[0] if errors else "it does not say why"
