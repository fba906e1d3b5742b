"""Turns to text, so that what was said stands in it.

Templates differ in what they take: some know no system message, and some read the content of a
message as a list of parts, and drop a text. The one idea: a conversation of the same roles, whose
messages are numbers that nobody writes, shows what a template leaves out, and in which form it
leaves out nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
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
    turns = [{"role": role, "content": f"704{i:06}169"} for i, role in enumerate(roles)]
    best: Form | None = None
    refusal: Exception | None = None
    for form in _forms(roles):
        try:
            text = render(form.shaped(turns), False)
        except NfoxError:
            raise
        except Exception as error:  # a template is a program, and not ours
            refusal = refusal or error
            continue
        if any(written in text for written in _WRITTEN_OUT):
            continue
        lost = [i for i, turn in enumerate(turns) if turn["content"] not in text]
        if not lost:
            return form
        answerable = roles[-1:] != ("user",) or len(roles) - 1 not in lost
        if answerable and (best is None or len(lost) < len(best.lost)):
            best = Form(form.parts, form.systems, tuple(roles[i] for i in lost))
    if best is None:
        raise refusal or ModelError("it leaves out the question")
    return best


@dataclass(frozen=True)
class Rendering:
    """A conversation as a template writes it.

    Args:
        render: the template.
        form: how its turns are handed to the template.
        turns: its turns.
        generate: whether the beginning of a reply stands at its end.
        text: what the template writes.
    """

    render: Render
    form: Form
    turns: tuple[Turn, ...]
    generate: bool
    text: str

    @classmethod
    def of(cls, render: Render, turns: Sequence[Turn], generate: bool) -> Rendering:
        """Return the rendering in which nothing that was said is lost, if there is one."""
        form = find_form(render, tuple(turn["role"] for turn in turns))
        return cls(render, form, tuple(turns), generate, render(form.shaped(turns), generate))

    def lost(self) -> list[int]:
        """Return the indices of the messages of which the template writes nothing, for what they
        say.
        """
        return [
            index
            for index, turn in enumerate(self.turns)
            if turn["content"].strip() not in self.text
            and turn["role"] != "assistant"  # of which templates cut what was thought
            and self._is_lost(index)
        ]

    def _is_lost(self, index: int) -> bool:
        """Return whether the text is the same with nothing in a message, or without it."""
        for turns in (self._with(index, ""), [*self.turns[:index], *self.turns[index + 1 :]]):
            try:
                if self._write(turns, self.generate) == self.text:
                    return True
            except NfoxError:
                raise
            except Exception:
                continue
        return False

    def prompt(self, index: int) -> str | None:
        """Return what the reply of that index was asked by; None where no reply can be asked."""
        try:
            return self._write(self.turns[:index], True) if index else None
        except NfoxError:
            raise
        except Exception:
            return None

    def begun(self) -> str:
        """Return the text up to the end of the last message, as transformers cuts it there."""
        content, name = self.turns[-1]["content"], self._name()
        text = self._write(self._with(-1, f"{content}{name} "), False)
        before, found, after = text.rpartition(name)
        if not found:
            raise ValueError("it does not write the reply that is to be continued")
        return before if after.startswith(" ") else before.rstrip()

    def place(self, index: int) -> tuple[int, int] | None:
        """Return where the reply of that index begins and ends in the text; None if it is left out.

        It begins where the prompt ended that it answered, which may be before the template's place
        for it: asked after "ASSISTANT:", a model writes the space itself.
        """
        text, content, name = self.text, self.turns[index]["content"], self._name()
        left, found, right = self._write(self._with(index, name), self.generate).rpartition(name)
        if not found:
            return None
        end = len(text) - (len(right) if text.endswith(right) else _common(text[::-1], right[::-1]))
        prompt = self.prompt(index)
        spelled = next((s for s in (content, content.strip()) if text[:end].endswith(s)), None)
        if prompt is not None and text.startswith(prompt):
            start = len(prompt)
        elif text.startswith(left):
            start = len(left)
        else:
            start = _common(text, left) if spelled is None else end - len(spelled)
        return min(start, end), end

    def _name(self) -> str:
        """Return a text that stands in none of the messages, and nowhere else."""
        said = "\0".join(turn["content"] for turn in self.turns)
        # Of digits, which no template writes in another case.
        return str(int(hashlib.sha256(said.encode("utf-8", "replace")).hexdigest(), 16))

    def _with(self, index: int, content: str) -> list[Turn]:
        """Return the turns with another content of one of them."""
        turns = list(self.turns)
        turns[index] = {**turns[index], "content": content}
        return turns

    def _write(self, turns: Sequence[Turn], generate: bool) -> str:
        return self.render(self.form.shaped(turns), generate)


def _common(one: str, other: str) -> int:
    """Return the number of characters with which both texts begin."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
