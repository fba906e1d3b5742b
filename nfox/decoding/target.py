"""The model that is decoded, as the loop sees it: it reads tokens and scores token trees.

It knows no method; `Vocabulary` is what heads read their guesses with.
`nfox.models.transformers_target` is the one that runs any model of transformers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree
from nfox.errors import ModelError, UsageError

Proposals = Literal["trees", "chains", "nothing"]
"""What a target can score in one forward: any tree, a chain, or the root alone."""


CHUNK = 512
"""Tokens read in one forward, so that reading a long prompt can be interrupted."""


def are_numbers(logits: Tensor) -> bool:
    """Return whether a token can be chosen from each row of logits [N, V]: none of them is NaN or
    infinite, but for those of tokens that a model rules out by -inf.

    One pass over the logits.
    """
    most = as_array(logits).max(-1) if logits.device.type == "cpu" else logits.amax(-1)
    return all(map(isfinite, most.tolist()))


def as_array(logits: Tensor) -> Any:
    """Return logits on a CPU, float32 or wider, as an array of NumPy in the same memory."""
    return logits.detach().numpy()


@lru_cache(maxsize=4)
def token_range(count: int) -> NDArray[np.uint32]:
    """Return the ids of the first tokens, as many as are asked for, not to be written to."""
    ids = np.arange(count, dtype=np.uint32)
    ids.flags.writeable = False
    return ids


def check_tokens(ids: Iterable[int], vocabulary_size: int) -> None:
    """Refuse token ids that a model has no embedding for.

    Raises:
        UsageError: if one of them is negative, or not smaller than the size of the vocabulary.
    """
    unknown = next((token for token in ids if not 0 <= token < vocabulary_size), None)
    if unknown is not None:
        raise UsageError(
            f"there is no token {unknown}: the model knows {vocabulary_size} tokens",
            "take ids from this model's own tokenizer",
        )


class Vocabulary(ABC):
    """What heads need of a target: the embeddings of tokens, and the logits of hidden states."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device where token ids go in."""

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Return the input embeddings [..., D] of token ids [...]."""

    @abstractmethod
    def unembed(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V] of last hidden states [..., D], as the model computes them."""

    def token_ids(self, columns: Sequence[int]) -> list[int]:
        """Return the token ids that columns of the logits stand for: of a whole vocabulary, the
        numbers of the columns.
        """
        return list(columns)

    def all_token_ids(self, count: int) -> NDArray[np.uint32]:
        """Return [n] the token ids that all columns of the logits stand for.

        Args:
            count: n, the columns.
        """
        return token_range(count)


class Target(Vocabulary):
    """A causal or an encoder-decoder language model."""

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """The number of logits after every token."""

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """The width of the last hidden states."""

    @property
    @abstractmethod
    def max_context(self) -> int:
        """The number of positions the model was made for (a very large one if it does not say)."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of activations."""

    @property
    @abstractmethod
    def output_device(self) -> torch.device:
        """The device where last hidden states and logits come out."""

    @property
    @abstractmethod
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the question, and the decoder only the reply."""

    @property
    @abstractmethod
    def decoder_start_token(self) -> int:
        """The token that an encoder-decoder model's decoder starts from."""

    @property
    @abstractmethod
    def proposals(self) -> Proposals:
        """What this model scores rightly in one forward."""

    @property
    @abstractmethod
    def can_unembed(self) -> bool:
        """Whether `unembed` gives this model's own logits."""

    def guessing_vocabulary(self, frequent_tokens: Sequence[int] = ()) -> Vocabulary:
        """Return what drafters read their guesses with. It may be less exact, and faster, than the
        target, whose own logits judge the guesses.

        Args:
            frequent_tokens: the token ids that are guessed where that is faster; none for all.
        """
        return self

    @abstractmethod
    def freeze(self) -> None:
        """Keep its weights from learning."""

    @abstractmethod
    def new_cache(self) -> KVCache:
        """Return an empty cache for one conversation."""

    @abstractmethod
    def read(
        self, tokens: Sequence[int], cache: KVCache, cancelled: Callable[[], bool] | None = None
    ) -> bool:
        """Read tokens into the cache, chunk by chunk, without computing logits.

        Args:
            tokens: any number of them.
            cache: what has been read before; longer by `tokens` afterwards.
            cancelled: asked before every chunk; True ends the reading.

        Returns:
            False if it was cancelled.
        """

    @abstractmethod
    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Run the model once over all nodes of a tree. The cache is not longer afterwards.

        Args:
            tree: N nodes, of a kind that `proposals` allows.
            cache: what has been read before.

        Returns:
            [N, V] logits, float32 or wider, and [N, D] last hidden states, after every node.
        """

    def numbers_error(self) -> ModelError:
        """Return the error to raise where the logits are no numbers (`are_numbers`)."""
        kind = str(self.dtype).removeprefix("torch.")
        hint = "run it in bfloat16 or float32"
        return ModelError(f"the model's logits are not numbers (NaN or infinite) in {kind}", hint)

    @abstractmethod
    def hidden_states(
        self,
        ids: Tensor,
        *,
        gradient: bool = False,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states [B, T, D] of whole texts, for training.

        Args:
            ids: [B, T] tokens, padded on the right: what comes after a token does not change its
                state, so no mask is needed (and with a sliding window one makes NaN of padding).
            gradient: keep what the model itself needs to learn.
            visible: [B, T, T] bool, which tokens each one attends to, where these are not all
                before it; for a target that takes trees.
            positions: [B, T] of the tokens, where `visible` is given.
        """
