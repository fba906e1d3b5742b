"""Chimera: a small layer predicts the target's next hidden states, and heads read tokens off them.

Zeng et al. 2024 (arXiv 2402.15758). The layer, the paper's context encoder, attends to the target's
own hidden states and queries with the last three tokens. So, unlike Medusa's, the first head knows
the root, and each later one what the head before it drafted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.target import Target, Vocabulary
from nfox.drafters.common.attending_heads import AttendingHeadsDrafter
from nfox.drafters.common.guesses import Guesses
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
from nfox.heads.trigrams import TrigramEncoder, trigrams_around

_CACHED_TRIGRAMS = 16384  # so many encodings are kept


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
        self.rank = self.rank or max(self.hidden_size // 6, 1)
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


class Chimera(AttendingHeadsDrafter):
    """Propose the likeliest tokens of every head, as a tree; each depth is predicted after the
    likeliest token of the depth before it.

    The keys and values of the target's states are kept from step to step, and so are the encodings
    of trigrams.
    """

    summary = "a layer fakes the next hidden states, and each head knows the draft so far (Chimera)"
    needs = "trained heads: --heads, or <model>/nfox/chimera/"
    rank = 30
    heads_class = ChimeraHeads
    # No accuracies were published. These lie between Medusa's and those of a draft model.
    prior_accuracy = tuple(
        (top, *(0.2 / 2**rank for rank in range(1, 10))) for top in (0.65, 0.5, 0.4, 0.3)
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.encode_trigram = lru_cache(maxsize=_CACHED_TRIGRAMS)(self._encode_trigram)

    @property
    @override
    def attending_layers(self) -> Iterable[DecoderLayer]:
        return [self.heads.encoder]

    @override
    @torch.inference_mode()
    def guess(self, context: Context, width: int) -> Guesses:
        heads, tokens = self.heads, context.tokens
        states = self.state_cache.catch_up(context.cache)
        hidden = states[-1:]
        shape_depth = 0 if self.budget else self.shape.depth  # of a fixed tree; 0 where not known
        max_depth = min(shape_depth or heads.config.num_heads, max(context.max_depth, 1))
        trigram = [*tokens[:1], *tokens[-2:], context.root][-3:]
        guessed: list[list[int]] = []
        probabilities: list[list[float]] = []
        chain_probability = 1.0  # that the best guesses of all depths so far are right
        for depth in range(max_depth):
            if depth and self.budget and chain_probability < self.budget.min_chance:
                break  # no guess so deep would pay, or not its prediction
            query = self.encode_trigram(*trigram)
            start = len(tokens) + depth - len(states)
            states = self.state_cache.attend(states, query, start)
            logits = heads.logits(depth, hidden, states, self.vocabulary)
            guesses = Guesses.from_logits(logits, width, self.vocabulary)
            guessed += guesses.tokens
            probabilities += guesses.probabilities
            chain_probability *= probabilities[-1][0] * self.calibration.factor(depth + 1)
            trigram = [*trigram[1:], guessed[-1][0]]
        self.state_cache.tokens += tokens[len(self.state_cache.tokens) :]
        return Guesses(guessed, probabilities)

    def _encode_trigram(self, *trigram: int) -> Tensor:
        """Return the [1, D] encoding of three tokens; nothing else decides it."""
        encoded: Tensor = self.heads.grams(torch.tensor([trigram]), self.vocabulary)
        return encoded


METHOD = Chimera
