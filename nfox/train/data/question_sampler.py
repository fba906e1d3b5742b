"""Questions that a chat model asks itself: what it writes where its template has a user speak.

Xu et al. 2024 (arXiv 2406.08464), Magpie: a chat model was trained on conversations, so after the
tokens that stand before a user's words it writes what a user would say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from nfox.errors import ModelError, UsageError
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.text.messages import Message
from nfox.text.template import HINT, Template
from nfox.train.data.batch_decoder import BatchDecoder

_PROBES = ("How", "what", "1", "?", "ä", "天")
"""Questions that share no first token: what their conversations begin with is the template's."""


@dataclass
class QuestionSampler:
    """Samples the first questions of conversations from a model.

    Args:
        model: the target.
        template: its conversation template.
        max_new_tokens: the maximum number of tokens of a question; a longer one is dropped.
        temperature: the sampling temperature, above 0.
        max_context: the maximum number of positions; by default the model's own.

    Raises:
        ModelError: if nothing stands before a user's words, so that nothing says whose turn it is.
    """

    model: LoadedModel
    template: Template
    max_new_tokens: int = 128
    temperature: float = 1.0
    max_context: int | None = None
    opening: list[int] = field(init=False)
    _mark: str = field(init=False)
    _decoder: BatchDecoder = field(init=False)

    def __post_init__(self) -> None:
        name, target = self.model.name, self.model.target
        if target.is_encoder_decoder:
            raise ModelError(
                f"{name} is an encoder-decoder model, which writes no questions",
                "let it answer those of a dataset: nfox data distill --data FILE",
            )
        self.opening = self._start_of(_PROBES)
        closing = _common_start([self._encode(probe)[::-1] for probe in _PROBES])[::-1]
        if not closing or self.opening in ([], [self.model.tokenizer.bos_token_id]):
            raise ModelError(
                f"{name}: the template {self.template.name} has nothing before a user's words by "
                "which the model would know that it is to ask",
                HINT,
            )
        stops = stop_ids_of(self.model, self.template)
        if closing[0] in self.model.tokenizer.get_added_vocab().values():
            stops |= {closing[0]}
        self._mark = self.model.tokenizer.decode(closing, skip_special_tokens=True).strip()
        room = min(self.max_context or target.max_context, target.max_context) - len(self.opening)
        length = max(1, min(self.max_new_tokens, room))
        self._decoder = BatchDecoder(target, stops, length, self.temperature)

    def _start_of(self, questions: Iterable[str]) -> list[int]:
        """Return the tokens that conversations with these questions begin with."""
        start = _common_start([self._encode(question) for question in questions])
        # Tokenizers put a space into the same token as the word behind it.
        return start[:-1] if self.model.tokenizer.decode(start[-1:]) == " " else start

    def _encode(self, question: str) -> list[int]:
        return self.template.encode(self.model.tokenizer, [Message("user", question)])

    def sample(self, beginnings: Sequence[str], seed: int) -> list[str | None]:
        """Return a question for each beginning, None in the place of each that did not end.

        Args:
            beginnings: what the questions begin with, "" for nothing; they are decoded as one
                batch.
            seed: of the noise.

        Raises:
            UsageError: if a beginning is as long as a question may be.
        """
        prompts = [self._begin(beginning) for beginning in beginnings]
        begun = max(map(len, prompts)) - len(self.opening)
        room = self._decoder.max_new_tokens - begun
        if room < 1:
            raise UsageError(
                f"a beginning has {begun} tokens, a question {begun + room} at most",
                "shorten it, or allow longer questions",
            )
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            decoded = replace(self._decoder, max_new_tokens=room).decode(prompts)
        questions: list[str | None] = []
        for prompt, question in zip(prompts, decoded, strict=True):
            if question is None:
                raise ModelError("out of memory for a single question", "choose a smaller model")
            ids = [*prompt[len(self.opening) :], *question.ids]
            text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
            text, mark, _ = text.partition(self._mark) if self._mark else (text, "", "")
            questions.append(text.strip() if question.ended or mark else None)
        return questions

    def _begin(self, beginning: str) -> list[int]:
        """Return the tokens of a conversation up to the end of a question's beginning."""
        if not beginning:
            return self.opening
        return self._start_of(f"{beginning} {probe}" for probe in _PROBES)


def _common_start(texts: list[list[int]]) -> list[int]:
    """Return the tokens that all texts begin with."""
    same = [len(set(tokens)) == 1 for tokens in zip(*texts, strict=False)]
    return texts[0][: ([*same, False]).index(False)]
