"""The types of the fields of requests.

What may be a text or a list is checked as what it is meant as: an error says what is wrong with the
list, not that a list is no text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag

from nfox.characters import whole_characters

MAX_CHOICES = 16
"""The largest number of replies to one request."""

NO_LIMIT = -1
"""What llama.cpp, LM Studio and LangChain send for as many tokens as there is room for."""

NO_SEED = -1
"""What llama.cpp and vLLM send for another seed each time."""


def is_branch(name: object) -> bool:
    """Whether a name in the path of an error is that of a union's branch and not of a field."""
    return isinstance(name, str) and name.startswith("(")


def union_of(expected: str, branch: Callable[[Any], str | None]) -> Discriminator:
    """Return what chooses the branch of a union by the value.

    Args:
        expected: what is said where the value is meant for no branch.
        branch: returns the tag of the branch that a value is meant for; None for no branch.
    """
    return Discriminator(
        branch, custom_error_type="wrong_type", custom_error_message=f"expected {expected}"
    )


def text_or_list(value: Any) -> str | None:
    """Return the branch of a text or a list of something."""
    return "(text)" if isinstance(value, str) else "(list)" if isinstance(value, list) else None


def _prompt_branch(prompt: Any) -> str | None:
    """Return the branch of a prompt, which its first element tells."""
    first = prompt[0] if isinstance(prompt, list) and prompt else None
    if isinstance(first, list):
        return "(several ids)"
    return "(ids)" if isinstance(first, int | float) else text_or_list(prompt)


def _not_zero(limit: int) -> int:
    if limit == 0:
        raise ValueError("expected 1 or more, or -1 for as many as there is room for")
    return limit


def _whole(text: Any) -> Any:
    return whole_characters(text) if isinstance(text, str) else text


# Half of an emoji, as clients cut it, becomes U+FFFD: it would stay in the history they send.
Text = Annotated[str, BeforeValidator(_whole), StringConstraints(max_length=1 << 24)]
ShortText = Annotated[str, BeforeValidator(_whole), StringConstraints(max_length=1024)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
TokenLimit = Annotated[int, Field(ge=NO_LIMIT, lt=1 << 31), AfterValidator(_not_zero)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Stop = Annotated[
    Annotated[ShortText, Tag("(text)")]
    | Annotated[list[ShortText], Field(max_length=16), Tag("(list)")],
    union_of("a text, or a list of texts", text_or_list),
]
_Several = Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)
Prompts = Annotated[
    Annotated[Text, Tag("(text)")]
    | Annotated[list[Text], _Several, Tag("(list)")]
    | Annotated[TokenIds, Tag("(ids)")]
    | Annotated[list[TokenIds], _Several, Tag("(several ids)")],
    union_of("a text, token ids, or a list of these", _prompt_branch),
]
