"""Many prompts from a file, one JSON line each, resumable by id."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfox.engine import Engine
from nfox.errors import NfoxError, UsageError
from nfox.files.atomic import write_text
from nfox.files.jsonl import finished_ids, locked
from nfox.reply import Reply
from nfox.text.messages import Message

_LAYOUTS = '{"id", "prompt"}, {"id", "messages": [{"role", "content"}]} or {"id", "turns": [text]}'
_SEEDS = 1024  # replies a prompt may use, so that its noise does not depend on other prompts


@dataclass(frozen=True)
class BatchPrompt:
    """One line of a prompts file.

    Args:
        id: names it in the output.
        index: its place in the file; with the seed it fixes the noise.
        opening: messages before the first question.
        questions: asked one after the other, in one conversation; without any the opening is
            continued, which then ends with an assistant's.
    """

    id: str
    index: int
    opening: tuple[Message, ...]
    questions: tuple[str, ...]


def parse_prompt(text: str, index: int, where: str = "the prompts") -> BatchPrompt:
    """Read one line of JSON.

    Args:
        text: of the line.
        index: of the line, from 0; the id of a line without one.
        where: for errors.

    Raises:
        UsageError: if it is in none of the three layouts.
    """
    place = f"{where}, line {index + 1}"
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{place}: not JSON: {error}", f"expected {_LAYOUTS}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{place}: not a JSON object", f"expected {_LAYOUTS}")
    name = str(row.get("id", row.get("question_id", index)))
    if isinstance(row.get("prompt"), str):
        return BatchPrompt(name, index, (), (row["prompt"],))
    turns = row.get("turns")
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return BatchPrompt(name, index, (), tuple(turns))
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        try:
            read = tuple(Message(m["role"], str(m["content"])) for m in messages)
        except (KeyError, TypeError) as error:
            raise UsageError(f"{place}: a message lacks {error}", f"expected {_LAYOUTS}") from error
        if read[-1].role == "user":
            return BatchPrompt(name, index, read[:-1], (read[-1].content,))
        raise UsageError(f"{place}: the last message must be the user's, not {read[-1].role}'s")
    raise UsageError(f"{place}: none of the layouts", f"expected {_LAYOUTS}")


def parse_prompts(lines: Iterable[str], where: str) -> list[BatchPrompt]:
    """Read JSON lines; empty ones are skipped.

    Raises:
        UsageError: if a line is wrong, or an id stands twice.
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
    """Ask a prompt's questions one after the other and return the line to write.

    A question that cannot be asked, because it is too long, becomes a line with an `error`; its
    `turns` are the answers before it.
    """
    messages: list[Message] = list(prompt.opening)
    replies: list[Reply] = []
    turns = [[Message("user", question)] for question in prompt.questions] or [[]]
    for number, turn in enumerate(turns, prompt.index * _SEEDS):
        messages += turn
        try:
            reply = engine.answer(engine.request(messages, number=number))
        except NfoxError as error:
            refused = {"text": "", "tokens": [], "finish_reason": "error", "error": error.message}
            return {"id": prompt.id, **refused, "turns": [_line(reply) for reply in replies]}
        replies.append(reply)
        messages.append(reply.message())
    lines = [_line(reply) for reply in replies]
    several = {"turns": lines} if len(lines) > 1 else {}
    return {"id": prompt.id, **lines[-1], **several}


def _line(reply: Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "tokens": reply.ids,
        "finish_reason": reply.finish,
        "timings": reply.stats.timings(),
        "spec": reply.stats.spec(reply.method),
    }


class Answered:
    """Which prompts a file has answers to, while processes add to it.

    Args:
        out: the file; a line that was not finished is cut off.
        prompts: all that there are.

    Attributes:
        missing: ids without an answer, as of the last look.
        refused: how many answers are errors.

    Raises:
        UsageError: if the file is not an output of ours.
    """

    def __init__(self, out: Path, prompts: Sequence[BatchPrompt]) -> None:
        self.missing = {prompt.id for prompt in prompts}
        self.refused = 0
        self._out, self._end, self._inode = out, 0, 0
        with locked(out):
            finished_ids(out)
        self.look()

    def look(self) -> int:
        """Read on in the file; return how many more prompts have been answered."""
        if not self._out.exists():
            return 0
        with self._out.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:  # put in order by another run: it begins anew
                self._inode, self._end = inode, 0
            file.seek(self._end)
            read = file.read()
        whole = read[: read.rfind(b"\n") + 1]
        self._end += len(whole)
        before = len(self.missing)
        for line in map(json.loads, filter(bytes.strip, whole.split(b"\n"))):
            if str(line["id"]) in self.missing:
                self.missing.remove(str(line["id"]))
                self.refused += "error" in line
        return before - len(self.missing)


def put_in_order(out: Path, prompts: Sequence[BatchPrompt]) -> None:
    """Bring the answers in a file into the order of the prompts, others' before them; of several
    with one id the first stays.
    """
    with locked(out):
        lines = out.read_text(encoding="utf-8").split("\n")[:-1] if out.exists() else []
        place = {prompt.id: number for number, prompt in enumerate(prompts)}
        first = {_id(line): line for line in reversed(lines) if line.strip()}
        kept = [line for line in lines if line.strip() and first[_id(line)] is line]
        ordered = sorted(kept, key=lambda line: place.get(_id(line), -1))
        if ordered != lines:
            write_text(out.resolve(), "".join(f"{line}\n" for line in ordered))  # a link stays one


def _id(line: str) -> str:
    return str(json.loads(line)["id"])


def remaining(prompts: Sequence[BatchPrompt], done: set[str]) -> list[BatchPrompt]:
    """Return the prompts that have not been answered yet, in order."""
    return [prompt for prompt in prompts if prompt.id not in done]
