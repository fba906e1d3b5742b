"""Medusa: heads on the target's last hidden state, each for one more token ahead.

Cai et al. 2024 (arXiv 2401.10774). Head k guesses the token k positions after the root, from the
hidden state of the token before the root, so without knowing the root: this is fast, and the
guesses are the less sure the further ahead they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.target import Target, Vocabulary
from nfox.drafters.common import medusa_layout
from nfox.drafters.common.guesses import Guesses
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.common.method import SavedWeights
from nfox.drafters.common.native_guesses import NativeGuesses, rows_of
from nfox.errors import ModelError
from nfox.export.formats import ParallelHeads
from nfox.files.hub import HubOptions
from nfox.heads import checkpoint
from nfox.heads.base import (
    IGNORE,
    Heads,
    HeadsConfig,
    TextBatch,
    cross_entropy,
    lm_head_matrix,
    top_k_accuracies,
)
from nfox.models.loading import load_model
from nfox.models.native.program import Program
from nfox.models.options import ModelOptions
from nfox.models.packed_layers import add_silu, native_product


class MedusaConfig(HeadsConfig):
    """The sizes of Medusa heads, and the weights of their losses.

    Args:
        own_vocabulary: each head ends in a vocabulary matrix of its own, else in the base's LM
            head.
        decay: the loss of head k, from 1, counts decay^k (0.8 in the paper).
    """

    own_vocabulary: bool = False
    decay: float = Field(0.8, gt=0, allow_inf_nan=False)


class ResidualBlock(nn.Module):
    """z + SiLU(A z + b); A and b are 0 at first, so that the block returns z."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @override
    def forward(self, states: Tensor) -> Tensor:
        """Return states [..., D] for states [..., D]."""
        return add_silu(states, self.linear, states)


class MedusaHeads(Heads):
    """K heads: a body of residual blocks, and a vocabulary matrix of its own or the base's.

    Names and shapes of its weights are those of the published checkpoints.
    """

    Config = MedusaConfig
    config: MedusaConfig

    def __init__(self, config: MedusaConfig) -> None:
        super().__init__(config)
        self.heads = nn.ModuleList()
        for _ in range(config.num_heads):
            layers: list[nn.Module] = [
                ResidualBlock(config.hidden_size) for _ in range(config.num_layers)
            ]
            if config.own_vocabulary:
                layers.append(nn.Linear(config.hidden_size, config.vocab_size, bias=False))
            self.heads.append(nn.Sequential(*layers))

    @override
    def prepare_training(self, target: Target) -> None:
        """Start each vocabulary matrix from the base's LM head."""
        if self.config.own_vocabulary:
            lm_head = lm_head_matrix(target)
            for name, weight in self.named_parameters():
                if weight.shape == lm_head.shape and "linear" not in name:
                    weight.data.copy_(lm_head)

    def logits(self, hidden: Tensor, target: Vocabulary) -> Tensor:
        """Return the logits [..., K, V] of all heads.

        Args:
            hidden: [..., D] the target's last hidden states.
            target: the model whose LM head is used.
        """
        outputs = torch.stack([head(hidden) for head in self.heads], dim=-2)
        return outputs if self.config.own_vocabulary else target.unembed(outputs)

    @override
    def loss(self, text: TextBatch, target: Vocabulary) -> tuple[Tensor, dict[str, float]]:
        """Return the sum of the cross-entropies of all heads, that of head k times decay^k.
        Figures with `_base` in their name compare with the target's own tokens, the others with the
        data.
        """
        depths = range(self.config.num_heads)
        labels = torch.stack([text.labels_ahead(k + 2) for k in depths], dim=-1)
        learned = (labels != IGNORE).any(-1)
        logits, labels = self.logits(text.hidden[learned], target), labels[learned]
        total, figures = logits.sum() * 0, {}  # with nothing to learn still a part of the graph
        references = text.references()
        # Unbound, the logits get one gradient; indexed, they would get one for every head.
        heads = zip(logits.unbind(1), labels.unbind(1), strict=True)
        for k, (head_logits, head_labels) in enumerate(heads):
            head_loss, name = cross_entropy(head_logits, head_labels), f"head{k + 1}"
            total = total + self.config.decay ** (k + 1) * head_loss
            figures[f"{name}_loss"] = float(head_loss.detach())
            labels_by_name = {
                name + ending: reference.labels_ahead(k + 2)[learned]
                for ending, reference in references.items()
            }
            figures |= top_k_accuracies(head_logits, labels_by_name)
        return total, figures

    @override
    def top_tokens(self, text: TextBatch, target: Target, width: int) -> Tensor:
        return self.logits(text.hidden, target).topk(width).indices


class NativeMedusa(NativeGuesses):
    """What all heads guess, in one call of the native library; arguments and errors are those of
    `NativeGuesses`.
    """

    def __init__(self, drafter: Medusa) -> None:
        heads, size = drafter.heads.heads, drafter.heads.config.hidden_size
        super().__init__(drafter, len(heads))
        self._program, self._count = Program(), len(heads)
        self._hidden, outputs = rows_of(1, size), rows_of(len(heads), size)
        for head, output in zip(heads, torch.split(outputs, 1), strict=True):
            states = self._hidden
            for number, block in enumerate(head, 1):
                result = output if number == len(head) else rows_of(1, size)
                product = native_product(block.linear)
                self._program.linear(product, states, result, residual=states, silu=True, rows=1)
                states = result
        self.add_top(self._program, outputs)

    def guess(self, hidden: Tensor, width: int) -> Guesses:
        """Return the `width` likeliest tokens of every head.

        Args:
            hidden: [1, D] the target's last hidden state.
            width: MAX_WIDTH at most.
        """
        self._hidden.copy_(hidden)
        self._program.run(self._count)
        return self.guesses(self._count, width)


class Medusa(HeadsDrafter):
    """Propose the likeliest tokens of every head, as a tree."""

    summary = "heads guess the next few tokens independently of each other (Medusa)"
    needs = "trained heads: --heads, or <model>/nfox/medusa/"
    rank = 20
    heads_class = MedusaHeads
    native_class = NativeMedusa
    exchange_type = ParallelHeads
    # Vicuna-7B's published training log; the ranks after the first share what top-5 adds.
    prior_accuracy = tuple(
        (top, *(rest / 2**rank for rank in range(1, 10)))
        for top, rest in ((0.56, 0.2), (0.32, 0.18), (0.2, 0.15), (0.15, 0.12), (0.12, 0.1))
    )
    published_heads: ClassVar = {
        "lmsys/vicuna-7b-v1.3": "FasterDecoding/medusa-vicuna-7b-v1.3",
        "lmsys/vicuna-13b-v1.3": "FasterDecoding/medusa-vicuna-13b-v1.3",
        "lmsys/vicuna-33b-v1.3": "FasterDecoding/medusa-vicuna-33b-v1.3",
    }

    @override
    def guess(self, context: Context, width: int) -> Guesses:
        with torch.inference_mode():
            native: NativeMedusa | None = self.native
            if native:
                return native.guess(context.hidden[-1:], width)
            logits = self.heads.logits(context.hidden[-1], self.vocabulary)
            return Guesses.from_logits(logits, width, self.vocabulary)

    @override
    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> checkpoint.HeadsInfo | None:
        """Return what nfox's own layout or the published one says of the heads in a folder or hub
        repository; None if there are none.
        """
        info = super().inspect(location, hub)
        return info or medusa_layout.inspect(location, hub, cls.method_name())

    @override
    @classmethod
    def read_weights(cls, location: str, hub: HubOptions) -> dict[str, Tensor]:
        path = medusa_layout.weights_file(location, hub)
        return super().read_weights(location, hub) if path is None else medusa_layout.read(path)

    @override
    @classmethod
    def to_exchange(cls, weights: SavedWeights) -> ParallelHeads:
        """Return the heads with their vocabulary matrices; heads without any end in the base's LM
        head.
        """
        base = load_model(weights.base, ModelOptions.of_hub(weights.hub))
        heads, _ = cls.load_heads(base, weights.location, weights.hub)
        blocks: list[list[tuple[Tensor, Tensor]]] = [
            [
                (block.linear.weight, block.linear.bias)
                for block in head
                if isinstance(block, ResidualBlock)
            ]
            for head in heads.heads
        ]
        if heads.config.own_vocabulary:
            matrices = [head[-1].weight for head in heads.heads]
            return ParallelHeads(cls.method_name(), weights.info.base, blocks, matrices)
        lm_head = base.target.model.get_output_embeddings()
        if getattr(lm_head, "bias", None) is not None:
            raise ModelError(
                f"the LM head of {weights.base} has a bias, for which other engines' heads have "
                "no place",
                "train heads with --medusa_own_vocabulary True",
            )
        return ParallelHeads(cls.method_name(), weights.info.base, blocks, [lm_head.weight])

    @override
    @classmethod
    def export(cls, weights: SavedWeights, folder: Path) -> list[str]:
        """Write the heads in the published layout, each with a vocabulary matrix, which is the
        base's LM head where it has none of its own.
        """
        return medusa_layout.write(cls.to_exchange(weights), folder)


METHOD = Medusa
