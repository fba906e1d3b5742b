"""Answers to the questions of a dataset from a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from nfox.errors import NfoxError, UsageError
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.text.messages import Message
from nfox.text.template import Template
from nfox.train.data.answerer import EMPTY_REPLY, Answerer, Answers
from nfox.train.data.batch_decoder import BatchDecoder, Decoded


@dataclass
class LocalAnswerer(Answerer):
    """Answers by batches that a model in this process decodes, by transformers' `generate`.

    Args:
        model: the target.
        template: the template that renders the conversations.
        max_new_tokens: the maximum number of tokens of a reply.
        temperature: the sampling temperature; 0 takes the likeliest token.
        max_context: the maximum number of positions of a question and its reply; by default the
            model's own.

    Raises:
        UsageError: if a reply of `max_new_tokens` leaves no room for a question in the context.
    """

    model: LoadedModel
    template: Template
    max_new_tokens: int = 512
    temperature: float = 0.0
    max_context: int | None = None
    _context: int = field(init=False)
    _decoder: BatchDecoder = field(init=False)

    def __post_init__(self) -> None:
        own = self.model.target.max_context
        self._context = min(self.max_context or own, own)
        if self.max_new_tokens >= self._context:
            limited = self._context < own
            where = "--max-context is" if limited else f"{self.model.name} has a context of"
            raise UsageError(
                f"--max-new-tokens {self.max_new_tokens} leaves no room for a question: "
                f"{where} {self._context} tokens",
                "choose a smaller --max-new-tokens",
            )
        stops = stop_ids_of(self.model, self.template)
        self._decoder = BatchDecoder(
            self.model.target, stops, self.max_new_tokens, self.temperature
        )

    @override
    def answer(self, conversations: Sequence[Sequence[Message]]) -> Answers:
        prompts = [self._prompt(messages) for messages in conversations]
        replies = iter(self._decoder.decode([ids for ids in prompts if not isinstance(ids, str)]))
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
        if len(ids) + self.max_new_tokens <= self._context:
            return ids
        both = f"{len(ids)} tokens and {self.max_new_tokens} new ones"
        return f"{both}: {self._context} is the context"

    def _message(self, reply: Decoded | None) -> Message | str:
        """Return a reply as a message, or a line that says why there is none.

        Args:
            reply: its tokens; None where memory was lacking.
        """
        if reply is None:
            return "out of memory"
        text = self.model.tokenizer.decode(reply.ids, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in self.template.stop_strings if stop in text]
        content = text[: min(cuts)].strip() if cuts else text.strip()
        if not content:
            return EMPTY_REPLY
        return Message("assistant", content, None if cuts else tuple(reply.ids))
