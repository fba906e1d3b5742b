"""What is taken out of an answer: the number that GSM8K asks for, the code and the SQL that the
public evaluation programs of HumanEval and Spider read. Nothing here runs what a model wrote.
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
"""Strings that end a function which a model continues (Chen et al. 2021, arXiv 2107.03374, section
2)."""
SHOT_ENDS = ("\nQuestion:",)
"""Strings that end an answer where examples stand before the question."""
NO_SQL = "SELECT"
"""The line of an answer without SQL: it is no query either, but the evaluator skips empty lines."""


def final_answer(text: str) -> str | None:
    """Return the number that an answer ends in, normalised; None if there is no number.

    It is the first one after the mark `####`, as in GSM8K's own answers, else the last one.
    """
    _, mark, marked = text.partition(_MARK)
    if mark and (numbers := _numbers(marked.lstrip().split("\n")[0])):
        return numbers[0]
    return numbers[-1] if (numbers := _numbers(text)) else None


def _numbers(text: str) -> list[str]:
    matches = (match for match in _NUMBER.finditer(text) if match["digits"])
    return [_normalised(match["digits"], bool(match["sign"])) for match in matches]


def _normalised(digits: str, negative: bool) -> str:
    """Return the one way to write a number: without commas, and without needless zeros."""
    integer, _, fraction = digits.replace(",", "").partition(".")
    integer, fraction = integer.lstrip("0") or "0", fraction.rstrip("0")
    absolute = f"{integer}.{fraction}" if fraction else integer
    return f"-{absolute}" if negative and absolute != "0" else absolute


def few_shot(examples: Sequence[tuple[str, str]], question: str) -> str:
    """Return a prompt of examples and a question; without examples, the question as it is.

    Args:
        examples: questions with their answers.
        question: the question to answer.
    """
    if not examples:
        return question
    solved = [f"Question: {example}\nAnswer: {answer}" for example, answer in examples]
    return "\n\n".join([*solved, f"Question: {question}\nAnswer:"])


def whole_function(reply: str, name: str) -> str:
    """Return the completion that the HumanEval harness puts behind a prompt, from a chat's reply.

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
    an empty line. Comments are left out, since they would hide what follows on the line.
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
    starts = (match.start() for match in _STATEMENT.finditer(text) if not match["comment"])
    return next(starts, None)


@dataclass(frozen=True)
class Speed:
    """How fast questions were answered.

    Args:
        tokens: the tokens that were emitted.
        steps: the target's forwards after prefill.
        seconds: of the steps.
    """

    tokens: int
    steps: int
    seconds: float

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]]) -> Speed:
        """Return the sums over lines of `nfox.batch.answer`, without those that were refused."""
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
    """Return in words how many answers are right, with the standard error of their share."""
    accuracy = right / count
    error = (accuracy * (1 - accuracy) / count) ** 0.5
    return f"{right} of {count} right, {accuracy:.1%} ± {error:.1%}"
