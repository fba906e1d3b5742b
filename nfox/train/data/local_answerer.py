"""Answers to the questions of a dataset from a model in this process."""

from __future__ import annotations

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
from nfox.train.data.answerer import EMPTY_REPLY, Answerer, Answers


@dataclass
class LocalAnswerer(Answerer):
    """Answers by batches that a model in this process decodes, by transformers' `generate`.

    Args:
        model: the target.
        template: the template that renders the conversations.
        max_new_tokens: the maximum number of tokens of a reply.
        temperature: the sampling temperature; 0 takes the likeliest token.

    Raises:
        UsageError: if a reply of `max_new_tokens` leaves no room for a question in the context.
    """

    model: LoadedModel
    template: Template
    max_new_tokens: int = 512
    temperature: float = 0.0
    _stop_ids: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        context = self.model.target.max_context
        if self.max_new_tokens >= context:
            raise UsageError(
                f"--max-new-tokens {self.max_new_tokens} leaves no room for a question: "
                f"{self.model.name} has a context of {context} tokens",
                "choose a smaller --max-new-tokens",
            )
        self._stop_ids = stop_ids_of(self.model, self.template)

    @override
    def answer(self, conversations: Sequence[Sequence[Message]]) -> Answers:
        prompts = [self._prompt(messages) for messages in conversations]
        replies = iter(self._decode([ids for ids in prompts if not isinstance(ids, str)]))
        return [ids if isinstance(ids, str) else self._message(next(replies)) for ids in prompts]

    def _prompt(self, messages: Sequence[Message]) -> list[int] | str:
        """Return the token ids of a prompt, or a line that says why it cannot be answered."""
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
        """Return the token ids of each reply, None where memory was lacking even for it alone.

        A batch too large for the memory is halved.
        """
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
        """Return the token ids of each reply, without the stop token."""
        target, stops = self.model.target, sorted(self._stop_ids)
        width = max(map(len, prompts))
        pad = stops[0] if stops else 0
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        sampling: dict[str, Any] = {"do_sample": self.temperature > 0}
        if self.temperature > 0:
            sampling |= {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        rows = target.model.generate(
            input_ids=ids.to(target.device),
            attention_mask=mask.to(target.device),
            max_new_tokens=self.max_new_tokens,
            eos_token_id=stops or None,
            pad_token_id=pad,
            **sampling,
        )
        # The decoder of an encoder-decoder model starts with one token, not with the prompt.
        start = 1 if target.is_encoder_decoder else width
        return [self._until_stop(row) for row in rows[:, start:].tolist()]

    def _until_stop(self, ids: list[int]) -> list[int]:
        """Return the token ids before the first stop token."""
        stops = (position for position, token in enumerate(ids) if token in self._stop_ids)
        return ids[: next(stops, len(ids))]

    def _message(self, ids: list[int] | None) -> Message | str:
        """Return the reply of some token ids, or a line that says why there is none.

        Args:
            ids: the token ids; None where memory was lacking.
        """
        if ids is None:
            return "out of memory"
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in self.template.stop_strings if stop in text]
        content = text[: min(cuts)].strip() if cuts else text.strip()
        if not content:
            return EMPTY_REPLY
        return Message("assistant", content, None if cuts else tuple(ids))
