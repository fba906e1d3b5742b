"""Heads: layers trained on a frozen target's hidden states, and drafters made of them.

A method's file has the layers (a `Heads`) and how they propose (a `HeadsDrafter`); finding,
loading, checking and sizing the tree are the same for all and are here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from nfox import checkpoint, trees
from nfox.costs import Costs, idleness, timed
from nfox.drafters.base import (
    Context,
    Drafter,
    Options,
    Parts,
    Places,
    option,
    weights_beside,
)
from nfox.errors import ModelError, UsageError
from nfox.loading import ModelOptions
from nfox.rules import make_rule
from nfox.target import Target
from nfox.tree import TokenTree

IGNORE = -100
"""The label of a token that is not learned."""


class HeadsConfig(BaseModel, extra="forbid"):
    """What every kind of heads is sized by; each kind adds its own.

    Args:
        hidden_size: of the base.
        vocab_size: of the base; 0 where no weight depends on it.
        num_heads: how many tokens ahead are drafted.
        num_layers: of a head's body.
    """

    hidden_size: int
    vocab_size: int = 0
    num_heads: int = 4
    num_layers: int = 1


@dataclass(frozen=True)
class Text:
    """Texts the target has read, for training and for measuring.

    Args:
        ids: [B, T] tokens.
        hidden: [B, T, D] the target's last hidden states.
        labels: [B, T] what is to be foretold at each place: the tokens themselves or the target's
            own choices, IGNORE where nothing is learned.
    """

    ids: Tensor
    hidden: Tensor
    labels: Tensor

    def ahead(self, count: int) -> Tensor:
        """Return [B, T] the labels `count` places further on, IGNORE beyond the end."""
        return torch.nn.functional.pad(self.labels, (0, count), value=IGNORE)[:, count:]


class Heads(nn.Module, ABC):
    """Layers on top of a target's hidden states.

    Attributes:
        Config: the class of its config.
        config: what it is sized by.
    """

    Config: ClassVar[type[HeadsConfig]] = HeadsConfig
    config: Any

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config

    def start(self, target: Target) -> None:
        """Prepare for training on a target, from nothing."""

    @abstractmethod
    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to train with, and numbers to log.

        Args:
            text: what the target has read; it may have no label at all, which gives 0.
            target: frozen.
        """

    @abstractmethod
    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        """Return [B, T, depth, width] tokens: those proposed, were the token after each place the
        root, the likeliest first.

        Those at [:, t, d] should be `text.ahead(d + 2)[:, t]`.
        """


def state_scale(target: Target) -> Tensor:
    """Return [D] how large the target's last hidden states are, from a few of its tokens."""
    cache, count = target.new_cache(), min(64, target.max_context)
    cache.reuse([0], (0,) if target.encodes else None)
    target.read([i * target.vocabulary // count for i in range(count)], cache)
    return cache.hidden.float().square().mean(0).sqrt()


def labelled(learned: Tensor, most: int = 0) -> tuple[Tensor, Tensor]:
    """Gather the places of a batch that are learned from, so that no others are computed.

    Args:
        learned: [B, T] bool.
        most: draw so many of them at random if there are more; 0 for all.

    Returns:
        [B, P] places, in order, and [B, P] bool which of them are learned; the others fill up rows.
    """
    if 0 < most < int(learned.sum()):
        chance = torch.rand(learned.shape, device=learned.device).masked_fill(~learned, 2.0)
        learned = chance <= chance.flatten().kthvalue(most).values
    longest = int(learned.sum(1).max())
    places = learned.int().argsort(stable=True, dim=1, descending=True)[:, :longest]
    return places, learned.gather(1, places)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of [n, V] logits over labels [n]; 0 if all are IGNORE."""
    total = nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORE, reduction="sum"
    )
    return total / (labels != IGNORE).sum().clamp_min(1)


@torch.no_grad()
def accuracies(name: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return how often the first and one of the first five of [n, V] logits are the label [n]."""
    learned = labels != IGNORE
    top = logits[learned].topk(min(5, logits.shape[-1])).indices
    hits = (top == labels[learned][:, None]).float()
    count = max(len(hits), 1)
    return {
        f"{name}_top1": float(hits[:, :1].sum()) / count,
        f"{name}_top5": float(hits.sum()) / count,
    }


@torch.no_grad()
def measure_accuracy(
    heads: Heads, target: Target, texts: Iterable[Text], width: int = 10
) -> list[list[float]]:
    """Return [depth][rank]: how often each guess is the label, over all texts."""
    hits = torch.zeros(heads.config.num_heads, width)
    count = torch.zeros(heads.config.num_heads)
    for text in texts:
        guesses = heads.guesses(text, target, width)
        for depth in range(guesses.shape[2]):
            wanted = text.ahead(depth + 2)
            learned = wanted != IGNORE
            right = guesses[:, :, depth][learned] == wanted[learned][:, None]
            hits[depth] += right.float().sum(0).cpu()
            count[depth] += int(learned.sum())
    return [[round(float(x), 4) for x in row] for row in hits / count.clamp_min(1)[:, None]]


@dataclass(frozen=True)
class HeadsOptions(Options):
    """See `nfox methods`."""

    tree: str = option(
        "auto", "auto (measured accuracy against measured cost), a published tree, or a JSON file"
    )
    nodes: int = option(trees.MOST_NODES - 1, "drafted tokens at most in one tree")

    def __post_init__(self) -> None:
        if self.nodes < 0:
            raise UsageError(f"nodes must not be negative: {self.nodes}")


class HeadsDrafter(Drafter):
    """A drafter made of heads and a shape of tree.

    Args:
        target: whose hidden states it reads, and whose embeddings it may use.
        heads: on the target's last device.
        shape: of the tree.
        name: of the heads, for the header.

    Attributes:
        heads_class: the layers of the method.
        prior: accuracy to size the tree by where none was measured.
        published: hub ids of published heads, by base.
    """

    options = HeadsOptions
    heads_class: ClassVar[type[Heads]]
    prior: ClassVar[trees.Accuracy] = ()
    published: ClassVar[dict[str, str]] = {}

    def __init__(self, target: Target, heads: Any, shape: trees.Shape, name: str = "") -> None:
        self.target = target
        self.heads = heads
        self.shape = shape
        self.name = name
        self.forbidden = False  # to draft anything, by an option

    @classmethod
    def method(cls) -> str:
        """Return the method's name, that of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def holds(cls, place: str, options: ModelOptions) -> checkpoint.About | None:
        """Say what heads of this method a folder or hub repository holds; None if none.

        Methods with published layouts of their own look for these as well.
        """
        found = checkpoint.about(place, options)
        return found if found and found.method == cls.method() else None

    @classmethod
    def read(cls, place: str, options: ModelOptions) -> dict[str, Tensor]:
        """Read the weights that `holds` found."""
        return checkpoint.read(place, options)

    @classmethod
    def find(cls, model: str, given: Places) -> str | None:
        """See `Drafter.find`."""
        if given.heads is not None:
            return given.heads if cls.holds(given.heads, given.hub) else None
        return weights_beside(model, cls.method())

    @classmethod
    def fetch(cls, model: str) -> str | None:
        """See `Drafter.fetch`."""
        return cls.published.get(model)

    @classmethod
    def export(cls, heads: Any, what: checkpoint.About, target: Target, folder: Path) -> None:
        """Write heads in the layout that was published for the method.

        Args:
            heads: as `load` gave them.
            what: they are.
            target: their base.
            folder: gets the files.

        Raises:
            UsageError: if there is no such layout.
        """
        raise UsageError(
            f"no layout was published for {cls.method()} heads", "their own folder can be shared"
        )

    @classmethod
    def build(cls, parts: Parts, options: HeadsOptions) -> Self:
        """See `Drafter.build`."""
        target, place = parts.model.target, str(parts.weights)
        heads, what = cls.load(parts.model.name, target, place, parts.hub)
        drafter = cls(target, heads, trees.Shape(()), place)
        drafter.shape = drafter.choose(options, what.accuracy or cls.prior, parts.costs)
        drafter.forbidden = options.nodes == 0
        return drafter

    @classmethod
    def load(
        cls, model: str, target: Target, place: str, hub: ModelOptions
    ) -> tuple[Any, checkpoint.About]:
        """Load heads and check that they fit a target; 16 bit on a 16 bit target, quantised or not.

        Raises:
            ModelError: if they are not there, not whole, or for another model.
        """
        what = cls.holds(place, hub)
        if what is None:
            raise ModelError(f"{place} holds no {cls.method()} heads", cls.advice(model))
        try:
            config = cls.heads_class.Config.model_validate(what.config)
        except ValidationError as error:
            first = error.errors()[0]
            raise ModelError(f"{place}: {first['loc'][0]}: {first['msg']}") from error
        ours = (target.hidden_size, target.vocabulary)
        if (config.hidden_size, config.vocab_size or ours[1]) != ours:
            raise ModelError(
                f"{place} was trained for {what.base} (hidden size {config.hidden_size}, "
                f"{config.vocab_size} tokens); {model} has hidden size {ours[0]}, {ours[1]} tokens",
                cls.advice(model),
            )
        if not target.unembeds:
            raise ModelError(
                f"{model} turns hidden states into logits in a way that heads cannot follow",
                "use --method lookup",
            )
        with torch.device("meta"):
            heads = cls.heads_class(config)
        heads = heads.to_empty(device="cpu")
        checkpoint.fill(heads, cls.read(place, hub), place)
        return heads.to(target.last_device, target.dtype).eval().requires_grad_(False), what

    @classmethod
    def advice(cls, model: str) -> str:
        """Return the command that trains heads of this method for a model."""
        return (
            f"train them: nfox train {cls.method()} --model_name_or_path {model} "
            "--data_path conversations.json --output_dir FOLDER, then --heads FOLDER"
        )

    def choose(
        self, options: HeadsOptions, accuracy: trees.Accuracy, costs: Costs | None
    ) -> trees.Shape:
        """Return the tree as asked for, or the one that promises the most here."""
        most = min(options.nodes, trees.MOST_NODES - 1)
        width = 10 if self.target.proposals == "trees" else 1
        depth = self.heads.config.num_heads
        if options.tree != "auto":
            shape = trees.named(options.tree)
            if shape.depth > depth:
                raise UsageError(
                    f"the tree {options.tree} is {shape.depth} deep, the heads draft {depth} ahead",
                    "choose a tree that is not deeper, or --tree auto",
                )
            return trees.Shape(shape.cut(depth, width).paths[:most])
        if not costs:
            return trees.best(accuracy, None, most=most, width=width)
        return trees.best(accuracy, costs, self.seconds(), most=most, width=width)

    def seconds(self) -> float:
        """Measure how long it takes to guess once, after a short past."""
        cache = self.target.new_cache()
        cache.reuse([0], (0,) if self.target.encodes else None)
        self.target.read([i % self.target.vocabulary for i in range(8)], cache)
        context = Context(cache, 0, [], [], self.heads.config.num_heads, make_rule())
        act: Callable[[], object] = partial(self.rows, context, 4)
        act()
        return min(timed(act, self.target.last_device) for _ in range(5))

    def propose(self, context: Context) -> TokenTree:
        """See `Drafter.propose`."""
        if not context.tokens or not self.shape or context.room < 1:
            return TokenTree.chain(context.root)
        guesses = self.rows(context, self.shape.width)
        return self.shape.fill(context.root, guesses, context.room)

    @abstractmethod
    def rows(self, context: Context, width: int) -> list[list[int]]:
        """Return [depth][rank] guesses of what follows the root, in inference mode.

        Args:
            context: with at least one token read.
            width: ranks for each depth.
        """

    def describe(self) -> str:
        """See `Drafter.describe`."""
        size = f"{self.name}, {len(self.shape)} nodes, {self.shape.depth} deep"
        return size + idleness(len(self.shape), given=self.forbidden)
