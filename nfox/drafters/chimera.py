"""Chimera: a small layer fakes the target's next hidden states, and heads read the tokens off them.

Zeng et al. 2024 (arXiv 2402.15758). The layer attends to the target's own hidden states and asks
with the last three tokens. So, unlike Medusa's, the first head knows the root, and each later one
what the head before it drafted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from nfox.columns import ColumnLayer, Memory, attend
from nfox.drafters.base import Context
from nfox.heads import (
    IGNORE,
    Heads,
    HeadsConfig,
    HeadsDrafter,
    Text,
    accuracies,
    cross_entropy,
    state_scale,
)
from nfox.target import CHUNK, Target
from nfox.trees import Shape

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
    rope_theta: float = 10000.0
    own_vocabulary: bool = False
    ce: float = 1.0
    hidden_loss: float = 0.5
    logit_loss: float = 0.5

    def model_post_init(self, context: Any) -> None:
        """Choose what was left open."""
        self.rank = self.rank or max(self.hidden_size // 6, 1)
        self.num_attention_heads = self.num_attention_heads or max(self.hidden_size // 64, 1)
        self.intermediate_size = self.intermediate_size or self.hidden_size


class Grams(nn.Module):
    """M (u + SiLU(A u + b)), where u are the embeddings of the last tokens side by side.

    A is full or a product of two thin matrices, and 0 at first, like b. u is scaled to 1:
    embeddings of some models are a hundred times smaller than their hidden states.
    """

    def __init__(self, config: ChimeraConfig) -> None:
        super().__init__()
        self.count = 3 if config.trigram else 1
        size = self.count * config.hidden_size
        thin = config.rank < size
        inner = _zero(nn.Linear(config.rank if thin else size, size))
        down = nn.Linear(size, config.rank, bias=False)
        self.inner = nn.Sequential(down, inner) if thin else inner
        self.out = nn.Linear(size, config.hidden_size, bias=False)

    def forward(self, window: Tensor, target: Target) -> Tensor:
        """Return [..., D] for windows [..., 3] of tokens; the base's embeddings stay frozen."""
        with torch.no_grad():
            vectors = target.embed(window[..., -self.count :].to(target.device)).flatten(-2)
            scaled = functional.rms_norm(vectors, vectors.shape[-1:]).to(self.out.weight)
        made: Tensor = self.out(scaled + functional.silu(self.inner(scaled)))
        return made


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
        self.grams = Grams(config)
        self.encoder = ColumnLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.head_dim,
            config.intermediate_size,
            config.rope_theta,
        )
        both, made = 2 * config.hidden_size, [self._head() for _ in range(config.num_heads)]
        if config.own_vocabulary:
            made = [nn.Linear(both, config.vocab_size, bias=False) for _ in made]
        self.heads = nn.ModuleList(made)

    def _head(self) -> nn.Module:
        """Return a body that adds nothing at first."""
        size, rank = self.config.hidden_size, self.config.rank
        last = _zero(nn.Linear(rank, size, bias=False))
        return nn.Sequential(nn.Linear(2 * size, rank, bias=False), nn.SiLU(), last)

    def start(self, target: Target) -> None:
        """Freeze the base, fake states of its scale, and start matrices from its LM head."""
        target.model.requires_grad_(False)
        self.encoder.norm.weight.data.copy_(state_scale(target))
        if self.config.own_vocabulary:
            one_each = torch.eye(self.config.hidden_size, dtype=target.dtype)
            rows = target.unembed(one_each.to(target.last_device)).T
            for weight in self.heads.parameters():
                weight.data.copy_(torch.cat([rows, rows], dim=1))

    def logits(self, hop: int, hidden: Tensor, faked: Tensor, target: Target) -> Tensor:
        """Return [..., V] of a head (the first is 0) from the last true state and a faked one."""
        made: Tensor = self.heads[hop](torch.cat([hidden, faked], dim=-1))
        return made if self.config.own_vocabulary else target.unembed(faked + made)

    def hops(self, text: Text, target: Target, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield [B, T, D] faked states and [n, V] logits of one head after the other.

        Args:
            text: what the target has read; the token after each place is its root.
            target: frozen.
            wanted: [B, T] bool, the n places where logits are needed.
        """
        encoder, angles = self.encoder, self.encoder.angles
        places = torch.arange(text.ids.shape[1], device=text.hidden.device)
        window = _windows(text.ids)
        _, keys, values = encoder.project(text.hidden, angles(places))
        own: list[tuple[Tensor, Tensor]] = []  # keys and values of each place's own drafts
        for hop in range(1, self.config.num_heads + 1):
            rows = self.grams(window, target)
            query, *asking = encoder.project(rows, angles(places + hop))
            column = [torch.stack(states, dim=-2) for states in zip(*own, asking, strict=True)]
            faked = encoder.finish(rows, attend(query, keys, values, *column))
            logits = self.logits(hop - 1, text.hidden[wanted], faked[wanted], target)
            yield faked, logits
            if hop == self.config.num_heads:
                return
            drafted = torch.zeros_like(text.ids)
            drafted[wanted] = logits.detach().argmax(-1)
            window = torch.cat([window[..., 1:], drafted[..., None]], dim=-1)
            own.append(encoder.project(faked.detach(), angles(places + hop))[1:])

    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """See `Heads.loss`: cross-entropy of every head, and for the first hop the distance to the
        base's next state and to its distribution. Numbers with `base` in their name compare with
        the base's own choice instead of the labels.
        """
        wanted = [text.ahead(k + 2) for k in range(self.config.num_heads)]
        learned = (torch.stack(wanted) != IGNORE).any(0)
        first = wanted[0] != IGNORE
        with torch.no_grad():
            true = text.hidden.roll(-1, 1)[first]
            base = target.unembed(true)
            chosen = torch.full_like(text.labels, IGNORE)
            chosen[first] = base.argmax(-1)
        own = Text(text.ids, text.hidden, chosen)
        total, numbers = text.hidden.new_zeros(()), {}
        for k, (faked, logits) in enumerate(self.hops(text, target, learned)):
            one, name = cross_entropy(logits, wanted[k][learned]), f"head{k + 1}"
            total = total + self.config.ce * one
            numbers[f"{name}_loss"] = float(one.detach())
            numbers |= accuracies(name, logits, wanted[k][learned])
            numbers |= accuracies(f"{name}_base", logits, own.ahead(k)[learned])
            if k == 0:
                near = _distance(faked[first], true)
                alike = _divergence(logits[first[learned]], base)
                total = total + self.config.hidden_loss * near + self.config.logit_loss * alike
                numbers["hidden_loss"] = float(near.detach())
                numbers["logit_loss"] = float(alike.detach())
        return total, numbers

    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        """See `Heads.guesses`."""
        everywhere = torch.ones_like(text.ids, dtype=torch.bool)
        made = [
            logits.topk(width).indices.view(*text.ids.shape, width)
            for _, logits in self.hops(text, target, everywhere)
        ]
        return torch.stack(made, dim=2)


def _zero(layer: nn.Linear) -> nn.Linear:
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


def _windows(ids: Tensor) -> Tensor:
    """Return [B, T, 3] the tokens before, at and after each place of [B, T]; edges are repeated."""
    before = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)
    after = torch.cat([ids[:, 1:], ids[:, -1:]], dim=1)
    return torch.stack([before, ids, after], dim=-1)


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
    prior = tuple((top, *(0.2 / 2**rank for rank in range(1, 10))) for top in (0.65, 0.5, 0.4, 0.3))

    def __init__(self, target: Target, heads: Any, shape: Shape, name: str = "") -> None:
        super().__init__(target, heads, shape, name)
        self.gram = lru_cache(maxsize=_GRAMS)(self._gram)
        self.memory = Memory()

    @torch.inference_mode()
    def rows(self, context: Context, width: int) -> list[list[int]]:
        """See `HeadsDrafter.rows`."""
        start, length = self._catch_up(context), len(context.tokens)
        depth = min(self.shape.depth or self.heads.config.num_heads, max(context.room, 1))
        first, last, rows = start, context.hidden[-1:], context.hidden[start:]
        angles = self._angles(start, length + depth)
        window = [*context.tokens[:1], *context.tokens[-2:], context.root][-3:]
        guesses: list[list[int]] = []
        for hop in range(depth):
            turns = angles[:, start - first : length + hop + 1 - first]
            rows = self._hop(rows, self.gram(*window), start, turns)
            logits = self.heads.logits(hop, last, rows, self.target)
            guesses.append(logits[0].topk(width).indices.tolist())
            window, start = [*window[1:], guesses[-1][0]], length + hop
        self.memory.tokens += context.tokens[first:]
        return guesses

    def truncate(self, length: int) -> None:
        """See `Drafter.truncate`. The next proposal looks at all of the past, since other methods
        may have changed it meanwhile.
        """
        self.memory.doubt()

    def _catch_up(self, context: Context) -> int:
        """Read all but the last of what is missing; return how many tokens are remembered."""
        start, length = self.memory.agree(context.tokens, context.source), len(context.tokens)
        while length - start > CHUNK:  # it joins late
            end = start + CHUNK
            rows, angles = context.hidden[start:end], self._angles(start, end)
            _, keys, values = self.heads.encoder.project(rows[None], angles)
            self.memory.write(keys, values, start)
            self.memory.tokens += context.tokens[start:end]
            start = end
        return start

    def _hop(self, rows: Tensor, gram: Tensor, start: int, angles: Tensor) -> Tensor:
        """Return the [1, D] state faked in answer to a trigram.

        Args:
            rows: [R, D] states that stand at `start`, not yet in the memory.
            gram: [1, D] what is asked with; it stands after them.
            start: position.
            angles: of the R + 1 positions.
        """
        encoder: ColumnLayer = self.heads.encoder
        query, keys, values = encoder.project(torch.cat([rows, gram])[None], angles)
        keys, values = self.memory.write(keys, values, start)
        query = query[:, :, -1:].to(keys.dtype)
        attended = functional.scaled_dot_product_attention(query, keys, values)
        return encoder.finish(gram[None], attended.to(gram.dtype))[0]

    def _angles(self, start: int, end: int) -> Tensor:
        places = torch.arange(start, end, device=self.target.last_device)
        angles: Tensor = self.heads.encoder.angles(places)
        return angles

    def _gram(self, *window: int) -> Tensor:
        """Return the [1, D] encoding of three tokens; nothing else decides it."""
        made: Tensor = self.heads.grams(torch.tensor([window]), self.target)
        return made


METHOD = Chimera
