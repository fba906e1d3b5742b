"""What an answer says: the number that GSM8K asks for, the code and the SQL that the public
evaluation programs of HumanEval and Spider read. Nothing here runs what a model wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

# A minus is part of a number only where nothing stands before it that could be subtracted from.
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)])[-\u2212])?\$?(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?)"
)
_MARK = "####"
_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_COMMENT = r"(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))"
# "With pleasure" begins no statement; where brackets open a text, they belong to it.
_STATEMENT = re.compile(
    _COMMENT + r"|(?:\A[\s(]*)?\b(?:SELECT|WITH\s+(?:RECURSIVE\s+)?\w+\s*(?:\([^()]*\)\s*)?AS)\b",
    re.DOTALL | re.IGNORECASE,
)
_SQL = re.compile(
    rf"(?P<end>;|```)|(?P<quoted>'[^']*'|\"[^\"]*\"|`[^`]*`)|(?:{_COMMENT}|\s)+|.", re.DOTALL
)
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")

FUNCTION_ENDS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""What ends a function that a model writes on (Chen et al. 2021, arXiv 2107.03374, section 2)."""
SHOT_ENDS = ("\nQuestion:",)
"""What ends an answer after examples."""
NO_SQL = "SELECT"
"""Stands for an answer without SQL: none either, but no empty line, which the evaluator skips."""


def final_answer(text: str) -> str | None:
    """Return the number that an answer ends in, normalised; None if there is no number.

    It is the first one after the mark `####`, as in GSM8K's own answers, else the last one.
    """
    _, mark, marked = text.partition(_MARK)
    if mark and (numbers := _numbers(marked.lstrip().split("\n")[0])):
        return numbers[0]
    return numbers[-1] if (numbers := _numbers(text)) else None


def _numbers(text: str) -> list[str]:
    found = (match for match in _NUMBER.finditer(text) if match["digits"])
    return [_normalised(match["digits"], bool(match["sign"])) for match in found]


def _normalised(digits: str, negative: bool) -> str:
    """Write a number in one way: no commas, no zeros at either end that say nothing."""
    whole, _, part = digits.replace(",", "").partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    plain = f"{whole}.{part}" if part else whole
    return f"-{plain}" if negative and plain != "0" else plain


def few_shot(examples: Sequence[tuple[str, str]], question: str) -> str:
    """Return a question after others and their answers, as text; alone it stays as it is."""
    if not examples:
        return question
    shown = [f"Question: {asked}\nAnswer: {answer}" for asked, answer in examples]
    return "\n\n".join([*shown, f"Question: {question}\nAnswer:"])


def whole_function(reply: str, name: str) -> str:
    """Return what the HumanEval harness is to put behind a prompt for a chat model's reply.

    A prompt ends with the function's docstring, which is body enough: a reply that defines the
    function again replaces it. One that gives the body alone goes on from there.

    Args:
        reply: text, perhaps with code between fences.
        name: of the function.
    """
    blocks = _FENCED.findall(reply) or [reply]
    defines = re.compile(rf"^def {re.escape(name)}\b", re.MULTILINE)
    code = next((block for block in blocks if defines.search(block)), blocks[0]).strip("\n")
    if defines.search(code):
        return f"\n{code}\n"
    indented = code.startswith((" ", "\t"))
    lines = code.split("\n")
    return "\n".join(line if indented or not line else f"    {line}" for line in lines) + "\n"


def sql_line(reply: str) -> str:
    """Return the first SQL statement of a reply on one line, as Spider's evaluator reads it.

    It begins at SELECT or WITH, and ends at a semicolon, with its fences or, where it has none, at
    an empty line. Comments go, since they would hide what follows on the line.
    """
    blocks = (block for block in reply.split("```")[1::2] if _begin(block) is not None)
    fenced = next(blocks, None) if _begin(reply) else None  # at 0 it begins before any fence
    text = fenced or reply
    begin = _begin(text)
    if begin is None:
        return NO_SQL
    statement = text[begin:]
    if not fenced:
        statement = _EMPTY_LINE.split(statement, maxsplit=1)[0]
        if text[:begin].endswith("`"):
            statement = statement.partition("`")[0]
    parts: list[str] = []
    for part in _SQL.finditer(statement):
        if part["end"]:
            break
        space = part[0].isspace() or part["comment"]
        parts.append(re.sub(r"\s", " ", part[0]) if part["quoted"] else " " if space else part[0])
    return "".join(parts).strip()


def _begin(text: str) -> int | None:
    """Return where the first SQL statement of a text begins."""
    found = (match.start() for match in _STATEMENT.finditer(text) if not match["comment"])
    return next(found, None)


@dataclass(frozen=True)
class Speed:
    """What answering took.

    Args:
        tokens: emitted.
        steps: forwards of the target.
        seconds: of these, without reading the prompts.
    """

    tokens: int
    steps: int
    seconds: float

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]]) -> Speed:
        """Add up lines of `nfox.batch.answer`; those that were refused took nothing."""
        done = [line for line in lines if "error" not in line]
        return cls(
            sum(line["timings"]["predicted_n"] for line in done),
            sum(line["spec"]["steps"] for line in done),
            sum(line["timings"]["predicted_ms"] for line in done) / 1e3,
        )

    @override
    def __str__(self) -> str:
        tau = self.tokens / self.steps if self.steps else 0.0
        rate = self.tokens / self.seconds if self.seconds else 0.0
        return f"{self.tokens} tokens, tau {tau:.2f}, {rate:.1f} tokens/s"


def share(right: int, count: int) -> str:
    """Say how many are right, with the standard error of the share."""
    part = right / count
    error = (part * (1 - part) / count) ** 0.5
    return f"{right} of {count} right, {part:.1%} ± {error:.1%}"
