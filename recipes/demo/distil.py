"""Train the draft model by `nfox train draft`, on the target's own answers and on the mix."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from data import Conversation, Sources, load_gsm8k, load_sgd, skill_conversations
from generate import greedy
from heads import split, train

from nfox.files.jsonl import read_lines
from nfox.models.options import LoadedModel

SETTINGS = Path(__file__).with_name("draft.yaml")


def prompts(sources: Sources, count: int, seed: int) -> list[Conversation]:
    """Return training conversations cut before an assistant's turn: a quarter dialogues, a quarter
    problems, and skills, which are what people see first.
    """
    rng = Random(seed)
    dialogues = load_sgd(sources.sgd)
    chosen = rng.sample(dialogues, count // 4)
    cut = [item[: 2 * rng.randrange(len(item) // 2) + 1] for item in chosen]
    cut += [item[:1] for item in rng.sample(load_gsm8k(sources.gsm8k), count // 4)]
    cut += [item[:-1] for item in skill_conversations(count // 2, seed + 1, dialogues)]
    return cut


def own_answers(target: LoadedModel, openings: Sequence[Conversation]) -> list[Conversation]:
    """Return conversations with the target's own greedy replies, where these end in time."""
    tokenizer = target.tokenizer
    return [
        [
            *opening,
            {
                "role": "assistant",
                "content": tokenizer.decode(reply, skip_special_tokens=True).removeprefix(" "),
            },
        ]
        for opening, (_, reply) in zip(openings, greedy(target, openings), strict=True)
        if reply[-1] == tokenizer.eos_token_id
    ]


def answers_file(target: LoadedModel, sources: Sources, count: int, file: Path, seed: int) -> None:
    """Write the target's own answers as JSON lines."""
    answers = own_answers(target, prompts(sources, count, seed + 7))
    Random(seed).shuffle(answers)
    _write(file, answers)


def _write(file: Path, items: Sequence[Conversation]) -> None:
    lines = (json.dumps({"messages": item}, ensure_ascii=False) + "\n" for item in items)
    part = file.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.rename(file)


def train_draft(
    target: Path,
    answers: Path,
    mix: Sequence[Conversation],
    settings: Sequence[str],
    *,
    resume: bool,
) -> Path:
    """Distil a draft model from the target, on its own answers and on a mix; return its folder."""
    learn, measure = split(answers)
    file, work = answers.with_name("draft-learn.jsonl"), answers.with_name("draft")
    _write(file, [*mix, *2 * [line["messages"] for line in read_lines(learn)]])
    train("draft", [str(SETTINGS), *settings], target, (file, measure), work, resume=resume)
    return work
