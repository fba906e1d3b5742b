"""A draft model learns to say what its target would say, the whole distribution of it.

What it is for says how good it is: of the tokens it drafts, the target accepts sum_x min(p, q) on
average (Leviathan et al. 2023, arXiv 2211.17192, theorem 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from nfox.errors import UsageError
from nfox.heads.base import IGNORE
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data import rows as plain
from nfox.train.learner import Batch, Learner

Divergence = Literal["forward", "reverse", "tv"]
"""KL(target || draft), KL(draft || target), or the total variation, which is 1 - alpha."""


@dataclass(frozen=True)
class Distillation:
    """What a draft model learns by.

    Args:
        divergence: from the target's distribution.
        first_choice: what the cross-entropy with the target's likeliest token counts beside it.
        kept: so many of the target's first choices at each place are kept, all others as one, and
            later passes over the texts need no target; 0 asks it anew every time, for all.

    Raises:
        UsageError: if there are no such.
    """

    divergence: Divergence = "forward"
    first_choice: float = 0.0
    kept: int = 0

    def __post_init__(self) -> None:
        if self.divergence not in get_args(Divergence):
            known = ", ".join(get_args(Divergence))
            raise UsageError(f"no divergence {self.divergence}", f"expected {known}")
        if self.first_choice < 0 or self.kept < 0:
            raise UsageError("the weight of the first choice and the kept ones are 0 or above")


class Choices(NamedTuple):
    """What a target says at places of a text.

    Args:
        tokens: [n, K] its first choices, the likeliest first; [n, 0] where all tokens are told.
        chances: [n, K + 1] log-probabilities of these and of all others together, or [n, V].
    """

    tokens: Tensor
    chances: Tensor


def divergence(p: Tensor, q: Tensor, kind: Divergence) -> Tensor:
    """Return [n] how far distributions are from each other.

    Args:
        p: [n, outcomes] log-probabilities of the target.
        q: the same of the draft model.
        kind: see `Divergence`.
    """
    if kind == "tv":
        return (p.exp() - q.exp()).abs().sum(-1) / 2
    first, second = (p, q) if kind == "forward" else (q, p)
    return (first.exp() * (first - second)).sum(-1)


def outcomes(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return log-probabilities of all tokens [n, V]; of some and of all others [n, K + 1].

    Args:
        logits: [n, V].
        tokens: [n, K]; [n, 0] for all.
    """
    if not tokens.shape[-1]:
        return logits.log_softmax(-1)
    whole = logits.logsumexp(-1, keepdim=True)
    others = logits.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    least = torch.finfo(torch.float16).min  # what is not there at all, as it is kept
    return torch.cat([logits.gather(-1, tokens) - whole, (others - whole).clamp_min(least)], -1)


class Numbered(Dataset[dict[str, Any]]):
    """Rows that know their number.

    Args:
        rows: of tokens.
    """

    def __init__(self, rows: plain.Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._rows[index], "number": index}

    @property
    def tokens(self) -> int | None:
        """The number of different tokens, where that is known."""
        return self._rows.tokens


def collate(rows: Sequence[dict[str, Any]]) -> Batch:
    """Return what `nfox.train.data.rows.collate` does, and `number` [B]."""
    return {**plain.collate(rows), "number": torch.tensor([row["number"] for row in rows])}


class DraftLearner(Learner):
    """A draft model, whose weights are the parameters, and its target, which is frozen.

    Args:
        draft: the draft model, float32 or wider.
        target: that it is to foretell.
        how: it learns.
    """

    collate = staticmethod(collate)

    def __init__(
        self, draft: TransformersTarget, target: TransformersTarget, how: Distillation
    ) -> None:
        super().__init__(target, target.dtype)
        target.model.requires_grad_(False)
        self.student = draft
        self.how = how
        self.common = min(draft.vocabulary_size, target.vocabulary_size)
        # The weights alone, each once: embeddings may be the LM head too.
        self.draft = nn.ParameterList(draft.model.parameters())
        self._known: dict[int, Choices] = {}

    @override
    def train(self, mode: bool = True) -> DraftLearner:
        """The draft model's dropout follows."""
        super().train(mode)
        self.student.model.train(mode)
        return self

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Compute activations twice instead of keeping them; see `TrainingArguments`."""
        self.student.model.activation_checkpointing_enable(**options)

    @override
    def places(self, inputs: Batch) -> int:
        """Tokens that are learned."""
        return int((inputs["labels"][:, 1:] != IGNORE).sum())

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, number: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, a mean over the places before labels, and numbers to log.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 0 where padded.
            labels: [B, T], IGNORE where nothing is learned.
            number: [B] of the texts, which names them among those whose choices are kept.
        """
        learned = labels != IGNORE
        learned[:, 0] = False
        before = learned.roll(-1, 1)
        said = self._choices(input_ids, before, number)
        with self.rounding():
            hidden = self.student.hidden_states(input_ids, gradient=True)
            logits = self.student.unembed(hidden[before])[:, : self.common]
            p, q = said.chances.to(logits.dtype), outcomes(logits, said.tokens)
        loss = divergence(p, q, self.how.divergence)
        first = p[:, : said.tokens.shape[1] or None].argmax(-1)
        if self.how.first_choice:
            loss = loss - self.how.first_choice * q.gather(-1, first[:, None])[:, 0]
        mean = loss.sum() / max(len(loss), 1)
        return mean, _numbers(p, q.detach(), first, logits.detach(), said.tokens)

    def _choices(self, ids: Tensor, before: Tensor, number: Tensor) -> Choices:
        """Return what the target says at some places of texts, from memory where it was kept."""
        if not (self.how.kept and self.training):
            return self._asked(ids, before, 0)
        count = min(self.how.kept, self.common - 1)
        numbers = number.tolist()
        missing = [i for i, name in enumerate(numbers) if name not in self._known]
        if missing:
            found = self._asked(ids[missing], before[missing], count)
            sizes = before[missing].sum(1).tolist()
            small = torch.int16 if self.common <= 1 << 15 else torch.int32
            parts = [
                torch.split(found.tokens.to("cpu", small), sizes),
                torch.split(found.chances.to("cpu", torch.float16), sizes),
            ]
            for i, *own in zip(missing, *parts, strict=True):
                self._known[numbers[i]] = Choices(*(part.clone() for part in own))
        kept = [self._known[name] for name in numbers]
        tokens = torch.cat([choices.tokens for choices in kept])
        chances = torch.cat([choices.chances.float() for choices in kept])
        return Choices(tokens.long().to(ids.device), chances.to(ids.device))

    @torch.no_grad()
    def _asked(self, ids: Tensor, before: Tensor, count: int) -> Choices:
        """Ask the target; for `count` of its first choices, 0 for all."""
        with torch.autocast(self.target.output_device.type, enabled=False):  # as it will be
            hidden = self.target.hidden_states(ids)
            logits = self.target.unembed(hidden[before.to(hidden.device)])
        logits = logits[:, : self.common].to(ids.device)
        tokens = logits.topk(count).indices
        return Choices(tokens, outcomes(logits, tokens))


@torch.no_grad()
def _numbers(
    p: Tensor, q: Tensor, first: Tensor, logits: Tensor, tokens: Tensor
) -> dict[str, float]:
    """Return how often drafts are accepted; with kept choices the first is an upper bound."""
    count = max(len(p), 1)
    wanted = tokens.gather(-1, first[:, None])[:, 0] if tokens.shape[-1] else first
    accepted = torch.minimum(p.exp(), q.exp()).sum()
    agreed = (logits.argmax(-1) == wanted).sum()
    return {"alpha": float(accepted) / count, "agreement": float(agreed) / count}
