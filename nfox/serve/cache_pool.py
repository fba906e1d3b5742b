"""What conversations leave behind for their next turn: KV caches, and the tokens of replies.

Requests bring a whole conversation each and no name for it, so both are found by what was said: a
cache by the longest common prefix of tokens, a reply's tokens by the messages up to it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nfox.decoding.cache import KVCache, common_prefix
from nfox.text.messages import Message

_REPLIES = 4096  # remembered at most; a digest and a few hundred numbers each


class Caches:
    """KV caches of recent conversations, under a limit of memory.

    Args:
        new: makes an empty cache.
        limit: bytes that those which lie idle may take together.
    """

    def __init__(self, new: Callable[[], KVCache], limit: int) -> None:
        self._new = new
        self._limit = limit
        self._kept: list[KVCache] = []  # the longest unused first
        self._sizes: dict[int, int] = {}  # by identity; an idle cache does not grow

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """What the idle ones take."""
        return sum(list(self._sizes.values()))

    def take(self, prompt: Sequence[int], encoder_ids: tuple[int, ...] | None = None) -> KVCache:
        """Return the cache that has read the most of a prompt; it is the caller's until kept again.

        One of which all goes on is taken as it is; of one that went on otherwise, which another
        turn may still need, the common part is copied.

        Args:
            prompt: what is to be read.
            encoder_ids: what the encoder reads; None for decoder-only models.
        """
        wanted = prompt[:-1]
        found = [
            (common_prefix(c.tokens, wanted), c) for c in self._kept if c.encoder_ids == encoder_ids
        ]
        shared, cache = max(
            found,
            key=lambda one: (one[0], one[0] == len(one[1].tokens)),
            default=(0, None),
        )
        if cache is None or not shared:
            return self._new()
        if shared < len(cache.tokens):
            return cache.fork(shared)
        self._drop(self._kept.index(cache))
        return cache

    def keep(self, cache: KVCache) -> None:
        """Keep a cache for the next turn, in place of those it goes on from; let the oldest go."""
        for index in reversed(range(len(self._kept))):
            past = self._kept[index].tokens
            if common_prefix(past, cache.tokens) == len(past):
                self._drop(index)
        self._kept.append(cache)
        self._sizes[id(cache)] = cache.nbytes
        size = self.nbytes
        while self._kept and size > self._limit:
            size -= self._drop(0)

    def _drop(self, index: int) -> int:
        """Let a cache go; return its bytes."""
        return self._sizes.pop(id(self._kept.pop(index)))


class Replies:
    """The tokens that recent replies were generated as: read again, they are in the cache, which
    their text tokenised anew may not be.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()

    def remember(self, messages: Sequence[Message]) -> None:
        """Remember the tokens of the last message, if they are known."""
        ids = messages[-1].ids
        if ids is None:
            return
        *_, name = _names(messages)
        self._ids[name] = ids
        self._ids.move_to_end(name)
        if len(self._ids) > _REPLIES:
            self._ids.popitem(last=False)

    def recall(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages, with the tokens of the replies among them that are remembered."""
        named = zip(messages, _names(messages), strict=True)
        return [replace(message, ids=self._ids.get(name)) for message, name in named]


def _names(messages: Sequence[Message]) -> Iterator[bytes]:
    """Yield a digest of every beginning of a conversation."""
    said = hashlib.sha256()
    for message in messages:
        for part in (message.role, message.content):
            text = part.encode()
            said.update(len(text).to_bytes(8) + text)
        yield said.digest()
