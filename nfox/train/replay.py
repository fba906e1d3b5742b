"""Self-distillation data: the human turns of a dataset, answered by the target itself.

Heads learn to foretell their target, so they learn best from its own words. The conversations are
replayed turn by turn, many at a time: decoding them one by one would take hours.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from filelock import FileLock

from nfox.batch import finished_ids
from nfox.chat import stop_ids
from nfox.conversation import Message, Template
from nfox.errors import NfoxError
from nfox.loading import LoadedModel
from nfox.train.data import Conversations

Answers = list[Message | None]
"""One for each conversation; None where it could not be answered."""


class Answerer(ABC):
    """Whoever answers the last message of many conversations at once."""

    @abstractmethod
    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        """Return the reply to each; None where it does not fit or fails."""


@dataclass
class Local(Answerer):
    """A model in this process; batches are decoded by transformers' generate.

    Args:
        model: the target.
        template: renders the conversations.
        max_new_tokens: of a reply.
        temperature: 0 takes the likeliest token.
    """

    model: LoadedModel
    template: Template
    max_new_tokens: int = 512
    temperature: float = 0.0
    _ends: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self._ends = stop_ids(self.model, self.template)

    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        """See `Answerer.answer`. A batch too large for the memory is halved."""
        prompts = [self.template.encode(self.model.tokenizer, messages) for messages in asked]
        room = self.model.target.max_context - self.max_new_tokens
        fit = [number for number, prompt in enumerate(prompts) if len(prompt) <= room]
        made: Answers = [None] * len(asked)
        for number, ids in zip(fit, self._decode([prompts[n] for n in fit]), strict=True):
            made[number] = self._message(ids) if ids is not None else None
        return made

    def _decode(self, prompts: list[list[int]]) -> list[list[int] | None]:
        if not prompts:
            return []
        try:
            return self._generate(prompts)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                return [None]
            half = len(prompts) // 2
            return self._decode(prompts[:half]) + self._decode(prompts[half:])

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]]) -> list[list[int] | None]:
        """Return the ids of each reply, what ends it left out."""
        target, ends = self.model.target, sorted(self._ends)
        width = max(map(len, prompts))
        pad = ends[0] if ends else 0
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        sampling: dict[str, Any] = {"do_sample": self.temperature > 0}
        if self.temperature > 0:
            sampling |= {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        rows = target.model.generate(
            input_ids=ids.to(target.device),
            attention_mask=mask.to(target.device),
            max_new_tokens=self.max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=pad,
            **sampling,
        )[:, width:].tolist()
        return [self._until_end(row) for row in rows]

    def _until_end(self, row: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(row) if token in self._ends), len(row))
        return row[:end]

    def _message(self, ids: list[int]) -> Message | None:
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in self.template.stop_strings if stop in text]
        if not cuts:
            return Message("assistant", text.strip(), tuple(ids)) if text.strip() else None
        kept = text[: min(cuts)].strip()
        return Message("assistant", kept) if kept else None


@dataclass(frozen=True)
class Server(Answerer):
    """An OpenAI-compatible server.

    Args:
        url: of its chat completions, http://localhost:8080/v1/chat/completions.
        model: its name there.
        max_new_tokens: of a reply.
        temperature: 0 takes the likeliest token.
        concurrency: requests at once.
        key: for its Authorization header.
    """

    url: str
    model: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    concurrency: int = 64
    key: str | None = None

    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        """See `Answerer.answer`.

        Raises:
            NfoxError: if there is nobody at the address.
        """
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        with (
            httpx.Client(headers=headers, timeout=600) as client,
            ThreadPoolExecutor(self.concurrency) as threads,
        ):
            return list(threads.map(lambda messages: self._one(client, messages), asked))

    def _one(self, client: httpx.Client, messages: Sequence[Message]) -> Message | None:
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }
        try:
            reply = client.post(self.url, json=body).raise_for_status().json()
            text = str(reply["choices"][0]["message"]["content"] or "").strip()
        except httpx.ConnectError as error:
            raise NfoxError(f"{self.url}: nobody answers there: {error}", "check --url") from error
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return None  # one conversation less; they are counted
        return Message("assistant", text) if text else None


@dataclass(frozen=True)
class Share:
    """Which of the conversations are this process's.

    Args:
        rank: of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1


def replay(
    conversations: Conversations,
    answerer: Answerer,
    out: Path,
    *,
    batch: int = 16,
    share: Share | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> Counter[str]:
    """Answer the human turns of every conversation, and add each finished one to a file.

    Args:
        conversations: whose human turns are asked; their own replies are dropped.
        answerer: who answers.
        out: JSON lines {"id", "messages"}; conversations that are there already are skipped.
        batch: how many at a time.
        share: of several processes; all of them by default.
        on_done: told how many more are finished.

    Returns:
        How many were "kept" whole, "cut" where a reply failed or did not fit, "failed" at the first
        turn, and were there "before".
    """
    share = share or Share()
    with _locked(out):
        known = finished_ids(out)
    mine = range(share.rank, len(conversations.kept), share.size)
    todo = [number for number in mine if str(number) not in known]
    counts: Counter[str] = Counter(before=len(mine) - len(todo))
    # Alike in length, so that a batch is little padding and ends at about the same turn.
    todo.sort(key=lambda number: _length(conversations.kept[number]))
    for start in range(0, len(todo), batch):
        numbers = todo[start : start + batch]
        for number, made, whole in _converse([conversations.kept[n] for n in numbers], answerer):
            counts["kept" if whole else "cut" if made else "failed"] += 1
            if made:
                _add(out, numbers[number], made)
        on_done(len(numbers))
    return counts


def _length(messages: Sequence[Message]) -> tuple[int, int]:
    return len(messages), sum(len(m.content) for m in messages)


def _converse(
    asked: Sequence[Sequence[Message]], answerer: Answerer
) -> Iterator[tuple[int, list[Message], bool]]:
    """Yield each conversation's number, what came of it, and whether that is all of it."""
    made: list[list[Message]] = [[m for m in one[:1] if m.role == "system"] for one in asked]
    questions = [[m for m in one if m.role == "user"] for one in asked]
    going = list(range(len(asked)))
    for turn in range(max(map(len, questions))):
        going = [n for n in going if turn < len(questions[n])]
        for n in going:
            made[n].append(questions[n][turn])
        answers = answerer.answer([made[n] for n in going])
        for n, reply in zip(going, answers, strict=True):
            if reply is None:
                made[n].pop()
            else:
                made[n].append(reply)
        going = [n for n, reply in zip(going, answers, strict=True) if reply is not None]
    for n, messages in enumerate(made):
        replies = sum(m.role == "assistant" for m in messages)
        yield n, messages if replies else [], replies == len(questions[n])


def _add(out: Path, number: int, messages: Sequence[Message]) -> None:
    """Add a line; several processes may do so at once."""
    turns = [{"role": m.role, "content": m.content} for m in messages]
    line = json.dumps({"id": str(number), "messages": turns}, ensure_ascii=False) + "\n"
    with _locked(out), out.open("a", encoding="utf-8") as lines:
        lines.write(line)


def _locked(out: Path) -> FileLock:
    return FileLock(f"{out}.lock")


def note(out: Path, facts: dict[str, Any]) -> None:
    """Write down beside the file where it comes from, as `<out>.provenance.json`."""
    file = out.with_name(f"{out.name}.provenance.json")
    file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
