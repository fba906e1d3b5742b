"""A conversation as a template writes it, and where in it its replies stand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from nfox.errors import NfoxError
from nfox.text.forms import Form, Render, Turn, find_form, is_of_tools


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
        """Return the rendering in which nothing that was said is lost, if there is one.

        Raises:
            NfoxError: if a call of a tool is lost, or what it answered.
        """
        form = find_form(render, tuple(turn["role"] for turn in turns if not is_of_tools(turn)))
        text = render(form.shaped(turns), generate)
        rendering = cls(render, form, tuple(turns), generate, text)
        if lost := rendering._lost_of_tools():
            raise NfoxError(f"it has no place for {lost}")
        return rendering

    def lost(self) -> list[int]:
        """Return the indices of the messages of which the template writes nothing, for what they
        say.
        """
        return [
            index
            for index, turn in enumerate(self.turns)
            if turn["content"].strip() not in self.text
            # Templates cut what was thought in replies; tools have a check of their own.
            and turn["role"] not in ("assistant", "tool")
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

    def _lost_of_tools(self) -> str | None:
        """Return what is left out of the calls of tools and their answers; None if nothing is."""
        if not any(map(is_of_tools, self.turns)):
            return None
        name, marks = self._name(), list[str]()

        def mark(what: str) -> str:
            marks.append(what)
            return f"{name}{len(marks):06}"

        text = self._write([_with_marks(turn, mark) for turn in self.turns], self.generate)
        lost = (what for number, what in enumerate(marks, 1) if f"{name}{number:06}" not in text)
        return next(lost, None)

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


def _with_marks(turn: Turn, mark: Callable[[str], str]) -> Turn:
    """Return a turn with marks as the names of called tools, and as what a tool answered.

    Args:
        turn: the turn; one without tools stays.
        mark: makes the mark of what it is told.
    """
    if turn["role"] == "tool":
        return {**turn, "content": mark("what a tool answered")}
    if not is_of_tools(turn):
        return turn
    calls = [
        {**call, "function": {**call["function"], "name": mark("the call of a tool")}}
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}


def _common(one: str, other: str) -> int:
    """Return the number of characters with which both texts begin."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
