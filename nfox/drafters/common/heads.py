"""Drafters made of heads: from the heads' guesses for each depth to a tree of those that pay.

A method's file has the layers (a `Heads`) and how they guess (a `HeadsDrafter`). Sizing and filling
the tree is the same for all methods and is here; `nfox.drafters.common.heads_weights` loads heads.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self

from typing_extensions import override

from nfox.counting import counted
from nfox.decoding import tree_shapes
from nfox.decoding.costs import Costs, idle_reason, sample_cache, time_call
from nfox.decoding.drafter import Context
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import make_rule
from nfox.decoding.target import Target, Vocabulary
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_shapes import TreeShape
from nfox.drafters.common import published_trees
from nfox.drafters.common.calibration import Calibration
from nfox.drafters.common.guesses import MAX_WIDTH, Guesses
from nfox.drafters.common.heads_options import CHOSEN_BY_COSTS, LARGEST, HeadsOptions
from nfox.drafters.common.heads_weights import HeadsMethod
from nfox.drafters.common.method import DrafterInputs
from nfox.known_models import without_package
from nfox.models.native.library import NativeLibraryError
from nfox.models.packed_layers import pack_layers
from nfox.models.unsupported import UnsupportedError

log = logging.getLogger(__name__)


class HeadsDrafter(HeadsMethod):
    """A drafter that fills a tree with the guesses of heads.

    Args:
        target: the model whose hidden states the heads read, and whose embeddings they may use.
        heads: an instance of `heads_class`, on the target's output device.
        shape: the shape of every tree, where there is no budget.
        name: the name of the heads, for the header.
        budget: what nodes cost; with it the tree of each step has the nodes that pay, which are
            the more, the surer the heads are.

    Attributes:
        prior_accuracy: the accuracy to choose the shape by where none was measured.
        native_class: what guesses by the native library, a `NativeGuesses` of the drafter.
        vocabulary: what the heads read their guesses with.
        calibration: how often guesses are right, as far as it decides the tree of this step.
    """

    options = HeadsOptions
    prior_accuracy: ClassVar[tree_shapes.Accuracy] = ()
    native_class: ClassVar[Any]

    def __init__(
        self,
        target: Target,
        heads: Any,
        shape: TreeShape,
        name: str = "",
        budget: NodeBudget | None = None,
    ) -> None:
        self.target = target
        self.vocabulary: Vocabulary = target
        self.heads = heads
        self.shape = shape
        self.name = name
        self.budget = budget
        self._learned = self.calibration = Calibration()
        self._options, self._accuracy = self.options(), self.prior_accuracy
        self._native: tuple[Vocabulary, Any] | None = None

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: HeadsOptions) -> Self:
        location = str(inputs.weights)
        heads, info = cls.load_heads(inputs.model, location, inputs.hub)
        pack_layers(heads)
        drafter = cls(inputs.model.target, heads, TreeShape(()), location)
        if not heads.has_own_vocabulary:
            frequent_tokens = info.frequent_tokens
            drafter.vocabulary = inputs.model.target.guessing_vocabulary(frequent_tokens)
        drafter.choose_tree(options, info.accuracy or cls.prior_accuracy, inputs.costs)
        return drafter

    def choose_tree(
        self, options: HeadsOptions, accuracy: tree_shapes.Accuracy, costs: Costs | None
    ) -> None:
        """Set the shape, and the budget where the tree is to differ from step to step.

        Args:
            options: of the person: which tree, and how many nodes at most.
            accuracy: [depth][rank] of the heads.
            costs: the seconds of a target forward over so many nodes; None if not measured.

        Raises:
            UsageError: if the tree does not exist, or is one of a file that is deeper than the
                heads draft.
        """
        self._options, self._accuracy = options, accuracy
        depth, max_nodes = self.heads.config.num_heads, options.nodes
        accuracy = accuracy[:depth]
        if options.tree == LARGEST:
            costs = None
        elif options.tree not in CHOSEN_BY_COSTS:
            width = self.max_width if self.target.proposals == "trees" else MAX_WIDTH
            shape = published_trees.find_shape(options.tree, width)
            shape = published_trees.cut_shape(options.tree, shape, depth, self.max_width)
            self.shape = TreeShape(shape.paths[:max_nodes])
            return
        depth_seconds = self.measure_draft_seconds() / self.max_depth if costs else 0.0
        bounds = {"max_nodes": max_nodes, "max_width": self.max_width}
        self.shape = tree_shapes.fastest_shape(accuracy, costs, depth_seconds * depth, **bounds)
        if options.tree in ("auto", LARGEST):
            self._choose_budget(costs, depth_seconds, max_nodes)

    def _choose_budget(self, costs: Costs | None, depth_seconds: float, max_nodes: int) -> None:
        """Set what nodes cost, for trees that differ from step to step.

        Accuracies of each depth by itself say too little of whole paths: guesses are right more
        often after right ones. So heads draft wherever guesses as good as a draft model's would
        pay, and the guesses of each step say whether they do.
        """
        depth, speed = self.heads.config.num_heads, 0.0
        if costs:
            deepest = min(self.max_depth, max_nodes)
            if not self.shape and costs.best_gamma(deepest, depth_seconds):
                self.shape = TreeShape.chain(deepest)
            step_seconds = costs.forward_seconds(len(self.shape) + 1) + depth_seconds * depth
            speed = self.shape.expected_tau(self._accuracy[:depth]) / step_seconds
            speed = max(speed, 1 / costs.forward_seconds(1))
        self.budget = NodeBudget(max_nodes, costs, speed, depth_seconds)

    @override
    def plan(self, costs: Costs) -> None:
        if self._options.tree in CHOSEN_BY_COSTS:
            self.choose_tree(self._options, self._accuracy, costs)

    @property
    @override
    def forecast(self) -> tuple[int, Sequence[float]]:
        if self._accuracy is self.prior_accuracy:
            return super().forecast
        return 1 + len(self.shape), self.shape.expected_reach(self._accuracy)

    @property
    def native(self) -> Any:
        """What guesses by the native library; None where it does not compute all of it."""
        if self._native is None or self._native[0] is not self.vocabulary:
            native = None
            try:
                native = self.native_class(self)
            except (NativeLibraryError, UnsupportedError) as error:
                log.debug("%s guesses by torch: %s", self.method_name(), error)
            self._native = self.vocabulary, native
        return self._native[1]

    @property
    def max_depth(self) -> int:
        """The most tokens after the root that are guessed where trees differ from step to step."""
        return int(self.heads.config.num_heads)

    @property
    def max_width(self) -> int:
        """The most guesses that are tried for one position: 1 where the target takes chains."""
        tokens = self.vocabulary.all_token_ids(self.target.vocabulary_size)
        return min(MAX_WIDTH, len(tokens)) if self.target.proposals == "trees" else 1

    def measure_draft_seconds(self) -> float:
        """Return how long it takes to propose one chain of all depths, after a few tokens read."""
        depth = self.max_depth
        context = Context(sample_cache(self.target), 0, [], [], depth, make_rule())
        shape, budget = self.shape, self.budget
        self.shape, self.budget = TreeShape.chain(depth), None
        try:
            propose = partial(self.propose, context)
            return min(time_call(propose, self.target.output_device) for _ in range(6))
        finally:
            self.shape, self.budget = shape, budget
            self.rewind(0)  # it has read the few tokens, not the conversation's

    @override
    def propose(self, context: Context) -> TokenTree:
        if not context.tokens or not self.shape or context.max_depth < 1:
            return TokenTree.chain(context.root)
        if not self.budget:
            guesses = self.guess(context, self.shape.width)
            return self.shape.fill(context.root, guesses.tokens_after, context.max_depth)
        self.calibration = self._calibration_for(context)
        guesses = self.guess(context, self.max_width)
        nodes = guesses.likeliest(self.calibration, context.max_depth, self.max_width)
        shape = TreeShape(tuple(self.budget.select(nodes)))
        tree = shape.fill(context.root, guesses.tokens_after, context.max_depth)
        self.calibration.expect(tree, guesses.path_probabilities(shape.paths))
        return tree

    def _calibration_for(self, context: Context) -> Calibration:
        """Return how often the heads' guesses were right so far, where that may decide anything."""
        if context.rule.follows_drafts or (self.budget and not self.budget.min_chance):
            return Calibration()  # so that one text has one draft while the plan is the same
        self._learned.learn(context.path)
        return self._learned

    @abstractmethod
    def guess(self, context: Context, width: int) -> Guesses:
        """Return the likeliest tokens of each depth below the root, without gradients.

        Args:
            context: of this step; at least one token was read.
            width: how many tokens for each depth.
        """

    @property
    @override
    def idle(self) -> str:
        return idle_reason(len(self.shape), is_explicit=self._options.nodes == 0)

    @override
    def describe(self) -> str:
        nodes = f"{'about ' if self.budget else ''}{counted(len(self.shape), 'node')}"
        name = without_package(self.name)
        return self._with_idle(f"{name}, {nodes}, {self.shape.depth} deep")
