"""What is known of a tokenizer's tokens, so that no reply asks for it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class KnownTokens(NamedTuple):
    """What is known of a tokenizer's tokens.

    Args:
        byte_tokens: those for single bytes, of a tokenizer that falls back to bytes.
        texts: of tokens that were decoded alone.
    """

    byte_tokens: frozenset[int]
    texts: dict[int, str]


_KNOWN = WeakKeyDictionary["PreTrainedTokenizerBase", KnownTokens]()


def known_tokens(tokenizer: PreTrainedTokenizerBase) -> KnownTokens:
    """Return what is known of a tokenizer's tokens; the texts are added to."""
    if tokenizer not in _KNOWN:
        ids = (tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in range(256))
        byte_tokens = frozenset(id for id in ids if isinstance(id, int))
        _KNOWN[tokenizer] = KnownTokens(byte_tokens - {tokenizer.unk_token_id}, {})
    return _KNOWN[tokenizer]
