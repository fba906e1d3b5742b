"""Conversations made of nothing but the model: it asks, and it answers itself.

Questions and answers are made batch by batch, and each batch is in the file before the next one
begins, so that the work can be stopped at any time and gone on with.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nfox.errors import NfoxError
from nfox.files.jsonl import WorkShare, finished_ids, locked, read_lines
from nfox.text.messages import Message
from nfox.train.data.answerer import Answerer
from nfox.train.data.batch_decoder import BatchDecoder
from nfox.train.data.question_filter import REASONS, QuestionFilter
from nfox.train.data.question_sampler import QuestionSampler
from nfox.train.data.self_distillation import DistillCounts, answer_batch
from nfox.train.data.synthesis_settings import Synthesis

_PATIENCE = 10
"""Batches of sampled questions in a row of which none can be asked, before it is given up."""


def synthesise(
    sampler: QuestionSampler,
    answerer: Answerer,
    out: Path,
    settings: Synthesis,
    *,
    share: WorkShare | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> DistillCounts:
    """Let a model ask and answer, and append each conversation to a file.

    Args:
        sampler: the sampler of the questions.
        answerer: the answerer of them.
        out: JSON lines {"id", "messages"}; what is there counts.
        settings: how many conversations the file is to have, and how they are made.
        share: this process's share of the conversations; all of them by default.
        on_done: is called with each number of conversations that were finished.

    Returns:
        The counts of the conversations, and of questions left out, by `REASONS`.
    """
    share, lines = share or WorkShare(), _written(out)
    done = {int(line["id"]) for line in lines} & {*share.of(settings.count)}
    pending = [number for number in share.of(settings.count) if number not in done]
    result = DistillCounts(Counter(before=len(done)))
    on_done(len(done))
    # Where it goes on, the noise is another, or it would ask the same again.
    noise = random.Random(f"{settings.seed} {share.rank} {len(lines)}")
    wanted = QuestionFilter(settings.script, [line["messages"][0]["content"] for line in lines])
    questions = _questions(sampler, wanted, settings, noise, result.counts)
    while pending:
        now, pending = pending[: settings.batch], pending[settings.batch :]
        asked = {number: [Message("user", next(questions))] for number in now}
        answer_batch(asked, answerer, out, result)
        on_done(len(asked))
    return result


def _written(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; cut off one that is not finished."""
    with locked(out):
        return read_lines(out) if finished_ids(out) else []


def _questions(
    sampler: QuestionSampler,
    wanted: QuestionFilter,
    settings: Synthesis,
    noise: random.Random,
    counts: Counter[str],
) -> Iterator[str]:
    """Yield questions that are to be asked, and count the others.

    Raises:
        NfoxError: if there are none in many batches.
    """
    fruitless = 0
    while fruitless < _PATIENCE:
        fruitless += 1
        beginnings = noise.choices(settings.beginnings or ("",), k=settings.batch)
        for question in sampler.sample(beginnings, noise.getrandbits(62)):
            if reason := wanted.reason_against(question):
                counts[reason] += 1
            elif question:
                fruitless = 0
                yield question
    left_out = ", ".join(f"{counts[name]} {name}" for name in REASONS if counts[name])
    raise NfoxError(
        f"the model asks nothing that can be used; of its questions were {left_out}",
        "answer those of a dataset: nfox data distill --data FILE",
    )


def forecast_seconds(sampler: QuestionSampler, settings: Synthesis, count: int) -> float:
    """Return how long conversations will take at most, by decoding a few tokens.

    Args:
        sampler: the sampler of the questions.
        settings: how they are made.
        count: the number of conversations.
    """
    seconds: list[float] = []
    few = 4
    for tokens in (1, 1 + few):  # the first warms up, too
        decoder = BatchDecoder(sampler.model.target, frozenset(), tokens, sampler.temperature)
        start = time.perf_counter()
        decoder.decode([sampler.opening] * min(settings.batch, count))
        seconds.append(time.perf_counter() - start)
    step = max(seconds[1] - seconds[0], seconds[1] / (1 + few) / 2) / few
    batches = -(-count // settings.batch)
    return batches * step * (settings.question_tokens + settings.max_new_tokens)
