"""llama.cpp's own speculation: prompt lookup, and a draft model.

Guesses are made as llama-cpp-python's `LlamaPromptLookupDecoding` and llama.cpp's program for draft
models make them, with their own settings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from nfox.errors import ModelError
from nfox.eval.peers.base import draft_of
from nfox.eval.peers.llama_cpp import LlamaCpp, written
from nfox.eval.peers.llama_cpp_context import LlamaContext
from nfox.eval.peers.packages import package
from nfox.models.loading import load_model

if TYPE_CHECKING:
    from nfox.engine import Engine

_GPU_LOOKUP, _CPU_LOOKUP = 10, 2  # as llama-cpp-python's README advises
_LONGEST = 16  # tokens of a chain: llama.cpp's --draft-max
_LEAST_CHANCE = 0.75  # of a token after which drafting goes on: its --draft-p-min
_TOP = 10  # tokens of which that chance is one: those that its sampler of drafts leaves


class Lookup(LlamaCpp):
    """Prompt lookup: what followed the last tokens before."""

    name = "llama.cpp lookup"

    def __init__(self, **recipe: Any) -> None:
        super().__init__(**recipe)
        speculative = package("llama_cpp.llama_speculative", "llama-cpp-python")
        self._length = _GPU_LOOKUP if recipe["machine"].gpu else _CPU_LOOKUP
        self._lookup = speculative.LlamaPromptLookupDecoding(num_pred_tokens=self._length)

    @override
    def draft(self, text: list[int]) -> list[int]:
        found: list[int] = self._lookup(np.array(text, np.intc)).tolist()
        return found

    @override
    def describe(self) -> str:
        return f"{super().describe()}, prompt lookup, {self._length} tokens"


class Draft(LlamaCpp):
    """A draft model, that of method `spec`, which drafts greedily while it is sure.

    Args:
        draft_file: the GGUF of the draft model.
        draft_context: the most tokens that it reads.
        recipe: of plain decoding.

    Raises:
        ModelError: if the draft model has other tokens than the target.
    """

    name = "llama.cpp draft"

    def __init__(self, draft_file: str, draft_context: int, **recipe: Any) -> None:
        super().__init__(**recipe)
        self._longest = draft_context
        self._drafting = LlamaContext(self._lib, draft_file, recipe["machine"], draft_context)
        if self._drafting.vocabulary_size != self.context.vocabulary_size:
            raise ModelError(
                f"the draft model has {self._drafting.vocabulary_size} tokens, the target "
                f"{self.context.vocabulary_size}: llama.cpp wants the same ones"
            )

    @override
    @classmethod
    def recipe(cls, engine: Engine, folder: Path) -> dict[str, Any]:
        draft, loading = draft_of(engine)
        dtype = str(engine.model.target.dtype).removeprefix("torch.")
        loaded = load_model(draft, replace(loading, dtype=dtype, quantisation=None))
        return super().recipe(engine, folder) | {
            "draft_file": written(loaded, folder / "draft.gguf"),
            "draft_context": loaded.target.max_context,
        }

    @override
    def draft(self, text: list[int]) -> list[int]:
        drafting, drafted = self._drafting, list[int]()
        if len(text) + _LONGEST > self._longest:
            return drafted
        drafting.make_room(len(text) + _LONGEST)
        drafting.read(text)
        while True:
            token, chance = self._likeliest()
            drafted.append(token)
            if chance < _LEAST_CHANCE or len(drafted) == _LONGEST:
                return drafted
            drafting.score([token])

    def _likeliest(self) -> tuple[int, float]:
        """Return the draft model's next token, and its chance among the likeliest ones."""
        row = self._lib.llama_get_logits_ith(self._drafting.handle, -1)
        logits = np.ctypeslib.as_array(row, (self._drafting.vocabulary_size,))
        top = np.partition(logits, max(len(logits) - _TOP, 0))[-_TOP:]
        chances = np.exp(top - top.max())
        return int(logits.argmax()), float(chances.max() / chances.sum())

    @override
    def begin(self) -> None:
        super().begin()
        self._drafting.keep(0)

    @override
    def describe(self) -> str:
        return (
            f"{super().describe()}, the draft model of spec, {_LONGEST} tokens at most, while it "
            f"is sure by {_LEAST_CHANCE}"
        )

    @override
    def close(self) -> None:
        self._drafting.close()
        super().close()
