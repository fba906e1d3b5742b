"""Chimera: a small layer fakes the target's next hidden states, and heads read the tokens off them.

Zeng et al. 2024 (arXiv 2402.15758). The layer attends to the target's own hidden states and asks
with the last three tokens. So, unlike Medusa's, the first head knows the root, and each later one
what the head before it drafted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.target import Target
from nfox.drafters.common.heads import Guesses, HeadsDrafter
from nfox.heads.attention import Layer, Memory, Norm, attend
from nfox.heads.base import (
    IGNORE,
    Heads,
    HeadsConfig,
    Text,
    accuracies,
    cross_entropy,
    labelled,
    state_scale,
)
from nfox.heads.trigrams import TrigramEncoder, windows

_GRAMS = 16384  # trigrams whose encoding is kept


class ChimeraConfig(HeadsConfig):
    """See `HeadsConfig`. A size of 0 is chosen by the hidden size.

    Args:
        num_layers: of the context encoder; there is one.
        trigram: ask with the last three tokens, else with the last one only.
        rank: of the trigram encoder's matrix A and of the heads' bodies; three times the hidden
            size makes A full, as published.
        head_dim: of the context encoder's attention; even.
        num_attention_heads: of the context encoder.
        intermediate_size: of the context encoder's MLP.
        rope_theta: base of its rotary positions.
        own_vocabulary: each head is a matrix onto the vocabulary, as published, else a small body
            before the base's LM head.
        ce: weight of the cross-entropy of every head.
        hidden_loss: weight of the distance between the first faked state and the true one.
        logit_loss: weight of the first head's divergence from the base's own distribution.
    """

    num_layers: int = Field(1, ge=1, le=1)
    trigram: bool = True
    rank: int = Field(0, ge=0)
    head_dim: int = Field(64, ge=2, multiple_of=2)
    num_attention_heads: int = Field(0, ge=0)
    intermediate_size: int = Field(0, ge=0)
    rope_theta: float = Field(10000.0, gt=0, allow_inf_nan=False)
    own_vocabulary: bool = False
    ce: float = Field(1.0, ge=0, allow_inf_nan=False)
    hidden_loss: float = Field(0.5, ge=0, allow_inf_nan=False)
    logit_loss: float = Field(0.5, ge=0, allow_inf_nan=False)

    @override
    def model_post_init(self, context: Any) -> None:
        """Choose what was left open."""
        self.rank = self.rank or max(self.hidden_size // 6, 1)
        self.num_attention_heads = self.num_attention_heads or max(self.hidden_size // 64, 1)
        self.intermediate_size = self.intermediate_size or self.hidden_size


class ChimeraHeads(Heads):
    """Trigram encoder, context encoder, and K heads.

    At place t of a text the first hop asks at position t + 1 with the trigram that the root ends,
    and sees the states up to t. Hop k asks at t + k with the tokens drafted so far, and also sees
    the states faked by the hops before it, of its own place only: as in drafting.
    """

    Config = ChimeraConfig
    config: ChimeraConfig

    def __init__(self, config: ChimeraConfig) -> None:
        super().__init__(config)
        size, count = config.hidden_size, 3 if config.trigram else 1
        self.grams = TrigramEncoder(size, count, config.rank)
        sizes = (config.num_attention_heads, config.head_dim, config.intermediate_size)
        self.encoder = Layer(size, *sizes, config.rope_theta)
        self.norm = Norm(size)
        self.heads = nn.ModuleList(self._head() for _ in range(config.num_heads))

    def _head(self) -> nn.Module:
        """Return a matrix onto the vocabulary, or a body that adds nothing at first."""
        size, rank = self.config.hidden_size, self.config.rank
        if self.config.own_vocabulary:
            return nn.Linear(2 * size, self.config.vocab_size, bias=False)
        last = nn.Linear(rank, size, bias=False)
        nn.init.zeros_(last.weight)
        return nn.Sequential(nn.Linear(2 * size, rank, bias=False), nn.SiLU(), last)

    @override
    def start(self, target: Target) -> None:
        """Freeze the base, fake states of its scale, and start matrices from its LM head."""
        target.freeze()
        self.norm.weight.data.copy_(state_scale(target))
        if self.config.own_vocabulary:
            one_each = torch.eye(self.config.hidden_size, dtype=target.dtype)
            rows = target.unembed(one_each.to(target.output_device)).T
            for weight in self.heads.parameters():
                weight.data.copy_(torch.cat([rows, rows], dim=1))

    def logits(self, hop: int, hidden: Tensor, faked: Tensor, target: Target) -> Tensor:
        """Return [..., V] of a head (the first is 0) from the last true state and a faked one."""
        made: Tensor = self.heads[hop](torch.cat([hidden, faked], dim=-1))
        return made if self.config.own_vocabulary else target.unembed(faked + made)

    def hops(
        self, text: Text, target: Target, places: Tensor, real: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield [B, P, D] faked states and [n, V] logits of one head after the other.

        Args:
            text: what the target has read; the token after each place is its root.
            target: frozen.
            places: [B, P] in the texts.
            real: [B, P] bool, the n of them that are wanted.
        """
        length, encoder = text.ids.shape[1], self.encoder
        rows = torch.arange(len(places), device=places.device)[:, None]
        window, true = windows(text.ids)[rows, places], text.hidden[rows, places][real]
        turns = encoder.turns(length + self.config.num_heads)
        _, *past = encoder.project(text.hidden, turns[:, :length])
        own: list[Sequence[Tensor]] = []  # keys and values of each place's own drafts
        for hop in range(1, self.config.num_heads + 1):
            asked, here = self.grams(window, target), turns[:, (places + hop)[:, None]]
            query, *asking = encoder.project(asked, here)
            column = [torch.stack(states, dim=-2) for states in zip(*own, asking, strict=True)]
            found = attend(query[..., None, :], places[:, None], past, column)
            faked = self.norm(encoder.finish(asked, found))
            logits = self.logits(hop - 1, true, faked[real], target)
            yield faked, logits
            if hop == self.config.num_heads:
                return
            drafted = torch.zeros_like(places)
            drafted[real] = logits.detach().argmax(-1)
            window = torch.cat([window[..., 1:], drafted[..., None]], dim=-1)
            own.append(encoder.project(faked.detach(), here)[1:])

    @override
    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of every head, and for the first hop the distance to the
        base's next state and to its distribution. Numbers with `base` in their name compare with
        the base's own choice, the others with the data, whatever is learned.
        """
        wanted = torch.stack([text.ahead(k + 2) for k in range(self.config.num_heads)], dim=-1)
        known = wanted[..., 0] != IGNORE
        places, real = labelled((wanted != IGNORE).any(-1))
        rows = torch.arange(len(places), device=places.device)[:, None]
        with torch.no_grad():
            true = text.hidden.roll(-1, 1)[known]
            base = target.unembed(true)
            chosen = torch.full_like(text.labels, IGNORE)
            chosen[known] = base.argmax(-1)
        own, data = Text(text.ids, text.hidden, chosen), text.compared()[""]
        wanted, first = wanted[rows, places][real], known[rows, places][real]
        total, numbers = text.hidden.new_zeros(()), {}
        for k, (faked, logits) in enumerate(self.hops(text, target, places, real)):
            one, name = cross_entropy(logits, wanted[:, k]), f"head{k + 1}"
            total = total + self.config.ce * one
            numbers[f"{name}_loss"] = float(one.detach())
            said = {name: data.ahead(k + 2), f"{name}_base": own.ahead(k)}
            right = {about: labels[rows, places][real] for about, labels in said.items()}
            numbers |= accuracies(logits, right)
            if k == 0:
                near = _distance(faked[real][first], true)
                alike = _divergence(logits[first], base)
                total = total + self.config.hidden_loss * near + self.config.logit_loss * alike
                numbers["hidden_loss"] = float(near.detach())
                numbers["logit_loss"] = float(alike.detach())
        return total, numbers

    @override
    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        places, real = labelled(torch.ones_like(text.ids, dtype=torch.bool))
        made = [
            logits.topk(width).indices.view(*text.ids.shape, width)
            for _, logits in self.hops(text, target, places, real)
        ]
        return torch.stack(made, dim=2)


def _distance(faked: Tensor, true: Tensor) -> Tensor:
    """Return the smooth L1 distance of [n, D] states, in units of the true ones' size."""
    faked, true = faked.float(), true.float()  # squares may not fit into 16 bit
    size = true.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
    total = functional.smooth_l1_loss(faked / size, true / size, reduction="sum")
    return total / max(true.numel(), 1)


def _divergence(logits: Tensor, base: Tensor) -> Tensor:
    """Return the mean KL divergence of [n, V] logits from the base's."""
    said, meant = logits.float().log_softmax(-1), base.float().log_softmax(-1)
    total = functional.kl_div(said, meant, reduction="sum", log_target=True)
    return total / max(len(base), 1)


class Chimera(HeadsDrafter):
    """Propose the likeliest tokens of every head, as a tree; each hop goes on from the best.

    The layer remembers the target's states from step to step; a trigram met again is not encoded
    again.
    """

    summary = "a layer fakes the next hidden states, and each head knows the draft so far (Chimera)"
    needs = "trained heads: --heads, or <model>/nfox/chimera/"
    rank = 30
    heads_class = ChimeraHeads
    # No accuracies were published. These lie between Medusa's and those of a draft model.
    prior_accuracy = tuple(
        (top, *(0.2 / 2**rank for rank in range(1, 10))) for top in (0.65, 0.5, 0.4, 0.3)
    )

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.gram = lru_cache(maxsize=_GRAMS)(self._gram)
        self.memory = Memory()

    @override
    @torch.inference_mode()
    def guess(self, context: Context, width: int) -> Guesses:
        heads, layers, tokens = self.heads, [self.heads.encoder], context.tokens
        rows = self.memory.catch_up(layers, context.cache)
        true = rows[-1:]
        deepest = 0 if self.budget else self.shape.depth  # of a fixed tree; 0 where not known
        depth = min(deepest or heads.config.num_heads, max(context.max_depth, 1))
        window = [*tokens[:1], *tokens[-2:], context.root][-3:]
        tries: list[list[int]] = []
        chances: list[list[float]] = []
        sure = 1.0
        for hop in range(depth):
            if hop and self.budget and sure < self.budget.min_chance:
                break  # nothing so deep would pay, or not the hop itself
            start = len(tokens) + hop - len(rows)
            rows = heads.norm(self.memory.ask(layers, rows, self.gram(*window), start))
            logits = heads.logits(hop, true, rows, self.target)
            found = Guesses.from_logits(logits, width)
            tries += found.tokens
            chances += found.probabilities
            sure *= chances[-1][0]
            window = [*window[1:], tries[-1][0]]
        self.memory.tokens += tokens[len(self.memory.tokens) :]
        return Guesses(tries, chances)

    @override
    def rewind(self, length: int) -> None:
        """The next proposal looks at all of the past, since other methods
        may have changed it meanwhile.
        """
        self.memory.truncate(length)

    def _gram(self, *window: int) -> Tensor:
        """Return the [1, D] encoding of three tokens; nothing else decides it."""
        made: Tensor = self.heads.grams(torch.tensor([window]), self.target)
        return made


METHOD = Chimera
