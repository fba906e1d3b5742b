"""Medusa: heads on the target's last hidden state, each for one more token ahead.

Cai et al. 2024 (arXiv 2401.10774). Head k foretells the token k places after the root, from the
state of the token before it, without knowing the root: fast, and the less sure the further ahead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.target import Target
from nfox.drafters.common.heads import Guesses, HeadsDrafter
from nfox.drafters.common.method import SavedWeights
from nfox.errors import ModelError
from nfox.export.formats import ParallelHeads
from nfox.files.atomic import read_tensors, write_tensors, write_text
from nfox.files.hub import HubOptions, file_of, read_json
from nfox.heads import checkpoint
from nfox.heads.base import IGNORE, Heads, HeadsConfig, Text, accuracies, cross_entropy
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions


class MedusaConfig(HeadsConfig):
    """See `HeadsConfig`.

    Args:
        own_vocabulary: each head ends in a matrix of its own, else in the base's LM head.
        decay: head k, from 1, counts decay^k in the loss (0.8 in the paper).
    """

    own_vocabulary: bool = False
    decay: float = Field(0.8, gt=0, allow_inf_nan=False)


class Block(nn.Module):
    """z + SiLU(A z + b); nothing but z while A and b are 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @override
    def forward(self, states: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return states + functional.silu(self.linear(states))


class MedusaHeads(Heads):
    """K heads: a body of residual blocks, and a vocabulary matrix of its own or the base's.

    Names and shapes of its weights are those of the published checkpoints.
    """

    Config = MedusaConfig
    config: MedusaConfig

    def __init__(self, config: MedusaConfig) -> None:
        super().__init__(config)
        size, words = config.hidden_size, config.vocab_size
        self.heads = nn.ModuleList()
        for _ in range(config.num_heads):
            layers: list[nn.Module] = [Block(size) for _ in range(config.num_layers)]
            if config.own_vocabulary:
                layers.append(nn.Linear(size, words, bias=False))
            self.heads.append(nn.Sequential(*layers))

    @override
    def start(self, target: Target) -> None:
        """Start each vocabulary matrix from the base's LM head."""
        if self.config.own_vocabulary:
            one_each = torch.eye(self.config.hidden_size, dtype=target.dtype)
            rows = target.unembed(one_each.to(target.output_device))
            for name, weight in self.named_parameters():
                if weight.shape == rows.T.shape and "linear" not in name:
                    weight.data.copy_(rows.T)

    def logits(self, hidden: Tensor, target: Target) -> Tensor:
        """Return [..., K, V] from hidden states [..., D]."""
        made = torch.stack([head(hidden) for head in self.heads], dim=-2)
        return made if self.config.own_vocabulary else target.unembed(made)

    @override
    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of every head, that of head k times decay^k."""
        wanted = torch.stack([text.ahead(k + 2) for k in range(self.config.num_heads)], dim=-1)
        learned = (wanted != IGNORE).any(-1)
        logits, wanted = self.logits(text.hidden[learned], target), wanted[learned]
        total, numbers = logits.sum() * 0, {}  # with nothing to learn still a part of the graph
        heads = zip(logits.unbind(1), wanted.unbind(1), strict=True)  # a gradient for all at once
        compared = text.compared()
        for k, (head, labels) in enumerate(heads):
            one, name = cross_entropy(head, labels), f"head{k + 1}"
            total = total + self.config.decay ** (k + 1) * one
            numbers[f"{name}_loss"] = float(one.detach())
            right = {name + end: said.ahead(k + 2)[learned] for end, said in compared.items()}
            numbers |= accuracies(head, right)
        return total, numbers

    @override
    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        return self.logits(text.hidden, target).topk(width).indices


class Medusa(HeadsDrafter):
    """Propose the likeliest tokens of every head, as a tree."""

    summary = "heads guess the next few tokens independently of each other (Medusa)"
    needs = "trained heads: --heads, or <model>/nfox/medusa/"
    rank = 20
    heads_class = MedusaHeads
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
    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> checkpoint.HeadsInfo | None:
        """The published layout names its base in config.json."""
        own = super().inspect(location, hub)
        path = None if own else file_of(location, "config.json", hub)
        config = read_json(path) if path else {}
        if "medusa_num_heads" not in config or _published_file(location, hub) is None:
            return own
        sizes = _sizes(cls.read_weights(location, hub), location)
        base = str(config.get("base_model_name_or_path") or location)
        return checkpoint.HeadsInfo(method=cls.method(), base=base, config=sizes)

    @override
    @classmethod
    def read_weights(cls, location: str, hub: HubOptions) -> dict[str, Tensor]:
        path = _published_file(location, hub)
        if path is None:
            return checkpoint.read(location, hub)
        tensors = read_tensors(path)
        return {f"heads.{name.removeprefix('medusa_head.')}": w for name, w in tensors.items()}

    @override
    @classmethod
    def to_exchange(cls, weights: SavedWeights) -> ParallelHeads:
        """Heads without a vocabulary matrix of their own end in the base's LM head."""
        base = load_model(weights.base, ModelOptions.of_hub(weights.hub))
        heads, _ = cls.load_heads(base, weights.location, weights.hub)
        blocks: list[list[tuple[Tensor, Tensor]]] = [
            [(block.linear.weight, block.linear.bias) for block in head if isinstance(block, Block)]
            for head in heads.heads
        ]
        if heads.config.own_vocabulary:
            return ParallelHeads(
                cls.method(), weights.info.base, blocks, [head[-1].weight for head in heads.heads]
            )
        last = base.target.model.get_output_embeddings()
        if getattr(last, "bias", None) is not None:
            raise ModelError(
                f"the LM head of {weights.base} has a bias, for which other engines' heads have "
                "no place",
                "train heads with --medusa_own_vocabulary True",
            )
        return ParallelHeads(cls.method(), weights.info.base, blocks, [last.weight])

    @override
    @classmethod
    def export(cls, weights: SavedWeights, folder: Path) -> list[str]:
        """Write `config.json` and `medusa_lm_head.safetensors`, each head with a vocabulary matrix,
        which is the base's LM head where it has none of its own.
        """
        heads = cls.to_exchange(weights)
        tensors: dict[str, Tensor] = {}
        for k, blocks in enumerate(heads.blocks):
            for layer, (weight, bias) in enumerate(blocks):
                name = f"{k}.{layer}.linear"
                tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
            matrix = heads.matrices[k % len(heads.matrices)]
            tensors[f"{k}.{len(blocks)}.weight"] = matrix.clone()
        vocabulary_size, hidden_size = heads.matrices[0].shape
        config = {
            "base_model_name_or_path": heads.base,
            "medusa_num_heads": len(heads.blocks),
            "medusa_num_layers": len(heads.blocks[0]),
            "hidden_size": hidden_size,
            "vocab_size": vocabulary_size,
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / _FILES[0], tensors)
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        return ["config.json", _FILES[0]]

    @override
    def guess(self, context: Context, width: int) -> Guesses:
        with torch.inference_mode():
            return Guesses.from_logits(self.heads.logits(context.hidden[-1], self.target), width)


_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")


def _published_file(location: str, hub: HubOptions) -> Path | None:
    found = (file_of(location, name, hub) for name in _FILES)
    return next((path for path in found if path is not None), None)


def _sizes(tensors: dict[str, Tensor], location: str) -> dict[str, int | bool]:
    """Return the config of published heads, from the weights: published configs disagree with
    theirs (2 heads said, 5 stored)."""
    places = {tuple(name.split(".")[1:3]) for name in tensors}
    body = [w for name, w in tensors.items() if name.endswith(".linear.weight")]
    last = [w for name, w in tensors.items() if name.count(".") == 3 and name.endswith(".weight")]
    if not body or any(not (len(p) == 2 and p[0].isdigit() and p[1].isdigit()) for p in places):
        raise ModelError(f"{location}: the weights are not those of Medusa heads")
    own = [w for w in last if w.dim() == 2]
    heads = 1 + max(int(head) for head, _ in places)
    size = body[0].shape[0]
    sizes = {"hidden_size": size, "num_heads": heads, "num_layers": len(body) // heads}
    return sizes | {"own_vocabulary": bool(own), "vocab_size": own[0].shape[0] if own else 0}


METHOD = Medusa
