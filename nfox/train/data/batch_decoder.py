"""Many prompts decoded at once by a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfox.decoding.tree import TokenTree
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
    """Decodes batches: all of a batch in one forward for each token.

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
            if self.target.is_native:
                return [self._until_stop(ids) for ids in self._continue(prompts)]
            return self._generate(prompts)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                return [None]
            half = len(prompts) // 2
            return self.decode(prompts[:half]) + self.decode(prompts[half:])

    @torch.inference_mode()
    def _continue(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the tokens that follow each prompt, up to the one that stops it."""
        caches = [self.target.new_cache() for _ in prompts]
        for prompt, cache in zip(prompts, caches, strict=True):
            self.target.read(prompt[:-1], cache)
        continued = [[prompt[-1]] for prompt in prompts]  # the last token is the first root
        for _ in range(self.max_new_tokens):
            open_ones = [
                (ids, cache)
                for ids, cache in zip(continued, caches, strict=True)
                if len(ids) == 1 or ids[-1] not in self.stop_ids
            ]
            if not open_ones:
                break
            roots = [(TokenTree.chain(ids[-1]), cache) for ids, cache in open_ones]
            logits, hidden = self.target.score_batch(roots)
            chosen = self._choose(logits).tolist()
            for row, (ids, cache) in enumerate(open_ones):
                cache.extend(ids[-1:], hidden[row : row + 1])
                ids.append(chosen[row])
        return [ids[1:] for ids in continued]

    def _choose(self, logits: Tensor) -> Tensor:
        """Return the next token [B] of logits [B, V]."""
        if not self.temperature:
            return logits.argmax(-1)
        return torch.multinomial((logits / self.temperature).softmax(-1), 1)[:, 0]

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
