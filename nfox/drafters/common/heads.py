"""Drafters made of heads.

A method's file has the layers (a `Heads`) and how they propose (a `HeadsDrafter`); finding,
loading, checking and sizing the tree are the same for all and are here.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import ValidationError
from torch import Tensor

from nfox.decoding import published_trees as named_trees
from nfox.decoding import tree_shapes as trees
from nfox.decoding.costs import Costs, idleness, short_past, timed
from nfox.decoding.rules import make_rule
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import (
    Context,
    Drafter,
    Options,
    Parts,
    Places,
    option,
    weights_beside,
)
from nfox.errors import ModelError, UsageError
from nfox.heads import checkpoint
from nfox.heads.base import Heads
from nfox.heads.compatibility import doubt
from nfox.models.loading import ModelOptions

log = logging.getLogger(__name__)

_WIDTH = 10  # guesses for one place; published trees have no more


@dataclass(frozen=True)
class Guesses:
    """What may follow the root.

    Args:
        tokens: [depth][rank], those of one depth all different.
        chances: [depth][rank] how sure the heads are of each, falling from rank to rank.
    """

    tokens: list[list[int]]
    chances: list[list[float]]

    @staticmethod
    def of(logits: Tensor, width: int) -> Guesses:
        """Take the likeliest tokens of [depth, V] logits."""
        found, whole = logits.topk(width), logits.float().logsumexp(-1, keepdim=True)
        return Guesses(found.indices.tolist(), (found.values - whole).exp().tolist())


@dataclass(frozen=True)
class HeadsOptions(Options):
    """See `nfox methods`."""

    tree: str = option(
        "auto",
        "auto (the guesses of each step that pay here), measured (one that pays by the heads' "
        "accuracy), a published tree, or a JSON file",
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
        prices: of nodes; with them every step's tree is as large as its guesses are sure.

    Attributes:
        heads_class: the layers of the method.
        prior: accuracy to size the tree by where none was measured.
        published: hub ids of published heads, by base.
    """

    options = HeadsOptions
    heads_class: ClassVar[type[Heads]]
    prior: ClassVar[trees.Accuracy] = ()
    published: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        target: Target,
        heads: Any,
        shape: trees.Shape,
        name: str = "",
        prices: trees.Prices | None = None,
    ) -> None:
        self.target = target
        self.heads = heads
        self.shape = shape
        self.name = name
        self.prices = prices
        self.forbidden = False  # to draft anything, by an option

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
    def export(
        cls, place: str, what: checkpoint.About, base: str, hub: ModelOptions, folder: Path
    ) -> list[str]:
        """Write heads in the layout that was published for the method, else in our own.

        Args:
            place: folder or hub id of the heads.
            what: they are, with the name of their base to write down.
            base: folder or hub id to load the base from, where the layout needs something of it.
            hub: how files are fetched.
            folder: gets the files.

        Returns:
            Their names.

        Raises:
            ModelError: if the heads are not whole.
        """
        checkpoint.write(folder, what, cls.read(place, hub))
        return [checkpoint.ABOUT, checkpoint.WEIGHTS]

    @classmethod
    def build(cls, parts: Parts, options: HeadsOptions) -> Self:
        """See `Drafter.build`."""
        target, place = parts.model.target, str(parts.weights)
        heads, what = cls.load(parts.model.name, target, place, parts.hub)
        drafter = cls(target, heads, trees.Shape(()), place)
        drafter.choose(options, what.accuracy or cls.prior, parts.costs)
        drafter.forbidden = options.nodes == 0
        return drafter

    @classmethod
    def load(
        cls, model: str, target: Target, place: str, hub: ModelOptions
    ) -> tuple[Any, checkpoint.About]:
        """Load heads and check that they fit a target; 16 bit on a 16 bit target, quantised or not.
        Where they fit, but seem to be for another one, a line is logged.

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
        doubted = doubt(what, place, model, target, hub)
        if doubted:
            log.warning(doubted)
        return heads.to(target.last_device, target.dtype).eval().requires_grad_(False), what

    @classmethod
    def advice(cls, model: str) -> str:
        """Return the command that trains heads of this method for a model."""
        return (
            f"train them: nfox train {cls.method()} --model_name_or_path {model} "
            "--data_path conversations.json --output_dir FOLDER, then --heads FOLDER"
        )

    def choose(self, options: HeadsOptions, accuracy: trees.Accuracy, costs: Costs | None) -> None:
        """Take the tree that was asked for, or what promises the most here."""
        most, depth = min(options.nodes, trees.MOST_NODES - 1), self.heads.config.num_heads
        if options.tree not in ("auto", "measured"):
            shape = named_trees.named(options.tree, min(_WIDTH, self.target.vocabulary))
            if shape.depth > depth:
                raise UsageError(
                    f"the tree {options.tree} is {shape.depth} deep, the heads draft {depth} ahead",
                    "choose a tree that is not deeper, or --tree auto",
                )
            self.shape = trees.Shape(shape.cut(depth, self.width).paths[:most])
            return
        draft = self.seconds() if costs else 0.0
        self.shape = trees.best(accuracy, costs, draft, most=most, width=self.width)
        if options.tree == "auto":
            step = costs.at(len(self.shape) + 1) + draft if costs else 1.0
            rate = self.shape.tau(accuracy) / step
            self.prices = trees.Prices(most, costs, rate, draft / depth)

    @property
    def width(self) -> int:
        """How many guesses are tried in one place at most."""
        return _WIDTH if self.target.proposals == "trees" else 1

    def seconds(self) -> float:
        """Measure how long it takes to propose once, after a short past."""
        cache, depth = short_past(self.target), self.heads.config.num_heads
        context = Context(cache, 0, [], [], depth, make_rule())
        fixed, prices = self.shape, self.prices
        self.shape, self.prices = trees.Shape(tuple((0,) * n for n in range(1, 1 + depth))), None
        try:
            self.propose(context)
            act = partial(self.propose, context)
            return min(timed(act, self.target.last_device) for _ in range(5))
        finally:
            self.shape, self.prices = fixed, prices

    def propose(self, context: Context) -> TokenTree:
        """See `Drafter.propose`."""
        if not context.tokens or not self.shape or context.room < 1:
            return TokenTree.chain(context.root)
        shape = self.shape
        guesses = self.guess(context, self.width if self.prices else shape.width)
        if self.prices:
            nodes = trees.likeliest(guesses.chances[: context.room], self.width)
            shape = trees.Shape(tuple(self.prices.paying(nodes)))
        return shape.fill(context.root, guesses.tokens, context.room)

    @abstractmethod
    def guess(self, context: Context, width: int) -> Guesses:
        """Return guesses of what follows the root, in inference mode.

        Args:
            context: with at least one token read.
            width: ranks for each depth.
        """

    def describe(self) -> str:
        """See `Drafter.describe`."""
        about = "about " if self.prices else ""
        size = f"{self.name}, {about}{len(self.shape)} nodes, {self.shape.depth} deep"
        return size + idleness(len(self.shape), given=self.forbidden)
