"""The learner of a draft model, which is trained to predict its target's distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from nfox.heads.base import IGNORE
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.numbered_rows import collate
from nfox.train.draft.distillation import (
    Distillation,
    TargetDistribution,
    coarse_log_probs,
    divergence,
)
from nfox.train.learner import Batch, Learner


class DraftLearner(Learner):
    """A learner whose parameters are those of the draft model; the target is frozen.

    Args:
        draft: the draft model, float32 or wider.
        target: the model whose distributions it learns.
        distillation: the settings of the loss.
    """

    collate = staticmethod(collate)

    def __init__(
        self, draft: TransformersTarget, target: TransformersTarget, distillation: Distillation
    ) -> None:
        super().__init__(target, target.dtype)
        target.model.requires_grad_(False)
        self.student = draft
        self.distillation = distillation
        self.shared_vocabulary = min(draft.vocabulary_size, target.vocabulary_size)
        # The weights alone, each once: embeddings may be the LM head too.
        self.draft = nn.ParameterList(draft.model.parameters())
        self._cache: dict[int, TargetDistribution] = {}

    @override
    def train(self, mode: bool = True) -> DraftLearner:
        """Set the mode of the learner and of the draft model, which has dropout."""
        super().train(mode)
        self.student.model.train(mode)
        return self

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the draft model's activations in the backward pass instead of keeping them.

        Args:
            options: transformers' `TrainingArguments.activation_checkpointing_kwargs`.
        """
        self.student.model.activation_checkpointing_enable(**options)

    @override
    def label_count(self, inputs: Batch) -> int:
        return int((inputs["labels"][:, 1:] != IGNORE).sum())

    @override
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, number: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, a mean over the positions before labels, and numbers to log.

        Args:
            input_ids: [B, T] token ids, padded on the right.
            attention_mask: [B, T], 0 where padded.
            labels: [B, T] the token ids that are learned, IGNORE elsewhere.
            number: [B] the indices of the rows, by which the target's distributions are cached.
        """
        learned = labels != IGNORE
        learned[:, 0] = False
        predicting = learned.roll(-1, 1)  # the positions whose next token is learned
        teacher = self._target_distribution(input_ids, predicting, number)
        with self.autocast():
            hidden = self.student.hidden_states(input_ids, gradient=True)
            logits = self.student.unembed(hidden[predicting])[:, : self.shared_vocabulary]
            p = teacher.log_probs.to(logits.dtype)
            q = coarse_log_probs(logits, teacher.tokens)
        loss = divergence(p, q, self.distillation.divergence)
        top1 = p[:, : teacher.tokens.shape[1] or None].argmax(-1)
        if self.distillation.top1_weight:
            loss = loss - self.distillation.top1_weight * q.gather(-1, top1[:, None])[:, 0]
        mean = loss.sum() / max(len(loss), 1)
        return mean, _acceptance(p, q.detach(), top1, logits.detach(), teacher.tokens)

    def _target_distribution(
        self, ids: Tensor, predicting: Tensor, number: Tensor
    ) -> TargetDistribution:
        """Return the target's distributions at n positions of a batch, from the cache where it is
        used.

        Args:
            ids: [B, T] token ids.
            predicting: [B, T] bool, n of them True.
            number: [B] the indices of the rows.
        """
        if not (self.distillation.cached_top_k and self.training):
            return self._compute_distribution(ids, predicting, 0)
        numbers = number.tolist()
        missing = [row for row, name in enumerate(numbers) if name not in self._cache]
        if missing:
            top_k = min(self.distillation.cached_top_k, self.shared_vocabulary - 1)
            computed = self._compute_distribution(ids[missing], predicting[missing], top_k)
            sizes = predicting[missing].sum(1).tolist()
            token_dtype = torch.int16 if self.shared_vocabulary <= 1 << 15 else torch.int32
            tokens = torch.split(computed.tokens.to("cpu", token_dtype), sizes)
            log_probs = torch.split(computed.log_probs.to("cpu", torch.float16), sizes)
            for row, *parts in zip(missing, tokens, log_probs, strict=True):
                self._cache[numbers[row]] = TargetDistribution(*(part.clone() for part in parts))
        cached = [self._cache[name] for name in numbers]
        return TargetDistribution(
            torch.cat([row.tokens for row in cached]).long().to(ids.device),
            torch.cat([row.log_probs.float() for row in cached]).to(ids.device),
        )

    @torch.no_grad()
    def _compute_distribution(
        self, ids: Tensor, predicting: Tensor, top_k: int
    ) -> TargetDistribution:
        """Compute the target's distributions, over the `top_k` likeliest tokens or, for 0, all."""
        # Without autocast, as the target computes when it serves.
        with torch.autocast(self.target.output_device.type, enabled=False):
            hidden = self.target.hidden_states(ids)
            logits = self.target.unembed(hidden[predicting.to(hidden.device)])
        logits = logits[:, : self.shared_vocabulary].to(ids.device)
        tokens = logits.topk(top_k).indices
        return TargetDistribution(tokens, coarse_log_probs(logits, tokens))


@torch.no_grad()
def _acceptance(
    p: Tensor, q: Tensor, top1: Tensor, logits: Tensor, tokens: Tensor
) -> dict[str, float]:
    """Return the shares of drafted tokens that the target accepts: "alpha" when both models sample,
    an upper bound where only the likeliest tokens are known, and "agreement" when both are greedy.

    Args:
        p: [n, outcomes] log-probabilities of the target.
        q: [n, outcomes] log-probabilities of the draft model.
        top1: [n] the target's likeliest outcome.
        logits: [n, V] logits of the draft model.
        tokens: [n, K] the token ids of the outcomes; [n, 0] where these are all tokens.
    """
    count = max(len(p), 1)
    target_tokens = tokens.gather(-1, top1[:, None])[:, 0] if tokens.shape[-1] else top1
    accepted = torch.minimum(p.exp(), q.exp()).sum()
    agreed = (logits.argmax(-1) == target_tokens).sum()
    return {"alpha": float(accepted) / count, "agreement": float(agreed) / count}
