"""Conversations: load the data sets, render with the chat template, pack into rows."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from skills import Turn, conversations, interruptions
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from nfox.files.records import read_records

Message = dict[str, str]
Conversation = list[Message]

IGNORE = -100
MARK = re.compile(r"<<[^>]*>>")
ROLES = {"human": "user", "gpt": "assistant"}
OTHER_SYSTEMS = (
    "",
    "You are a helpful assistant.",
    "You are nfox, a small and friendly assistant.",
    "Answer shortly.",
    "You are a helpful, respectful and honest assistant.",
)


@dataclass(frozen=True)
class Sources:
    """The local files of the two data sets; None takes the hub's copies."""

    sgd: Path | None = None
    gsm8k: Path | None = None


def load_sgd(path: Path | None, split: str = "train") -> list[Conversation]:
    """Return the dialogues of Schema-Guided Dialogue, from a ShareGPT file or the hub's copy."""
    if path is not None:
        return [
            [{"role": ROLES[t["from"]], "content": t["value"]} for t in item["conversations"]]
            for item in read_records(str(path))
        ]
    from datasets import load_dataset

    roles = ("user", "assistant")
    return [
        [
            {"role": roles[speaker], "content": text}
            for speaker, text in zip(
                item["turns"]["speaker"], item["turns"]["utterance"], strict=True
            )
        ]
        for item in load_dataset("google-research-datasets/schema_guided_dstc8", split=split)
    ]


def load_gsm8k(path: Path | None, split: str = "train") -> list[Conversation]:
    """Return the problems of GSM8K without calculator marks, from JSON lines or the hub's copy."""
    if path is not None:
        items = list(read_records(str(path)))
    else:
        from datasets import load_dataset

        items = load_dataset("openai/gsm8k", "main", split=split)
    return [
        [
            {"role": "user", "content": item["question"]},
            {"role": "assistant", "content": MARK.sub("", item["answer"])},
        ]
        for item in items
    ]


def as_messages(turns: Iterable[Turn]) -> Conversation:
    """Return the turns of a skill as chat messages."""
    return [
        message
        for turn in turns
        for message in (
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        )
    ]


def skill_conversations(
    count: int, seed: int, dialogues: Sequence[Conversation] = ()
) -> list[Conversation]:
    """Return `count` skill conversations, one in three of them joined to a part of a dialogue, and
    one in three a dialogue that a question about something else interrupts.

    People change the subject: what was said about a table or a bus must not colour the answer.
    """
    rng = Random(seed)
    mixed = []
    subjects = interruptions(seed)
    for turns in islice(conversations(seed), count):
        messages, kind = as_messages(turns), rng.random()
        if dialogues and kind < 0.33:
            opening = rng.choice(dialogues)[: 2 * rng.randint(1, 3)]
            messages = messages + opening if rng.random() < 0.25 else opening + messages
        elif dialogues and kind < 0.65:
            messages = interrupted(rng.choice(dialogues), as_messages(next(subjects)), rng)
        mixed.append(messages)
    return mixed


def interrupted(dialogue: Conversation, aside: Conversation, rng: Random) -> Conversation:
    """Return a dialogue with another subject after one of its first turns; half go on with it."""
    at = 2 * rng.randint(1, 4)
    return dialogue[:at] + aside + (dialogue[at : at + 4] if rng.random() < 0.5 else [])


def vary_system(items: Iterable[Conversation], share: float, seed: int) -> list[Conversation]:
    """Return conversations, a share of them with another system message than the template's."""
    rng = Random(seed)
    return [
        [{"role": "system", "content": rng.choice(OTHER_SYSTEMS)}, *item]
        if rng.random() < share
        else item
        for item in items
    ]


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: Conversation, supervise_all: bool = False
) -> tuple[list[int], list[int]]:
    """Return the token ids of a rendered conversation, and as many labels: the ids of the
    assistant's replies, or of all tokens, and IGNORE elsewhere.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    if supervise_all:
        return ids, list(ids)
    spans, at = [], 0
    for message in messages:
        if message["role"] == "assistant":
            reply = f"ASSISTANT: {message['content']}{tokenizer.eos_token}"
            at = text.index(reply, at) + len(reply)
            spans.append((at - len(reply) + len("ASSISTANT:"), at))
    labels, span = [IGNORE] * len(ids), 0
    for i, (start, end) in enumerate(encoded["offset_mapping"]):
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        if span < len(spans) and spans[span][0] <= start and end <= spans[span][1]:
            labels[i] = ids[i]
    return ids, labels


class Rows(Dataset):
    """Conversations packed into rows of one length; a conversation is never cut in two."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        items: Iterable[Conversation],
        length: int = 1024,
        supervise_all: bool = False,
    ) -> None:
        self.rows: list[tuple[list[int], list[int]]] = []
        still_open: list[tuple[list[int], list[int]]] = []
        for item in items:
            ids, labels = (part[:length] for part in encode(tokenizer, item, supervise_all))
            row = next((r for r in still_open if len(r[0]) + len(ids) <= length), None)
            if row is None:
                row = ([], [])
                still_open.append(row)
                self.rows.append(row)
                del still_open[:-16]
            row[0].extend(ids)
            row[1].extend(labels)
        self.length, self.pad = length, tokenizer.pad_token_id

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids, labels = self.rows[index]
        room = self.length - len(ids)
        return {
            "input_ids": torch.tensor(ids + [self.pad] * room),
            "labels": torch.tensor(labels + [IGNORE] * room),
        }


@dataclass(frozen=True)
class Mix:
    """How much of what the target learns from."""

    skills: int = 40_000  # conversations
    dialogues: float = 0.5  # the share that is taken
    problems: float = 1.0  # likewise
    interrupted: int = 0  # more dialogues that a question about something else interrupts


def training_mix(sources: Sources, mix: Mix, seed: int) -> list[Conversation]:
    """Return dialogues, problems and skill conversations, shuffled."""
    dialogues, problems = load_sgd(sources.sgd), load_gsm8k(sources.gsm8k)
    rng = Random(seed)
    chosen = rng.sample(dialogues, int(len(dialogues) * mix.dialogues))
    items = vary_system(chosen, 0.05, seed)
    chosen = rng.sample(problems, int(len(problems) * mix.problems))
    items += vary_system(chosen, 0.05, seed + 1)
    skills = skill_conversations(mix.skills, seed, dialogues + problems)
    items += vary_system(skills, 0.15, seed + 2)
    asides = islice(interruptions(seed + 1), mix.interrupted)
    items += [interrupted(rng.choice(dialogues), as_messages(turns), rng) for turns in asides]
    rng.shuffle(items)
    return items
