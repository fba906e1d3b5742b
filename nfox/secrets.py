"""What is for one program alone, keys and passwords: it stands in no record, file or message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import override

MASK = "***"
"""What stands in the place of a secret."""

OPTIONS = frozenset({"api_key", "hub_token", "push_to_hub_token"})
"""The options whose values are secrets, by their names in Python."""

_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]+@")


def masked_words(words: Iterable[str]) -> Iterator[str]:
    """Yield the words of a command line with *** in the place of secrets.

    These are the values of `OPTIONS`, as `--name value` or `--name=value`, and the names and
    passwords in URLs.
    """
    is_value = False
    for word in words:
        name, equals, _ = word.partition("=")
        names_secret = name.startswith("--") and name[2:].replace("-", "_") in OPTIONS
        if is_value:
            yield MASK
        elif names_secret:
            yield f"{name}={MASK}" if equals else name
        else:
            yield masked_url(word)
        is_value = names_secret and not equals


def masked_url(url: str) -> str:
    """Return a URL with *** in the place of the name and the password before its host."""
    return _CREDENTIALS.sub(f"{MASK}@", url)


class Unwritten(str):
    """A secret that pickles as None: transformers writes its arguments to training_args.bin."""

    __slots__ = ()

    @override
    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return type(None), ()

    def __copy__(self) -> Unwritten:
        return self

    def __deepcopy__(self, memo: object) -> Unwritten:
        return self
