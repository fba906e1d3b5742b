"""What a person can set for any method with heads."""

from __future__ import annotations

from dataclasses import dataclass

from nfox.decoding.tree_shapes import MAX_NODES
from nfox.drafters.common.method import Options, option
from nfox.errors import UsageError

CHOSEN_BY_COSTS = ("auto", "measured")
"""The trees whose shape follows from what nodes cost; the others have as many nodes as they may."""

LARGEST = "largest"
"""The tree of each step's likeliest guesses, whatever they cost."""

_MAX_DRAFTED = MAX_NODES - 1  # nodes of a tree, the root not counted


@dataclass(frozen=True)
class HeadsOptions(Options):
    """What a person can set for any method with heads."""

    tree: str = option(
        "auto",
        "auto (the guesses of each step that pay here), largest (as many as --nodes allows), "
        "measured (one that pays by the heads' accuracy), a published tree, or a JSON file",
    )
    nodes: int = option(_MAX_DRAFTED, "drafted tokens at most in one tree")

    def __post_init__(self) -> None:
        if not 0 <= self.nodes <= _MAX_DRAFTED:
            raise UsageError(f"nodes must be 0 to {_MAX_DRAFTED}, not {self.nodes}")
