"""Many prompts decoded at once by a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nfox.models.transformers_target import TransformersTarget


@dataclass(frozen=True)
class Decoded:
    """The tokens that follow a prompt.

    Args:
        ids: the token ids, without the one that stopped them.
        ended: whether a stop token ended them, not the limit.
    """

    ids: list[int]
    ended: bool


@dataclass(frozen=True)
class BatchDecoder:
    """Decodes batches by transformers' `generate`.

    Args:
        target: the model.
        stop_ids: the ids of the tokens that end a text.
        max_new_tokens: the maximum number of new tokens of a text.
        temperature: the sampling temperature; 0 takes the likeliest token.
    """

    target: TransformersTarget
    stop_ids: frozenset[int]
    max_new_tokens: int
    temperature: float = 0.0

    def decode(self, prompts: Sequence[Sequence[int]]) -> list[Decoded | None]:
        """Return what follows each prompt, None where memory was lacking even for it alone.

        A batch too large for the memory is halved.

        Args:
            prompts: token ids, at least one each; for an encoder-decoder model the encoder's.
        """
        if not prompts:
            return []
        try:
            return self._generate(prompts)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                return [None]
            half = len(prompts) // 2
            return self.decode(prompts[:half]) + self.decode(prompts[half:])

    @torch.inference_mode()
    def _generate(self, prompts: Sequence[Sequence[int]]) -> list[Decoded | None]:
        target, stops = self.target, sorted(self.stop_ids)
        width = max(map(len, prompts))
        pad = stops[0] if stops else 0
        ids = torch.tensor([[pad] * (width - len(prompt)) + [*prompt] for prompt in prompts])
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

    def _until_stop(self, ids: list[int]) -> Decoded:
        stops = (position for position, token in enumerate(ids) if token in self.stop_ids)
        end = next(stops, len(ids))
        return Decoded(ids[:end], end < len(ids))
