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
from typing_extensions import override

from nfox.decoding import published_trees as named_trees
from nfox.decoding import tree_shapes as trees
from nfox.decoding.costs import Costs, idle_reason, short_past, timed
from nfox.decoding.drafter import Context
from nfox.decoding.rules import make_rule
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import (
    DrafterInputs,
    Method,
    Options,
    SavedWeights,
    WeightSources,
    option,
    weights_beside,
)
from nfox.errors import ModelError, UsageError
from nfox.files.hub import HubOptions
from nfox.heads import checkpoint
from nfox.heads.base import Heads
from nfox.heads.compatibility import mismatch_warning
from nfox.models.options import LoadedModel

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


class HeadsDrafter(Method):
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
    published_heads: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        target: Target,
        heads: Any,
        shape: trees.Shape,
        name: str = "",
        prices: trees.NodeBudget | None = None,
    ) -> None:
        self.target = target
        self.heads = heads
        self.shape = shape
        self.name = name
        self.prices = prices
        self.forbidden = False  # to draft anything, by an option

    @override
    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> checkpoint.HeadsInfo | None:
        """Say what heads of this method a folder or hub repository holds; None if none.

        Methods with published layouts of their own look for these as well.
        """
        info = checkpoint.read_info(location, hub)
        return info if info and info.method == cls.method() else None

    @classmethod
    def read(cls, location: str, hub: HubOptions) -> dict[str, Tensor]:
        """Read the weights that `holds` found."""
        return checkpoint.read(location, hub)

    @override
    @classmethod
    def locate(cls, model: str, sources: WeightSources) -> str | None:
        if sources.heads is not None:
            return sources.heads if cls.inspect(sources.heads, sources.hub) else None
        return weights_beside(model, cls.method())

    @override
    @classmethod
    def published(cls, model: str) -> str | None:
        return cls.published_heads.get(model)

    @classmethod
    def export(cls, weights: SavedWeights, folder: Path) -> list[str]:
        """Write heads in the layout that was published for the method, else in nfox's own.

        Args:
            weights: the heads.
            folder: where the files are written.

        Returns:
            The names of the files.

        Raises:
            ModelError: if the heads are not whole.
        """
        checkpoint.write(folder, weights.info, cls.read(weights.location, weights.hub))
        return [checkpoint.INFO_FILE, checkpoint.WEIGHTS_FILE]

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: HeadsOptions) -> Self:
        location = str(inputs.weights)
        heads, info = cls.load(inputs.model, location, inputs.hub)
        drafter = cls(inputs.model.target, heads, trees.Shape(()), location)
        drafter.choose(options, info.accuracy or cls.prior, inputs.costs)
        drafter.forbidden = options.nodes == 0
        return drafter

    @classmethod
    def load(
        cls, model: LoadedModel, location: str, hub: HubOptions
    ) -> tuple[Any, checkpoint.HeadsInfo]:
        """Load heads onto the target's output device and in its dtype, and check that they fit it.
        Where they fit, but seem to be trained for another model, a warning is logged.

        Args:
            model: the target.
            location: folder or hub id of the heads.
            hub: how files are fetched.

        Returns:
            The heads, and what their folder says of them.

        Raises:
            ModelError: if they are not there, not whole, or for another model.
        """
        info, target = cls.inspect(location, hub), model.target
        if info is None:
            raise ModelError(f"{location} holds no {cls.method()} heads", cls.hint(model.name))
        try:
            config = cls.heads_class.Config.model_validate(info.config)
        except ValidationError as error:
            first = error.errors()[0]
            raise ModelError(f"{location}: {first['loc'][0]}: {first['msg']}") from error
        sizes = (target.hidden_size, target.vocabulary_size)
        if (config.hidden_size, config.vocab_size or sizes[1]) != sizes:
            raise ModelError(
                f"{location} was trained for {info.base} (hidden size {config.hidden_size}, "
                f"{config.vocab_size} tokens); {model.name} has hidden size {sizes[0]}, "
                f"{sizes[1]} tokens",
                cls.hint(model.name),
            )
        if not target.can_unembed:
            raise ModelError(
                f"{model.name} turns hidden states into logits in a way that heads cannot follow",
                "use --method lookup",
            )
        with torch.device("meta"):
            heads = cls.heads_class(config)
        heads = heads.to_empty(device="cpu")
        checkpoint.load_weights(heads, cls.read(location, hub), location)
        warning = mismatch_warning(info, location, model.name, model.target, model.adapter)
        if warning:
            log.warning(warning)
        return heads.to(target.output_device, target.dtype).eval().requires_grad_(False), info

    @override
    @classmethod
    def hint(cls, model: str) -> str:
        """Return the command that trains heads of this method for a model."""
        return (
            f"train them: nfox train {cls.method()} --model_name_or_path {model} "
            "--data_path conversations.json --output_dir FOLDER, then --heads FOLDER"
        )

    def choose(self, options: HeadsOptions, accuracy: trees.Accuracy, costs: Costs | None) -> None:
        """Take the tree that was asked for, or what promises the most here."""
        most, depth = min(options.nodes, trees.MOST_NODES - 1), self.heads.config.num_heads
        if options.tree not in ("auto", "measured"):
            shape = named_trees.named(options.tree, min(_WIDTH, self.target.vocabulary_size))
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
            self.prices = trees.NodeBudget(most, costs, rate, draft / depth)

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
            return min(timed(act, self.target.output_device) for _ in range(5))
        finally:
            self.shape, self.prices = fixed, prices

    @override
    def propose(self, context: Context) -> TokenTree:
        if not context.tokens or not self.shape or context.max_depth < 1:
            return TokenTree.chain(context.root)
        shape = self.shape
        guesses = self.guess(context, self.width if self.prices else shape.width)
        if self.prices:
            nodes = trees.likeliest(guesses.chances[: context.max_depth], self.width)
            shape = trees.Shape(tuple(self.prices.paying(nodes)))
        return shape.fill(context.root, guesses.tokens, context.max_depth)

    @abstractmethod
    def guess(self, context: Context, width: int) -> Guesses:
        """Return guesses of what follows the root, in inference mode.

        Args:
            context: with at least one token read.
            width: ranks for each depth.
        """

    @override
    def describe(self) -> str:
        about = "about " if self.prices else ""
        size = f"{self.name}, {about}{len(self.shape)} nodes, {self.shape.depth} deep"
        return size + idle_reason(len(self.shape), given=self.forbidden)
