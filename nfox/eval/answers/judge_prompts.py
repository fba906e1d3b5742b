"""What a judge is asked: own prompts, or those of a file in FastChat's layout.

Scores depend on the words, so only those by the same prompts can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import BaseModel, ValidationError

from nfox.errors import UsageError
from nfox.files.records import records

Mode = Literal["single", "pairwise"]


@dataclass(frozen=True)
class Kind:
    """Which prompt.

    Args:
        mode: whether one answer is rated, or two are compared.
        reference: whether it shows how the question should be answered.
        second: whether the second turn is judged, with the whole conversation.
    """

    mode: Mode
    reference: bool = False
    second: bool = False

    @property
    def name(self) -> str:
        """FastChat's name of it."""
        first = {"single": ("single-v1", "single-math-v1"), "pairwise": ("pair-v2", "pair-math-v1")}
        return first[self.mode][self.reference] + ("-multi-turn" if self.second else "")

    @property
    def fields(self) -> set[str]:
        """What its template may have in braces."""
        answers = ["answer"] if self.mode == "single" else ["answer_a", "answer_b"]
        turns = ("_1", "_2") if self.second else ("",)
        named = {f"{word}{turn}" for word in ["question", *answers] for turn in turns}
        references = {"ref_answer_1", *(["ref_answer_2"] if self.second else [])}
        return named | (references if self.reference else set())


class Prompt(BaseModel):
    """One prompt, as a line of FastChat's judge_prompts.jsonl.

    Args:
        name: that judgments keep.
        system_prompt: sent first.
        prompt_template: with names of `Kind.fields` in braces.
        output_format: what the judge's answer has in it.
    """

    name: str
    system_prompt: str
    prompt_template: str
    output_format: str = ""


Prompts = Mapping[Kind, Prompt]

KINDS = [
    Kind(mode, reference, second)
    for mode in ("single", "pairwise")
    for reference in (False, True)
    for second in (False, True)
]
_FORMATS: dict[str, str] = {"single": "[[rating]]", "pairwise": "[[A]]"}


def read(path: Path, mode: Mode) -> dict[Kind, Prompt]:
    """Read the prompts of a mode.

    Args:
        path: of a file in FastChat's layout.
        mode: which of them are needed.

    Raises:
        UsageError: if there is no such file, or one of them is missing or of another kind.
    """
    hint = "expected FastChat's judge_prompts.jsonl"
    if not path.is_file():
        raise UsageError(f"{path}: no such file", hint)
    named = {}
    for number, record in enumerate(records(str(path)), 1):
        try:
            prompt = Prompt.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UsageError(f"{path}, prompt {number}: {place}: {first['msg']}", hint) from error
        named[prompt.name] = prompt
    found = {}
    for kind in KINDS:
        if kind.mode == mode:
            if kind.name not in named:
                raise UsageError(f"{path} has no prompt {kind.name}", hint)
            _check(path, kind, named[kind.name])
            found[kind] = named[kind.name]
    return found


def _check(path: Path, kind: Kind, prompt: Prompt) -> None:
    if prompt.output_format != _FORMATS[kind.mode]:
        raise UsageError(
            f"{path}: {prompt.name} asks for {prompt.output_format}",
            f"expected an output_format of {_FORMATS[kind.mode]}",
        )
    try:
        fields = {field for _, field, _, _ in Formatter().parse(prompt.prompt_template) if field}
    except ValueError as error:
        raise UsageError(f"{path}: {prompt.name}: prompt_template: {error}") from error
    if odd := sorted(fields - kind.fields):
        known = ", ".join(sorted(kind.fields))
        raise UsageError(f"{path}: {prompt.name} asks for {{{odd[0]}}}", f"known are {known}")


def own() -> dict[Kind, Prompt]:
    """Return nfox's own prompts, for where there is no file."""
    return {
        kind: Prompt(
            name="nfox-" + kind.name,
            system_prompt=_system(kind),
            prompt_template=_template(kind),
            output_format=_FORMATS[kind.mode],
        )
        for kind in KINDS
    }


def _system(kind: Kind) -> str:
    two, turn = kind.mode == "pairwise", " to the user's second message" if kind.second else ""
    what = "the answers of two assistants, A and B," if two else "an assistant's answer"
    by = (
        "Compare with the reference, which is right, and point out mistakes: what counts is "
        "whether an answer is correct and helps the user."
        if kind.reference
        else "What counts is whether an answer does what was asked, is correct and helpful, goes "
        "deep enough, and is well written."
    )
    fair = " Neither their order nor their length may count." if two else ""
    verdict = (
        "your verdict in double brackets: [[A]] if A is better, [[B]] if B is better, [[C]] if "
        "they are equally good."
        if two
        else "a whole number from 1 (useless) to 10 (could not be better) in double brackets, "
        "such as: Rating: [[7]]"
    )
    return (
        f"You judge {what}{turn}. Be strict and fair. {by}{fair} Give your reasons in a few "
        f"sentences first. End with {verdict}"
    )


def _template(kind: Kind) -> str:
    turns = ("_1", "_2") if kind.second else ("",)
    parts = []
    if kind.reference:
        answers = ("ref_answer_1", "ref_answer_2")[: len(turns)]
        parts.append(_part("Reference", turns, answers))
    who = {"Assistant": "answer"}
    if kind.mode == "pairwise":
        who = {"Assistant A": "answer_a", "Assistant B": "answer_b"}
    parts += [_part(name, turns, [f"{word}{turn}" for turn in turns]) for name, word in who.items()]
    return "\n\n".join(parts)


def _part(name: str, turns: tuple[str, ...], answers: tuple[str, ...] | list[str]) -> str:
    lines = [f"===== {name} ====="]
    for turn, answer in zip(turns, answers, strict=True):
        lines += ["--- User ---", f"{{question{turn}}}", f"--- {name} ---", f"{{{answer}}}"]
    return "\n".join([*lines, f"===== End of {name} ====="])
