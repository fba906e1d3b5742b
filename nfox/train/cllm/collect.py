"""Collect Jacobi trajectories: a dataset's questions, answered block by block by the model itself.

The published program reads the whole text again in every iteration; here the cache keeps what
stands. Of a conversation the first question counts, as there.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from nfox.decoding.generate import Limits, Prompt
from nfox.errors import ContextError, ModelError, NfoxError
from nfox.files.atomic import write_text
from nfox.files.jsonl import WorkShare, append, finished_ids, locked
from nfox.files.provenance import add_lineless, lineless
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.text.messages import Message
from nfox.text.template import Template
from nfox.train.cllm.blocks import blocks
from nfox.train.cllm.trajectories import Trajectory, question, repeats


def augmented(states: Sequence[Sequence[int]], numbers: random.Random) -> list[list[int]]:
    """Return states between those of an iteration and its end: for each but the last two, one with
    half of its wrong tokens put right, drawn with replacement and never the first of them.

    Kou et al. 2024 (CLLM, arXiv 2403.00835). A state with a single wrong token gives none.

    Args:
        states: of a block, the fixed point last.
        numbers: what is drawn from.
    """
    made: list[list[int]] = []
    final = states[-1]
    for state in states[:-2]:
        wrong = [place for place, token in enumerate(state) if token != final[place]]
        if len(wrong) > 1:
            right = set(numbers.choices(wrong[1:], k=len(wrong) // 2))
            pairs = enumerate(zip(state, final, strict=True))
            made.append([after if place in right else before for place, (before, after) in pairs])
    return made


@dataclass(frozen=True)
class Collector:
    """Makes the trajectories of one conversation.

    Args:
        model: the target.
        template: renders questions.
        n: tokens of a block.
        max_new_seq_len: no block is begun after so many tokens.
        augment: put states between those of the iteration before them, see `augmented`.
        labels: keep the dataset's own answers.
        max_context: positions to use at most.
    """

    model: LoadedModel
    template: Template
    n: int = 16
    max_new_seq_len: int = 512
    augment: bool = False
    labels: bool = False
    max_context: int | None = None

    def __post_init__(self) -> None:
        if self.model.target.is_encoder_decoder:
            raise ModelError(
                f"{self.model.name} has an encoder, for which there is no layout of trajectories",
                "name a model with a decoder only",
            )

    def collect(self, number: int, messages: Sequence[Message]) -> tuple[list[Trajectory], bool]:
        """Return the trajectories of a conversation's answer.

        Args:
            number: of the conversation, which seeds what is random.
            messages: the conversation.

        Returns:
            The blocks up to where the answer ends, and whether it was cut there because it repeats
            itself.

        Raises:
            ContextError: if not even one block fits.
            NfoxError: if the template refuses the conversation.
        """
        target, ends = self.model.target, stop_ids_of(self.model, self.template)
        asked = self.template.encode(self.model.tokenizer, question(messages))
        labels = self._labels(messages) if self.labels else None
        count = self._blocks(len(asked))
        text, made, repeating = list(asked), [], False
        limits = Limits(count * self.n, self.max_context, ends)
        decoded = blocks(target, Prompt(tuple(asked)), self.n, limits, seed=number)
        for index, block in enumerate(decoded):
            whole = [*text, *block.tokens]
            if repeating := repeats(whole[len(asked) :], ends):
                break
            numbers = random.Random(f"{number}/{index}")
            front = augmented(block.states, numbers) if self.augment else []
            states = [*front, *block.states]
            made.append(
                Trajectory(
                    f"data_{number}", index, len(asked), text, states, (), labels, len(front)
                )
            )
            text = whole
        return [replace(one, complete=text) for one in made], repeating

    def _blocks(self, asked: int) -> int:
        """Return how many blocks an answer may have."""
        context = min(self.max_context or 1 << 62, self.model.target.max_context)
        fit = (context - asked) // self.n
        if fit < 1:
            raise ContextError(f"{asked} tokens and a block of {self.n}: {context} is the context")
        return min(-(-self.max_new_seq_len // self.n), fit)

    def _labels(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of the first question and its answer, up to the mark that ends it."""
        opening = question(messages)
        answered = [*opening, messages[len(opening)]]
        ids, learned = self.template.encode_supervised(self.model.tokenizer, answered)
        return ids[: max(place for place, flag in enumerate(learned) if flag) + 1]


@dataclass
class Collected:
    """What came of conversations.

    Args:
        counts: how many were "kept", of these "cut" where they began to repeat themselves, were
            "repetitive" from the first block on, now or before, "failed", and were there "before";
            and how many "trajectories" were written.
        reason: why the last one failed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    reason: str = ""


def collect(
    conversations: Sequence[Sequence[Message]],
    collector: Collector,
    out: Path,
    *,
    share: WorkShare | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> Collected:
    """Collect the trajectories of conversations, and add those of each to a file when it is done.

    Args:
        conversations: whose first questions are asked.
        collector: who answers.
        out: JSON lines; what is there is not made again, nor, where a provenance is beside it,
            what was repetitive.
        share: of several processes; all conversations by default.
        on_done: told how many more are finished.
    """
    share = share or WorkShare()
    with locked(out):
        known = finished(out)
    repetitive = lineless(out)
    done = Collected()
    for number in share.of(len(conversations)):
        if str(number) in known:
            done.counts["before"] += 1
        elif str(number) in repetitive:
            done.counts["repetitive"] += 1
        else:
            _one(number, conversations[number], collector, out, done)
        on_done(1)
    return done


def _one(
    number: int, messages: Sequence[Message], collector: Collector, out: Path, done: Collected
) -> None:
    try:
        made, repeating = collector.collect(number, messages)
    except (NfoxError, torch.OutOfMemoryError) as error:
        done.counts["failed"] += 1
        done.reason = error.message if isinstance(error, NfoxError) else "out of memory"
        return
    done.counts["kept"] += bool(made)
    done.counts["cut"] += bool(made) and repeating
    done.counts["repetitive"] += not made
    done.counts["trajectories"] += len(made)
    # The last line has the name of the whole: where it stands, so do the others.
    names = [*(f"{number}/{index}" for index in range(len(made) - 1)), str(number)]
    lines = [
        json.dumps({"id": name, **one.record()}) for name, one in zip(names, made, strict=False)
    ]
    if lines:
        append(out, "\n".join(lines) + "\n")
    else:
        add_lineless(out, str(number))


def finished(out: Path) -> set[str]:
    """Return which conversations a file has; drop the blocks of those not written to their end.

    These stand in the middle, where another process went on behind one that was killed.

    Raises:
        UsageError: if it is not an output of ours.
    """
    known = finished_ids(out)
    whole = {name for name in known if "/" not in name}
    if {name.partition("/")[0] for name in known} - whole:
        with out.open(encoding="utf-8") as lines:
            kept = [line for line in lines if json.loads(line)["id"].partition("/")[0] in whole]
        write_text(out.resolve(), "".join(kept))  # a link stays one
    return whole
