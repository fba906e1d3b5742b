"""Chimera: a small layer predicts the target's next hidden states, and heads read tokens off them.

Zeng et al. 2024 (arXiv 2402.15758). The layer, the paper's context encoder, attends to the target's
own hidden states and queries with the last three tokens. So, unlike Medusa's, the first head knows
the root, and each later one what the head before it drafted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ctypes import c_int32
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.decoding.drafter import Context
from nfox.decoding.target import Target, Vocabulary
from nfox.decoding.tree_shapes import Path
from nfox.decoding.verify import Noise
from nfox.drafters.common.attending_heads import AttendingHeadsDrafter
from nfox.drafters.common.guesses import Guesses
from nfox.drafters.common.native_guesses import NativeGuesses, rows_of
from nfox.heads.attention import DecoderLayer, Norm, draft_attention
from nfox.heads.base import (
    IGNORE,
    Heads,
    HeadsConfig,
    Size,
    TextBatch,
    cross_entropy,
    hidden_state_scale,
    lm_head_matrix,
    select_positions,
    top_k_accuracies,
)
from nfox.heads.native_layer import NativeLayer
from nfox.heads.state_cache import MOST_STATES
from nfox.heads.trigrams import TrigramEncoder, trigrams_around
from nfox.models.native.program import Program
from nfox.models.packed_layers import native_product
from nfox.models.unsupported import UnsupportedError

_MOST_DRAFTS = 4  # that are continued side by side
_GAINED = 0.7  # of what a guess that is sure to be right gains: most gain less, as they are not
_COST_BESIDE = 0.2  # of a hop, for each further draft


class ChimeraConfig(HeadsConfig):
    """The sizes of Chimera's heads, and the weights of its losses. A size of 0 is chosen by the
    hidden size.

    Args:
        num_layers: of the context encoder; there is one.
        trigram: query with the last three tokens, else with the last one only.
        rank: of the trigram encoder's matrix A and of the heads' bodies; three times the hidden
            size makes A full, as published.
        head_dim: of the context encoder's attention; even.
        num_attention_heads: of the context encoder.
        intermediate_size: of the context encoder's MLP.
        rope_theta: the base of its rotary positions.
        own_vocabulary: each head is a matrix onto the vocabulary, as published, else a small body
            before the base's LM head.
        ce: the weight of the cross-entropy of every head.
        hidden_loss: the weight of the distance between the first predicted state and the true one.
        logit_loss: the weight of the first head's divergence from the base's own distribution.
    """

    num_layers: int = Field(1, ge=1, le=1)
    trigram: bool = True
    rank: Size = Field(0, ge=0)
    head_dim: Size = Field(64, ge=2, multiple_of=2)
    num_attention_heads: Size = Field(0, ge=0)
    intermediate_size: Size = Field(0, ge=0)
    rope_theta: float = Field(10000.0, ge=1, allow_inf_nan=False)
    own_vocabulary: bool = False
    ce: float = Field(1.0, ge=0, allow_inf_nan=False)
    hidden_loss: float = Field(0.5, ge=0, allow_inf_nan=False)
    logit_loss: float = Field(0.5, ge=0, allow_inf_nan=False)

    @override
    def model_post_init(self, context: Any) -> None:
        """Choose what was left open."""
        # A multiple of 32, by which the native library multiplies in 8 bits.
        self.rank = self.rank or 32 * -(-self.hidden_size // 192)
        self.num_attention_heads = self.num_attention_heads or max(self.hidden_size // 64, 1)
        self.intermediate_size = self.intermediate_size or self.hidden_size


class ChimeraHeads(Heads):
    """Chimera's trigram encoder, context encoder and K heads.

    For position t of a text, the state of depth 1 is predicted at position t + 1: it queries with
    the trigram that the root ends, and sees the target's states up to t. The state of depth k is
    predicted at t + k: it queries with the tokens drafted so far, and also sees the states that
    were predicted for the depths before it, for this position t only, as when drafting.
    """

    Config = ChimeraConfig
    config: ChimeraConfig

    def __init__(self, config: ChimeraConfig) -> None:
        super().__init__(config)
        hidden_size = config.hidden_size
        # Saved weights bear the names of these attributes.
        self.grams = TrigramEncoder(hidden_size, 3 if config.trigram else 1, config.rank)
        self.encoder = DecoderLayer(
            hidden_size,
            config.num_attention_heads,
            config.head_dim,
            config.intermediate_size,
            config.rope_theta,
        )
        self.norm = Norm(hidden_size)
        self.heads = nn.ModuleList(self._head() for _ in range(config.num_heads))

    def _head(self) -> nn.Module:
        """Return a matrix onto the vocabulary, or a body that adds nothing at first."""
        hidden_size, rank = self.config.hidden_size, self.config.rank
        if self.config.own_vocabulary:
            return nn.Linear(2 * hidden_size, self.config.vocab_size, bias=False)
        last = nn.Linear(rank, hidden_size, bias=False)
        nn.init.zeros_(last.weight)
        return nn.Sequential(nn.Linear(2 * hidden_size, rank, bias=False), nn.SiLU(), last)

    @override
    def prepare_training(self, target: Target) -> None:
        """Freeze the base, predict states of its scale, and start matrices from its LM head."""
        target.freeze()
        self.norm.weight.data.copy_(hidden_state_scale(target))
        if self.config.own_vocabulary:
            lm_head = lm_head_matrix(target)
            for weight in self.heads.parameters():
                weight.data.copy_(torch.cat([lm_head, lm_head], dim=1))

    def head_after(self, length: int) -> int:
        """Return the number of the head that guesses what follows a draft of this many tokens."""
        return min(length, self.config.num_heads - 1)

    def logits(self, head: int, hidden: Tensor, predicted: Tensor, target: Vocabulary) -> Tensor:
        """Return the logits [..., V] of one head.

        Args:
            head: its number; the first is 0.
            hidden: [..., D] the target's last true state.
            predicted: [..., D] the state predicted for the depth of this head.
            target: the model whose LM head is used.
        """
        output: Tensor = self.heads[head](torch.cat([hidden, predicted], dim=-1))
        return output if self.config.own_vocabulary else target.unembed(predicted + output)

    def predict_depths(
        self, text: TextBatch, target: Vocabulary, positions: Tensor, needed: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for one depth after the other, the predicted states and the logits of its head.

        Args:
            text: what the target has read; the token after each position is its root.
            target: frozen.
            positions: [B, P] in the texts.
            needed: [B, P] bool, the n of them whose logits are wanted.

        Yields:
            [B, P, D] states and [n, V] logits.
        """
        length, encoder = text.ids.shape[1], self.encoder
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        trigrams = trigrams_around(text.ids)[rows, positions]
        hidden = text.hidden[rows, positions][needed]
        rotary = encoder.rotary(length + self.config.num_heads)
        _, *past = encoder.project_qkv(text.hidden, rotary[:, :length])
        drafts: list[Sequence[Tensor]] = []  # keys and values of the states predicted so far
        for depth in range(1, self.config.num_heads + 1):
            encoded = self.grams(trigrams, target)
            rotary_here = rotary[:, (positions + depth)[:, None]]
            queries, *newest = encoder.project_qkv(encoded, rotary_here)
            draft = [torch.stack(parts, dim=-2) for parts in zip(*drafts, newest, strict=True)]
            attended = draft_attention(queries[..., None, :], positions[:, None], past, draft)
            predicted = self.norm(encoder.after_attention(encoded, attended))
            logits = self.logits(depth - 1, hidden, predicted[needed], target)
            yield predicted, logits
            if depth == self.config.num_heads:
                return
            drafted = torch.zeros_like(positions)
            drafted[needed] = logits.detach().max(-1).indices  # argmax is slower in 16 bit
            trigrams = torch.cat([trigrams[..., 1:], drafted[..., None]], dim=-1)
            drafts.append(encoder.project_qkv(predicted.detach(), rotary_here)[1:])

    @override
    def loss(self, text: TextBatch, target: Vocabulary) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy of every head, and for depth 1 the distances to the base's next
        state and to its distribution. Figures with `_base` in their name compare with the base's
        own tokens, the others with the data, whatever is learned.
        """
        depths = range(self.config.num_heads)
        labels = torch.stack([text.labels_ahead(k + 2) for k in depths], dim=-1)
        has_next = labels[..., 0] != IGNORE
        positions, learned = select_positions((labels != IGNORE).any(-1))
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        with torch.no_grad():
            next_hidden = text.hidden.roll(-1, 1)[has_next]
            base_logits = target.unembed(next_hidden)
            base_tokens = torch.full_like(text.labels, IGNORE)
            base_tokens[has_next] = base_logits.argmax(-1)
        base, data = TextBatch(text.ids, text.hidden, base_tokens), text.references()[""]
        labels, has_next = labels[rows, positions][learned], has_next[rows, positions][learned]
        total, figures = text.hidden.new_zeros(()), {}
        for k, (predicted, logits) in enumerate(
            self.predict_depths(text, target, positions, learned)
        ):
            head_loss, name = cross_entropy(logits, labels[:, k]), f"head{k + 1}"
            total = total + self.config.ce * head_loss
            figures[f"{name}_loss"] = float(head_loss.detach())
            references = {name: data.labels_ahead(k + 2), f"{name}_base": base.labels_ahead(k)}
            figures |= top_k_accuracies(
                logits, {end: right[rows, positions][learned] for end, right in references.items()}
            )
            if k == 0:
                distance = _distance(predicted[learned][has_next], next_hidden)
                divergence = _divergence(logits[has_next], base_logits)
                total = total + self.config.hidden_loss * distance
                total = total + self.config.logit_loss * divergence
                figures["hidden_loss"] = float(distance.detach())
                figures["logit_loss"] = float(divergence.detach())
        return total, figures

    @override
    def top_tokens(self, text: TextBatch, target: Target, width: int) -> Tensor:
        positions, needed = select_positions(torch.ones_like(text.ids, dtype=torch.bool))
        by_depth = [
            logits.topk(width).indices.view(*text.ids.shape, width)
            for _, logits in self.predict_depths(text, target, positions, needed)
        ]
        return torch.stack(by_depth, dim=2)


def _distance(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the smooth L1 distance of [n, D] states, in units of the true ones' size."""
    predicted, true = predicted.float(), true.float()  # squares may not fit into 16 bit
    size = true.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
    total = functional.smooth_l1_loss(predicted / size, true / size, reduction="sum")
    return total / max(true.numel(), 1)


def _divergence(logits: Tensor, base_logits: Tensor) -> Tensor:
    """Return the mean KL divergence KL(base || head) of [n, V] logits."""
    log_q, log_p = logits.float().log_softmax(-1), base_logits.float().log_softmax(-1)
    total = functional.kl_div(log_q, log_p, reduction="sum", log_target=True)
    return total / max(len(base_logits), 1)


@dataclass(frozen=True)
class Draft:
    """A beginning of what may follow the root.

    Args:
        path: the ranks of its guesses.
        trigram: its last three tokens, with those before it where it is shorter.
        chance: how probable it is to be right.
    """

    path: Path
    trigram: tuple[int, ...]
    chance: float = 1.0


class Hops:
    """Guesses what may follow drafts of equal length, one hop after the other. A table keeps the
    states of a step: the target's, and then those that are predicted after the drafts of every hop.

    Args:
        drafter: whose heads guess.
    """

    def __init__(self, drafter: Chimera) -> None:
        self.drafter, self.heads, self.cache = drafter, drafter.heads, drafter.state_cache

    def begin(self, states: Tensor) -> None:
        """Begin a step.

        Args:
            states: [R, D] the target's that the heads have not read, the first rows of the table.
        """
        self.table, self.hidden = states, states[-1:]

    def hop(
        self,
        drafts: Sequence[Draft],
        known: Sequence[int],
        parents: Sequence[int],
        start: int,
        width: int,
        noise: Noise | None,
    ) -> tuple[Guesses, int]:
        """Guess one token more.

        Args:
            drafts: N of them.
            known: the rows of the table that they see besides what was read.
            parents: of these rows and of the drafts, as `StateCache.attend` takes them.
            start: the position of the first of these rows.
            width: how many tokens may follow each draft.
            noise: what the target's token will be drawn by; None where that is not known.

        Returns:
            The guesses for what follows each draft, a row for each; and the row of the table with
            the state after the first of them, behind which are those of the others.
        """
        trigrams, first = torch.tensor([draft.trigram for draft in drafts]), len(self.table)
        queries = self.heads.grams(trigrams, self.drafter.vocabulary)
        predicted = self.cache.attend(self.table[list(known)], queries, start, parents)
        self.table = torch.cat([self.table, predicted])
        head, hidden = self.heads.head_after(len(drafts[0].path)), self.hidden.expand_as(predicted)
        logits = self.heads.logits(head, hidden, predicted, self.drafter.vocabulary)
        return Guesses.from_logits(logits, width, self.drafter.vocabulary, noise), first


class NativeHops(NativeGuesses):
    """Hops as those of `Hops`, of which each is one call of the native library; errors are those of
    `NativeGuesses`.

    Args:
        drafter: whose heads guess.
    """

    def __init__(self, drafter: Chimera) -> None:
        super().__init__(drafter, _MOST_DRAFTS)
        self.heads, (layer,) = drafter.heads, drafter.state_cache.layers
        if not isinstance(layer, NativeLayer):
            raise UnsupportedError("a layer that is not the native library's")
        self._layer, size = layer, self.heads.config.hidden_size
        # Behind the target's states are the queries, then what is predicted in every hop.
        self._drafted = MOST_STATES + _MOST_DRAFTS
        count = self._drafted + drafter.max_depth * _MOST_DRAFTS
        self._table, self._left = rows_of(count, size), rows_of(count + _MOST_DRAFTS, size)
        self._row_bytes, self._hidden = self._table[0].nbytes, rows_of(1, size)
        self._trigrams = (c_int32 * (_MOST_DRAFTS * self.heads.grams.token_count))()
        self._programs = [self._program(depth) for depth in range(drafter.max_depth)]

    def _program(self, depth: int) -> Program:
        """Return what a hop computes after drafts of this length."""
        program, heads, size = Program(), self.heads, self._hidden.shape[1]
        queries = self._table[MOST_STATES : self._drafted]
        heads.grams.add_to(program, self.embedding, self._trigrams, queries)
        program.forward(self._layer.decoder, self._layer.batch)
        first, predicted = self._first_row(depth), self._left[-_MOST_DRAFTS:]
        program.add(predicted, None, self._table[first : first + _MOST_DRAFTS])
        entering, output = rows_of(_MOST_DRAFTS, 2 * size), rows_of(_MOST_DRAFTS, size)
        program.add(self._hidden, None, entering[:, :size])
        program.add(predicted, None, entering[:, size:])
        inner, _, outer = heads.heads[heads.head_after(depth)]
        body = rows_of(_MOST_DRAFTS, inner.out_features)
        program.linear(native_product(inner), entering, body, silu=True)
        program.linear(native_product(outer), body, output, residual=predicted)
        self.add_top(program, output)
        return program

    def _first_row(self, depth: int) -> int:
        """Return the row of the table with the state after the first draft of this length."""
        return self._drafted + depth * _MOST_DRAFTS

    def begin(self, states: Tensor) -> None:
        """Begin a step with the target's states [R, D] that the heads have not read."""
        self._table[: len(states)] = states
        self._hidden.copy_(states[-1:])

    def hop(
        self,
        drafts: Sequence[Draft],
        known: Sequence[int],
        parents: Sequence[int],
        start: int,
        width: int,
        noise: Noise | None,
    ) -> tuple[Guesses, int]:
        """Guess one token more; arguments and what is returned are those of `Hops.hop`."""
        count, depth, token_count = len(drafts), len(drafts[0].path), self.heads.grams.token_count
        tokens = [token for draft in drafts for token in draft.trigram[-token_count:]]
        self._trigrams[: len(tokens)] = tokens
        chosen = [*known, *range(MOST_STATES, MOST_STATES + count)]
        # So that what leaves the layer for the drafts is always in the same rows.
        num_before = len(self._left) - _MOST_DRAFTS - len(known)
        left = self._left.data_ptr() + num_before * self._row_bytes
        self._layer.fill(self._table, chosen, left, start, parents)
        self.draw_by(noise)
        self._programs[depth].run(count)
        return self.guesses(count, width), self._first_row(depth)


class Chimera(AttendingHeadsDrafter):
    """Propose the likeliest tokens of every head, as a tree. What follows is predicted after the
    likeliest token of each depth and, unlike in the paper, after a few of the likeliest other paths
    too. Depths beyond the last head's are guessed with that head.

    The keys and values of the target's states are kept from step to step.
    """

    summary = "a layer fakes the next hidden states, and each head knows the draft so far (Chimera)"
    needs = "trained heads: --heads, or <model>/nfox/chimera/"
    rank = 30
    heads_class = ChimeraHeads
    native_class = NativeHops
    # No accuracies were published. These lie between Medusa's and those of a draft model.
    prior_accuracy = tuple(
        (top, *(0.2 / 2**rank for rank in range(1, 10))) for top in (0.65, 0.5, 0.4, 0.3)
    )

    @property
    @override
    def attending_layers(self) -> Iterable[DecoderLayer]:
        return [self.heads.encoder]

    @property
    @override
    def max_depth(self) -> int:
        return 2 * super().max_depth

    @cached_property
    def _hops(self) -> Hops:
        return Hops(self)

    @override
    @torch.inference_mode()
    def guess(self, context: Context, width: int) -> Guesses:
        with self.state_cache.catching_up(context.cache) as states:
            return self._guess_after(states, context, width)

    def _guess_after(self, states: Tensor, context: Context, width: int) -> Guesses:
        """Return the guesses, hop after hop.

        Args:
            states: [R, D] the target's that the heads have not read.
            context: of this step.
            width: how many tokens may follow each draft.
        """
        tokens, hops = context.tokens, self.native or self._hops
        hops.begin(states)
        drafts = [Draft((), (*tokens[:1], *tokens[-2:], context.root)[-3:])]
        known: Sequence[int] = range(len(states))
        parents: Sequence[int] = range(-1, len(states))
        start, num_written = len(tokens) - len(states), 0
        rows: dict[Path, int] = {}  # of the table, by the draft that the state comes after
        found = guesses = Guesses([], [])
        shape_depth = 0 if self.budget else self.shape.depth  # of a fixed tree; 0 where not known
        for depth in range(min(shape_depth or self.max_depth, max(context.max_depth, 1))):
            if depth:
                drafts = self._continued(drafts, found)
                if not drafts:
                    break
                paths = [draft.path for draft in drafts]
                num_shared = common_prefix(min(paths), max(paths))
                num_read = min(num_written, num_shared)  # states that the layer need not read again
                seen, parents = _seen_by(paths, num_read)
                known, start = [rows[path] for path in seen], len(tokens) + num_read
                num_written = min(num_shared + 1, depth)
            noise = context.rule.noise_at(len(tokens) + 1 + depth)
            found, first = hops.hop(drafts, known, parents, start, width, noise)
            guesses.add(found, {draft.path: row for row, draft in enumerate(drafts)})
            rows |= {draft.path: row for row, draft in enumerate(drafts, first)}
        return guesses

    def _continued(self, drafts: Sequence[Draft], found: Guesses) -> list[Draft]:
        """Return the drafts of one token more that are worth a guess of what follows them: the
        likeliest continuation of the first one, then the likeliest of all others.
        """
        depth = 1 + len(drafts[0].path)
        factor, least = self.calibration.factor(depth), 0.0
        chances = [
            (draft.chance * min(chance * factor, 1.0), number, rank)
            for number, draft in enumerate(drafts)
            for rank, chance in enumerate(found.probabilities[number])
        ]
        most = _MOST_DRAFTS if self.max_width > 1 else 1
        chosen = [chances[0], *nlargest(most - 1, chances[1:])]
        if self.budget:
            # What follows a right draft is guessed right at least as often as by this head alone,
            # and gains what it is more likely than a guess that just pays.
            gained = _GAINED * self._accuracy[min(depth, len(self._accuracy) - 1)][0]
            cost, least = self.budget.depth_cost, self.budget.min_chance
            if gained * (max(chosen)[0] - least) < cost:
                return []
            least += _COST_BESIDE * cost / max(gained, 1e-9)
        longer: list[Draft] = []
        for chance, number, rank in chosen:
            if chance >= least:
                draft, token = drafts[number], found.tokens[number][rank]
                path, trigram = (*draft.path, rank), (*draft.trigram[1:], token)
                longer.append(Draft(path, trigram, chance))
        return longer


def _seen_by(paths: Sequence[Path], num_read: int) -> tuple[list[Path], list[int]]:
    """Return what drafts of equal length see of each other's beginnings.

    Args:
        paths: of the drafts.
        num_read: the states after their beginnings of 0, 1, ... tokens, so many of them, are left
            out: they were read, and all drafts share the beginning of so many tokens.

    Returns:
        The beginnings whose states are seen, and the parent of each, and then of each draft, among
        them; -1 for the first one.
    """
    lengths = range(num_read, len(paths[0]))
    seen = list(dict.fromkeys(path[:length] for length in lengths for path in paths))
    places = {path: place for place, path in enumerate(seen)}
    return seen, [-1, *(places[path[:-1]] for path in (*seen[1:], *paths))]


METHOD = Chimera
