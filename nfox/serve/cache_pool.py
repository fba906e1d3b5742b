"""The KV caches that conversations leave behind for their next turn.

Requests bring a whole conversation each and no name for it, so a cache is found by its content: the
longest common prefix of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nfox.decoding.cache import KVCache, common_prefix


class CachePool:
    """The KV caches of recent conversations that lie idle, under a limit of memory.

    One thread takes and returns caches; any may look at the pool's size.

    Args:
        new_cache: makes an empty cache.
        max_bytes: the memory that idle caches may take together, in bytes.
    """

    def __init__(self, new_cache: Callable[[], KVCache], max_bytes: int) -> None:
        self._new_cache = new_cache
        self._max_bytes = max_bytes
        # Each with its bytes, which do not change while it is idle; the longest unused is first.
        self._idle: dict[KVCache, int] = {}

    def __len__(self) -> int:
        return len(self._idle)

    @property
    def nbytes(self) -> int:
        """The memory that the idle caches take, in bytes."""
        return sum(list(self._idle.values()))  # a list at once: the owner's thread may change it

    def take(self, prompt: Sequence[int], encoder_ids: tuple[int, ...] | None = None) -> KVCache:
        """Return a cache with the longest beginning of a prompt that an idle cache has read.

        A cache that the prompt continues as a whole leaves the pool. One that went on otherwise,
        which another turn may still need, stays: the common tokens are copied into a new cache.

        Args:
            prompt: the token ids that are to be read. The last one is always left to read.
            encoder_ids: the token ids that the encoder reads; None for decoder-only models.
        """
        readable = prompt[:-1]
        shared, cache = 0, None
        for idle in self._idle:
            if idle.encoder_ids == encoder_ids:
                common = common_prefix(idle.tokens, readable)
                # Of equally long ones the whole cache is better, because it needs no copy.
                if common > shared or (common == shared and common == len(idle.tokens)):
                    shared, cache = common, idle
        if cache is None or not shared:
            return self._new_cache()
        if shared < len(cache.tokens):
            return cache.fork(shared)
        del self._idle[cache]
        return cache

    def add(self, cache: KVCache) -> None:
        """Add a cache for the next turn of its conversation.

        It replaces the caches whose tokens it begins with. Then the caches that are unused the
        longest leave, until the others fit into the memory.
        """
        for idle in list(self._idle):
            continued = common_prefix(idle.tokens, cache.tokens) == len(idle.tokens)
            if continued and idle.encoder_ids == cache.encoder_ids:
                del self._idle[idle]
        self._idle[cache] = cache.nbytes
        while self.nbytes > self._max_bytes:
            del self._idle[next(iter(self._idle))]
