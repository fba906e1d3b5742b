"""A target's memory of one conversation: the tokens it has read, and their last hidden states.

There is ONE length, the number of tokens. A forward writes beyond it and moves nothing; only
`commit` makes the past longer, in one act. So an error or an interrupt anywhere leaves the cache as
it was, and what is not committed needs no clean-up. How keys and values are kept is the target's
own affair: each kind of target derives its own cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from nfox.decoding.tree import TokenTree

_BLOCK = 256  # rows are allocated in multiples of this
_SLICE = 1024  # elements that are compared at once, which takes a tenth of the time


def common_prefix(a: Sequence[object], b: Sequence[object], start: int = 0) -> int:
    """Return how many first elements of `a` and `b` are equal.

    Args:
        a: token ids, or the characters of a text.
        b: the like.
        start: so many of the first elements are known to be equal and are not compared.
    """
    end = min(len(a), len(b))
    while start < end and a[start : start + _SLICE] == b[start : start + _SLICE]:
        start = min(start + _SLICE, end)
    while start < end and a[start] == b[start]:
        start += 1
    return start


def with_capacity(buffer: Tensor | None, like: Tensor, length: int, dim: int) -> Tensor:
    """Return a buffer with capacity for `length` rows: the given one, or a larger copy of it.

    Args:
        buffer: the rows so far; None for none.
        like: a tensor of the same shape but for the number of rows, and of the same dtype.
        length: how many rows are needed; memory at least doubles where it grows.
        dim: the dimension along which the rows lie.
    """
    capacity = buffer.shape[dim] if buffer is not None else 0
    if buffer is not None and capacity >= length:
        return buffer
    shape = list(like.shape)
    shape[dim] = max(-(-length // _BLOCK) * _BLOCK, 2 * capacity)
    larger = like.new_zeros(shape)
    if buffer is not None and capacity:
        larger.narrow(dim, 0, capacity).copy_(buffer)
    return larger


class KVCache(ABC):
    """The tokens that a target has read in one conversation, and what it remembers of them.

    Args:
        can_roll_back: False for recurrent states (Mamba and hybrids), which cannot forget their
            last tokens: there `truncate` starts anew.

    Attributes:
        tokens: the ids of all committed tokens.
        encoder_ids: the token ids that the encoder reads; None for decoder-only targets.
        can_roll_back: whether the last tokens can be forgotten.
        reused: how many tokens of the last prompt did not need to be read again.
    """

    def __init__(self, *, can_roll_back: bool = True) -> None:
        self.tokens: list[int] = []
        self.encoder_ids: tuple[int, ...] | None = None
        self.can_roll_back = can_roll_back
        self.reused = 0
        self._hidden: Tensor | None = None
        self._uncommitted_state = (
            False  # a forward over a recurrent state began, and has not been committed
        )

    @property
    def hidden(self) -> Tensor:
        """[len(tokens), D] the last hidden states of the tokens, after the norm."""
        if self._hidden is None:
            return torch.empty(0, 0)
        return self._hidden[: len(self.tokens)]

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The bytes of memory that are allocated, filled or not."""

    def reuse(self, prompt: Sequence[int], encoder_ids: tuple[int, ...] | None = None) -> int:
        """Keep the longest common prefix of the committed tokens and a prompt, and forget the rest.

        Args:
            prompt: the token ids to be read next. The last one is never kept: it will be the root.
            encoder_ids: what the encoder reads; None for decoder-only targets.

        Returns:
            How many tokens of the prompt need not be read again.
        """
        if encoder_ids != self.encoder_ids:
            self.truncate(0)
            self.encoder_ids = encoder_ids
        self.truncate(common_prefix(self.tokens, prompt[:-1]))
        self.reused = len(self.tokens)
        return self.reused

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens (all, where a state cannot be rolled back)."""
        if not self.can_roll_back and (length < len(self.tokens) or self._uncommitted_state):
            length = 0
        del self.tokens[length:]  # first, so that an interrupt leaves no token without its state
        if length == 0:
            self._clear()
            self._uncommitted_state = False

    def begin(self) -> None:
        """Note that a forward starts; a recurrent state is lost if it is never committed."""
        self._uncommitted_state = not self.can_roll_back

    def extend(self, tokens: Sequence[int], hidden: Tensor) -> None:
        """Commit tokens that were just read, all of them.

        Args:
            tokens: their ids.
            hidden: [len(tokens), D] their last hidden states.
        """
        start, end = len(self.tokens), len(self.tokens) + len(hidden)
        with torch.inference_mode():
            self._hidden = with_capacity(self._hidden, hidden, end, 0)
            self._hidden[start:end] = hidden
        self.tokens += tokens
        self._uncommitted_state = False

    def commit(self, tree: TokenTree, path: Sequence[int], hidden: Tensor) -> None:
        """Keep the accepted nodes of the tree that was just scored, and forget the others.

        Args:
            tree: the tree whose rows stand after the committed ones.
            path: accepted nodes, the root first.
            hidden: [N, D] the last hidden states of all its nodes.
        """
        if list(path) != list(range(len(path))):
            with torch.inference_mode():
                self._keep_rows(path)
                hidden = hidden.index_select(0, torch.tensor(list(path), device=hidden.device))
        self.extend([tree.tokens[node] for node in path], hidden[: len(path)])

    @abstractmethod
    def fork(self, length: int) -> KVCache:
        """Return another cache that has read the first `length` tokens too, from copies of their
        rows; an empty cache where that cannot be done (recurrent states, encoder-decoder models).
        """

    @abstractmethod
    def _clear(self) -> None:
        """Forget what does not end with the committed rows: an encoder's or a recurrent state."""

    @abstractmethod
    def _keep_rows(self, path: Sequence[int]) -> None:
        """Move the rows of the nodes of `path` to directly behind the committed rows, in order."""
