"""Prompts from a file of JSON lines, and their answers in another, which resumes by the ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfox.characters import BOM, has_broken_characters, whole_characters
from nfox.engine import Engine
from nfox.errors import ContextError, NfoxError, UsageError
from nfox.files.atomic import write_text
from nfox.files.jsonl import finished_ids, line_id, locked, parse_line
from nfox.files.reading import parse_json, refusing
from nfox.reply import Reply
from nfox.text.messages import Message
from nfox.text.prompts import LAYOUTS, prompt_messages, prompt_name

_NUMBERS_PER_PROMPT = (
    1024  # replies a prompt may use, so that its noise does not depend on other prompts
)


@dataclass(frozen=True)
class BatchPrompt:
    """The prompt of one line of a prompts file.

    Args:
        id: the name of the prompt in the output.
        index: the index of the line in the file; with the seed it fixes the noise.
        opening: the messages before the first question.
        questions: the questions, asked one after the other in one conversation. Without any, the
            opening ends with a reply, which is continued.
        refusal: why it is not asked at all; "" where it is.
    """

    id: str
    index: int
    opening: tuple[Message, ...]
    questions: tuple[str, ...]
    refusal: str = ""


def parse_prompt(text: str, index: int, where: str = "the prompts") -> BatchPrompt:
    """Return the prompt of one JSON line.

    Args:
        text: the text of the line, with "surrogateescape" for bytes that are no UTF-8: such a
            prompt is refused by itself, and the others are answered.
        index: the index of the line, from 0; it is the id of a line without one.
        where: the name of the file, for errors.

    Raises:
        UsageError: if the line has none of the three layouts, or says what would not be asked.
    """
    location = f"{where}, line {index + 1}"
    # An escape in JSON is none yet.
    refusal = f"{location}: not UTF-8" if has_broken_characters(text) else ""
    line = whole_characters(text).removeprefix(BOM)
    row = parse_json(line, location, LAYOUTS, non_finite=True)  # a score may be NaN
    with refusing(location, LAYOUTS):
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        name, (opening, questions) = prompt_name(row, index), prompt_messages(row)
    return BatchPrompt(name, index, opening, questions, refusal)


def parse_texts(lines: Iterable[str], where: str) -> list[BatchPrompt]:
    """Return the prompts of a text file, one on each line, without the empty lines.

    Args:
        lines: the lines of the file, with "surrogateescape" for bytes that are no UTF-8.
        where: the name of the file, for errors.
    """
    return [
        BatchPrompt(
            str(index),
            index,
            (),
            (whole_characters(line.strip()),),
            f"{where}, line {index + 1}: not UTF-8" if has_broken_characters(line) else "",
        )
        for index, line in enumerate(lines)
        if line.strip()
    ]


def parse_prompts(lines: Iterable[str], where: str) -> list[BatchPrompt]:
    """Return the prompts of JSON lines, without those of empty lines.

    Args:
        lines: the lines of the file.
        where: the name of the file, for errors.

    Raises:
        UsageError: if a line has none of the layouts, or two lines have the same id.
    """
    numbered = enumerate(lines)
    prompts = [parse_prompt(line, index, where) for index, line in numbered if line.strip()]
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UsageError(f"{where}: the id {prompt.id!r} stands twice")
        seen.add(prompt.id)
    return prompts


def answer(engine: Engine, prompt: BatchPrompt) -> dict[str, Any]:
    """Ask the questions of a prompt one after the other; return the line to write.

    Where a question cannot be asked, as it is too long or damaged, the line has an `error` and the
    exit `code` of that, and its `turns` are the answers to the questions before.
    """
    if prompt.refusal:
        return {"id": prompt.id, **_failure(UsageError(prompt.refusal))}
    messages: list[Message] = list(prompt.opening)
    replies: list[Reply] = []
    turns = [[Message("user", question)] for question in prompt.questions] or [[]]
    for number, turn in enumerate(turns, prompt.index * _NUMBERS_PER_PROMPT):
        messages += turn
        try:
            reply = engine.answer(engine.request(messages, number=number))
        except NfoxError as error:
            turns_before = [_reply_fields(reply) for reply in replies]
            return {"id": prompt.id, **_failure(error), "turns": turns_before}
        replies.append(reply)
        messages.append(reply.message())
    answers = [_reply_fields(reply) for reply in replies]
    turns_field = {"turns": answers} if len(answers) > 1 else {}
    return {"id": prompt.id, **answers[-1], **turns_field}


def _failure(error: NfoxError) -> dict[str, Any]:
    """Return an error as the fields of a JSON line."""
    told = {"error": error.message, "code": error.code}
    return {"text": "", "tokens": [], "finish_reason": "error", **told}


def exit_codes(line: Mapping[str, Any]) -> Iterator[int]:
    """Yield the exit code for a line that is an error: 4 where it does not fit into the context,
    otherwise 1.
    """
    if "error" in line:
        is_too_long = line.get("code") == ContextError.code
        yield ContextError.code if is_too_long else NfoxError.code


def _reply_fields(reply: Reply) -> dict[str, Any]:
    """Return a reply as the fields of a JSON line."""
    return {
        "text": reply.text,
        "tokens": reply.ids,
        "finish_reason": reply.finish,
        "timings": reply.stats.timings(),
        "spec": reply.stats.spec(reply.method),
    }


class AnswerCounter:
    """Counts the prompts that a file has answers to, while processes add to it.

    Args:
        out: the file; a line that is not finished is cut off.
        prompts: all prompts.

    Attributes:
        missing: the ids of the prompts without an answer, as of the last `update`.
        refused: the exit codes of the answers that are errors.

    Raises:
        UsageError: if the file is not an output of nfox.
    """

    def __init__(self, out: Path, prompts: Sequence[BatchPrompt]) -> None:
        self.missing = {prompt.id for prompt in prompts}
        self.refused: list[int] = []
        self._out, self._end, self._inode = out, 0, 0
        with locked(out):
            finished_ids(out)
        self.update()

    def update(self) -> int:
        """Read the lines that were added to the file; return the number of new answers."""
        if not self._out.exists():
            return 0
        with self._out.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:  # sorted by another run: it begins anew
                self._inode, self._end = inode, 0
            file.seek(self._end)
            added = file.read()
        finished = added[: added.rfind(b"\n") + 1]
        self._end += len(finished)
        missing_before = len(self.missing)
        for number, text in enumerate(finished.split(b"\n"), 1):
            if not text.strip():
                continue
            line = parse_line(self._out, number, text)
            if str(line["id"]) in self.missing:
                self.missing.remove(str(line["id"]))
                self.refused += exit_codes(line)
        return missing_before - len(self.missing)


def sort_answers(out: Path, prompts: Sequence[BatchPrompt]) -> None:
    """Sort the answers in a file by the order of their prompts.

    Answers to other prompts come first. Of several answers with one id the first stays.
    """
    with locked(out):
        lines = out.read_text(encoding="utf-8").split("\n")[:-1] if out.exists() else []
        ranks = {prompt.id: rank for rank, prompt in enumerate(prompts)}
        first: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if line.strip():
                first.setdefault(line_id(out, number, line), line)
        ordered = [first[name] for name in sorted(first, key=lambda name: ranks.get(name, -1))]
        if ordered != lines:
            write_text(out.resolve(), "".join(f"{line}\n" for line in ordered))  # a link stays one


def remaining(prompts: Sequence[BatchPrompt], answered: set[str]) -> list[BatchPrompt]:
    """Return the prompts whose ids are not among those that have been answered, in order."""
    return [prompt for prompt in prompts if prompt.id not in answered]
