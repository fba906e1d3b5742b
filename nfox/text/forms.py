"""The form in which turns are handed to a template, so that what was said stands in its text.

Templates differ in what they take: some know no system message, and some read the content of a
message as a list of parts, and drop a text. The one idea: a conversation of the same roles, whose
messages are numbers that nobody writes, shows what a template leaves out, and in which form it
leaves out nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nfox.errors import ModelError, NfoxError

Turn = dict[str, Any]
"""A message as templates take it: its role, and its content as a text or as a list of parts."""

Render = Callable[[Sequence[Turn], bool], str]
"""Returns turns as text; its flag asks for the beginning of a reply after them."""

_PARTS_OF = ((), ("system", "user", "assistant"), ("user", "assistant"), ("user",))
_WRITTEN_OUT = ("'type': 'text'", '"type": "text"')  # a list of parts where a text was expected


@dataclass(frozen=True)
class Form:
    """How turns are handed to a template.

    Args:
        parts: the roles whose messages are lists of parts.
        systems: how many system messages keep their role; later ones open the next question.
        lost: the roles of which the template writes nothing all the same.
    """

    parts: tuple[str, ...] = ()
    systems: int = 1 << 30
    lost: tuple[str, ...] = ()

    def shaped(self, turns: Sequence[Turn]) -> list[Turn]:
        """Return turns in this form."""
        shaped: list[Turn] = []
        held: list[str] = []
        systems = 0
        for turn in turns:
            systems += turn["role"] == "system"
            if turn["role"] == "system" and systems > self.systems:
                held.append(turn["content"])
                continue
            if turn["role"] == "user" and held:
                turn = {**turn, "content": _paragraphs(*held, turn["content"])}
                held = []
            shaped.append(turn)
        users = [place for place, turn in enumerate(shaped) if turn["role"] == "user"]
        if held and users:
            last = shaped[users[-1]]
            shaped[users[-1]] = {**last, "content": _paragraphs(last["content"], *held)}
        return [self._in_parts(turn) for turn in shaped]

    def _in_parts(self, turn: Turn) -> Turn:
        if turn["role"] not in self.parts:
            return turn
        return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def is_of_tools(turn: Turn) -> bool:
    """Return whether a turn calls tools, or is what one answered."""
    return turn["role"] == "tool" or "tool_calls" in turn


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


def _forms(roles: Sequence[str]) -> Iterator[Form]:
    """Yield the forms that a conversation may have, the plainest first."""
    systems = roles.count("system")
    joined = [Form().systems]
    joined += [1] if systems > 1 else []
    joined += [0] if systems and "user" in roles else []
    for kept in joined:
        for parts in _PARTS_OF:
            yield Form(parts, kept)


@lru_cache(maxsize=256)
def find_form(render: Render, roles: tuple[str, ...]) -> Form:
    """Return the form in which a template leaves out nothing of a conversation of these roles, or
    as little as may be.

    Raises:
        ModelError: if it leaves out the question that is to be answered in all forms, or takes too
            long.
        Exception: what the template raises, if it refuses all forms.
    """
    if not roles:
        return Form()
    turns = _numbered(roles, "704", "169")
    found: list[tuple[int, int, Form]] = []
    refusal: Exception | None = None
    rendered = False
    for form in _forms(roles):
        try:
            text = render(form.shaped(turns), False)
        except NfoxError:
            raise
        except Exception as error:  # a template is a program, and not ours
            refusal = refusal or error
            continue
        rendered = True
        missing = [i for i, turn in enumerate(turns) if turn["content"] not in text]
        if any(written in text for written in _WRITTEN_OUT):
            continue
        if not missing:
            return form
        lost = _lost_roles(render, form, roles, missing)
        if roles[-1:] != ("user",) or len(roles) - 1 not in missing or "user" not in lost:
            found.append((len(lost), len(missing), Form(form.parts, form.systems, lost)))
    if not found:
        raise refusal if refusal and not rendered else ModelError("it leaves out the question")
    return min(found, key=lambda entry: entry[:2])[-1]


def _numbered(roles: Sequence[str], before: str, after: str) -> list[Turn]:
    """Return turns of these roles that say a number each."""
    return [{"role": role, "content": f"{before}{i:06}{after}"} for i, role in enumerate(roles)]


def _lost_roles(
    render: Render, form: Form, roles: Sequence[str], missing: Sequence[int]
) -> tuple[str, ...]:
    """Return the roles of messages whose text is missing, but for those that a template writes in
    other words: what it writes changes with them.
    """
    turns, others = _numbered(roles, "704", "169"), _numbered(roles, "853", "582")
    text = render(form.shaped(turns), False)
    last = {roles[index]: index for index in missing}  # of every role
    return tuple(
        role
        for role, index in last.items()
        if render(form.shaped([*turns[:index], others[index], *turns[index + 1 :]]), False) == text
    )
