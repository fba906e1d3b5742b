"""Who answers a dataset's questions: a model in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from typing_extensions import override

from nfox.errors import NfoxError, UsageError
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.text.messages import Message
from nfox.text.template import Template

Answers = list[Message | str]
"""One for each conversation; where it could not be answered, why, in one line."""

EMPTY = "the reply is empty"


class Answerer(ABC):
    """Whoever answers the last message of many conversations at once."""

    @abstractmethod
    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        """Return the reply to each, or why there is none."""


@dataclass
class Local(Answerer):
    """A model in this process; batches are decoded by transformers' generate.

    Args:
        model: the target.
        template: renders the conversations.
        max_new_tokens: of a reply.
        temperature: 0 takes the likeliest token.

    Raises:
        UsageError: if such a reply leaves no room for any question.
    """

    model: LoadedModel
    template: Template
    max_new_tokens: int = 512
    temperature: float = 0.0
    _ends: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        context = self.model.target.max_context
        if self.max_new_tokens >= context:
            raise UsageError(
                f"--max-new-tokens {self.max_new_tokens} leaves no room for a question: "
                f"{self.model.name} has a context of {context} tokens",
                "choose a smaller --max-new-tokens",
            )
        self._ends = stop_ids_of(self.model, self.template)

    @override
    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        """A batch too large for the memory is halved."""
        prompts = [self._prompt(messages) for messages in asked]
        decoded = iter(self._decode([ids for ids in prompts if not isinstance(ids, str)]))
        return [ids if isinstance(ids, str) else self._message(next(decoded)) for ids in prompts]

    def _prompt(self, messages: Sequence[Message]) -> list[int] | str:
        """Return the ids of a prompt, or why it cannot be asked."""
        try:
            ids: list[int] = (
                self.model.tokenizer(messages[-1].content).input_ids  # see `Engine`
                if self.model.target.is_encoder_decoder
                else self.template.encode(self.model.tokenizer, messages)
            )
        except NfoxError as error:
            return error.message
        context = self.model.target.max_context
        if len(ids) + self.max_new_tokens <= context:
            return ids
        return f"{len(ids)} tokens and {self.max_new_tokens} new ones: {context} is the context"

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
        )
        begin = (
            1 if target.is_encoder_decoder else width
        )  # a decoder of its own starts with one token
        return [self._until_end(row) for row in rows[:, begin:].tolist()]

    def _until_end(self, row: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(row) if token in self._ends), len(row))
        return row[:end]

    def _message(self, ids: list[int] | None) -> Message | str:
        """Return a reply, or why there is none; without ids memory was lacking."""
        if ids is None:
            return "out of memory"
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in self.template.stop_strings if stop in text]
        kept = text[: min(cuts)].strip() if cuts else text.strip()
        if not kept:
            return EMPTY
        return Message("assistant", kept, None if cuts else tuple(ids))
