"""The likeliest tokens of rows of logits."""

from __future__ import annotations

from ctypes import CDLL, c_void_p
from functools import lru_cache

import torch
from torch import Tensor

from nfox.models.native.library import NativeLibraryError, native_library, thread_count


@lru_cache(maxsize=1)
def _library() -> CDLL | None:
    try:
        return native_library()
    except NativeLibraryError:
        return None


def top_tokens(logits: Tensor, width: int) -> tuple[list[list[int]], list[list[float]]]:
    """Return the likeliest tokens of rows of logits, and how likely each is.

    Args:
        logits: [N, V].
        width: how many tokens of each row; V at most.

    Returns:
        [N][width] token ids, the likeliest first, and [N][width] their probabilities. On a CPU the
        native library finds them, where it is there.
    """
    count, size = logits.shape
    library = _library() if logits.device.type == "cpu" and logits.dtype == torch.float32 else None
    if library is None:
        top = logits.softmax(-1, torch.promote_types(logits.dtype, torch.float32)).topk(width)
        return top.indices.tolist(), top.values.tolist()
    logits = logits.contiguous()
    tokens = torch.empty(count, width, dtype=torch.int32)
    probabilities = torch.empty(count, width)
    given, *found = (c_void_p(part.data_ptr()) for part in (logits, tokens, probabilities))
    library.nfox_top(given, count, size, width, *found, thread_count())
    return tokens.tolist(), probabilities.tolist()
