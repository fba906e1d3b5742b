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

from nfox.decoding.target import Target
from nfox.drafters.common.heads import Guesses, HeadsDrafter
from nfox.drafters.common.method import Context
from nfox.errors import ModelError
from nfox.export.formats import ParallelHeads
from nfox.heads import checkpoint
from nfox.heads.base import IGNORE, Heads, HeadsConfig, Text, accuracies, cross_entropy
from nfox.models.loading import ModelOptions, load_model, read_json


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

    def start(self, target: Target) -> None:
        """Start each vocabulary matrix from the base's LM head."""
        if self.config.own_vocabulary:
            one_each = torch.eye(self.config.hidden_size, dtype=target.dtype)
            rows = target.unembed(one_each.to(target.last_device))
            for name, weight in self.named_parameters():
                if weight.shape == rows.T.shape and "linear" not in name:
                    weight.data.copy_(rows.T)

    def logits(self, hidden: Tensor, target: Target) -> Tensor:
        """Return [..., K, V] from hidden states [..., D]."""
        made = torch.stack([head(hidden) for head in self.heads], dim=-2)
        return made if self.config.own_vocabulary else target.unembed(made)

    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """See `Heads.loss`: cross-entropy of every head, that of head k times decay^k."""
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

    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        """See `Heads.guesses`."""
        return self.logits(text.hidden, target).topk(width).indices


class Medusa(HeadsDrafter):
    """Propose the likeliest tokens of every head, as a tree."""

    summary = "heads guess the next few tokens independently of each other (Medusa)"
    needs = "trained heads: --heads, or <model>/nfox/medusa/"
    rank = 20
    heads_class = MedusaHeads
    gives = ParallelHeads
    # Vicuna-7B's published training log; the ranks after the first share what top-5 adds.
    prior = tuple(
        (top, *(rest / 2**rank for rank in range(1, 10)))
        for top, rest in ((0.56, 0.2), (0.32, 0.18), (0.2, 0.15), (0.15, 0.12), (0.12, 0.1))
    )
    published: ClassVar = {
        "lmsys/vicuna-7b-v1.3": "FasterDecoding/medusa-vicuna-7b-v1.3",
        "lmsys/vicuna-13b-v1.3": "FasterDecoding/medusa-vicuna-13b-v1.3",
        "lmsys/vicuna-33b-v1.3": "FasterDecoding/medusa-vicuna-33b-v1.3",
    }

    @classmethod
    def holds(cls, place: str, options: ModelOptions) -> checkpoint.About | None:
        """See `HeadsDrafter.holds`; the published layout names its base in config.json."""
        own = super().holds(place, options)
        path = None if own else checkpoint.file_of(place, "config.json", options)
        config = read_json(path) if path else {}
        if "medusa_num_heads" not in config or _published_file(place, options) is None:
            return own
        sizes = _sizes(cls.read(place, options), place)
        base = str(config.get("base_model_name_or_path") or place)
        return checkpoint.About(method=cls.method(), base=base, config=sizes)

    @classmethod
    def read(cls, place: str, options: ModelOptions) -> dict[str, Tensor]:
        """See `HeadsDrafter.read`."""
        path = _published_file(place, options)
        if path is None:
            return checkpoint.read(place, options)
        tensors = checkpoint.read_tensors(path)
        return {f"heads.{name.removeprefix('medusa_head.')}": w for name, w in tensors.items()}

    @classmethod
    def give(
        cls, place: str, what: checkpoint.About, base: str, hub: ModelOptions
    ) -> ParallelHeads:
        """See `Drafter.give`; heads without a vocabulary matrix end in the base's LM head."""
        target = load_model(base, hub).target
        heads, _ = cls.load(base, target, place, hub)
        blocks: list[list[tuple[Tensor, Tensor]]] = [
            [(block.linear.weight, block.linear.bias) for block in head if isinstance(block, Block)]
            for head in heads.heads
        ]
        if heads.config.own_vocabulary:
            return ParallelHeads(
                cls.method(), what.base, blocks, [head[-1].weight for head in heads.heads]
            )
        last = target.model.get_output_embeddings()
        if getattr(last, "bias", None) is not None:
            raise ModelError(
                f"the LM head of {base} has a bias, for which other engines' heads have no place",
                "train heads with --medusa_own_vocabulary True",
            )
        return ParallelHeads(cls.method(), what.base, blocks, [last.weight])

    @classmethod
    def export(
        cls, place: str, what: checkpoint.About, base: str, hub: ModelOptions, folder: Path
    ) -> list[str]:
        """See `HeadsDrafter.export`: `config.json` and `medusa_lm_head.safetensors`, each head with
        a vocabulary matrix, which is the base's LM head where it has none of its own.
        """
        heads = cls.give(place, what, base, hub)
        tensors: dict[str, Tensor] = {}
        for k, blocks in enumerate(heads.blocks):
            for layer, (weight, bias) in enumerate(blocks):
                name = f"{k}.{layer}.linear"
                tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
            matrix = heads.matrices[k % len(heads.matrices)]
            tensors[f"{k}.{len(blocks)}.weight"] = matrix.clone()
        words, size = heads.matrices[0].shape
        said = {
            "base_model_name_or_path": heads.base,
            "medusa_num_heads": len(heads.blocks),
            "medusa_num_layers": len(heads.blocks[0]),
            "hidden_size": size,
            "vocab_size": words,
        }
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_tensors(folder / _FILES[0], tensors)
        checkpoint.write_text(folder / "config.json", json.dumps(said, indent=2) + "\n")
        return ["config.json", _FILES[0]]

    def guess(self, context: Context, width: int) -> Guesses:
        """See `HeadsDrafter.guess`."""
        with torch.inference_mode():
            return Guesses.of(self.heads.logits(context.hidden[-1], self.target), width)


_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")


def _published_file(place: str, options: ModelOptions) -> Path | None:
    found = (checkpoint.file_of(place, name, options) for name in _FILES)
    return next((path for path in found if path is not None), None)


def _sizes(tensors: dict[str, Tensor], place: str) -> dict[str, int | bool]:
    """Return the config of published heads, from the weights: published configs disagree with
    theirs (2 heads said, 5 stored)."""
    places = {tuple(name.split(".")[1:3]) for name in tensors}
    body = [w for name, w in tensors.items() if name.endswith(".linear.weight")]
    last = [w for name, w in tensors.items() if name.count(".") == 3 and name.endswith(".weight")]
    if not body or any(not (len(p) == 2 and p[0].isdigit() and p[1].isdigit()) for p in places):
        raise ModelError(f"{place}: the weights are not those of Medusa heads")
    own = [w for w in last if w.dim() == 2]
    heads = 1 + max(int(head) for head, _ in places)
    size = body[0].shape[0]
    sizes = {"hidden_size": size, "num_heads": heads, "num_layers": len(body) // heads}
    return sizes | {"own_vocabulary": bool(own), "vocab_size": own[0].shape[0] if own else 0}


METHOD = Medusa
