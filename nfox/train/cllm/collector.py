"""The maker of Jacobi trajectories: the model itself answers a question block by block.

The published program computes the whole text again in every iteration; here the KV cache keeps
the accepted tokens. As there, only the first question of a conversation is answered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nfox.decoding.generate import Limits, Prompt
from nfox.errors import ContextError, ModelError, NfoxError
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.text.messages import Message
from nfox.text.template import Template
from nfox.train.cllm.blocks import blocks
from nfox.train.cllm.trajectories import Trajectory, first_question, repeats


def augmented(states: Sequence[Sequence[int]], numbers: random.Random) -> list[list[int]]:
    """Return states between those of an iteration and its fixed point.

    For each state but the last two there is one with half of its wrong tokens corrected, at
    positions drawn with replacement, of which the first wrong one is none. A state with a single
    wrong token gives none. Kou et al. 2024 (CLLM, arXiv 2403.00835).

    Args:
        states: the states of a block, the fixed point last.
        numbers: the random numbers.
    """
    states_between: list[list[int]] = []
    final = states[-1]
    for state in states[:-2]:
        wrong = [i for i, token in enumerate(state) if token != final[i]]
        if len(wrong) > 1:
            corrected = set(numbers.choices(wrong[1:], k=len(wrong) // 2))
            states_between.append(
                [final[i] if i in corrected else token for i, token in enumerate(state)]
            )
    return states_between


@dataclass(frozen=True)
class Collector:
    """Makes the trajectories of one conversation at a time.

    Args:
        model: the target.
        template: the template that renders questions.
        n: the number of tokens of a block.
        max_new_seq_len: the number of answer tokens after which no further block is begun.
        augment: add states between those of the iteration, see `augmented`.
        labels: keep the dataset's own answers.
        max_context: the maximum number of positions; by default the model's own.

    Raises:
        ModelError: if the model has an encoder.
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
        """Return the trajectories of the answer to a conversation's first question.

        Args:
            number: the index of the conversation, which seeds the random numbers.
            messages: the conversation.

        Returns:
            One trajectory for each block up to where the answer ends, and whether it was cut there
            because it repeats one token.

        Raises:
            ContextError: if not even one block fits into the context.
            NfoxError: if the template refuses the conversation.
        """
        target, stops = self.model.target, stop_ids_of(self.model, self.template)
        prompt = self.template.encode(self.model.tokenizer, first_question(messages))
        length = len(prompt)
        labels = self._labels(messages) if self.labels else None
        count = self._max_blocks(length)
        limits = Limits(count * self.n, self.max_context, stops)
        decoded = blocks(target, Prompt(tuple(prompt)), self.n, limits, seed=number)
        text, trajectories, repeating = list(prompt), list[Trajectory](), False
        for index, block in enumerate(decoded):
            extended = [*text, *block.tokens]
            if repeating := repeats(extended[length:], stops):
                break
            numbers = random.Random(f"{number}/{index}")
            front = augmented(block.states, numbers) if self.augment else []
            states = [*front, *block.states]
            trajectories.append(
                Trajectory(f"data_{number}", index, length, text, states, (), labels, len(front))
            )
            text = extended
        return [replace(trajectory, complete=text) for trajectory in trajectories], repeating

    def _max_blocks(self, question_length: int) -> int:
        """Return the maximum number of blocks of an answer.

        Raises:
            ContextError: if not even one block fits into the context.
        """
        context = min(self.max_context or 1 << 62, self.model.target.max_context)
        fitting = (context - question_length) // self.n
        if fitting < 1:
            raise ContextError(
                f"{question_length} tokens and a block of {self.n}: {context} is the context"
            )
        return min(-(-self.max_new_seq_len // self.n), fitting)

    def _labels(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of the first question and its answer, with the stop token.

        Raises:
            NfoxError: if the answer is not to be learned.
        """
        opening = first_question(messages)
        answered = [*opening, messages[len(opening)]]
        if not answered[-1].supervised:
            raise NfoxError("the dataset's answer has a weight of 0, so it is no label")
        ids, learned = self.template.encode_supervised(self.model.tokenizer, answered)
        return ids[: max(position for position, flag in enumerate(learned) if flag) + 1]
