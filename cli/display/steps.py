"""The steps of a reply as they were: what was drafted, what became of it, what was emitted.

`step_table` and `step_trees` draw them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .reply_view import clean
from .theme import Symbols

if TYPE_CHECKING:
    from nfox.decoding.drafter import StepTimes
    from nfox.decoding.generate import Step
    from nfox.decoding.tree import Source

Outcome = Literal["accepted", "refused", "unjudged"]
"""What became of a drafted token: "unjudged" is one that follows a refused one, or the token that
ended the reply.
"""


PARTS = {
    "draft": "drafting",
    "target": "forward",
    "verify": "checking",
    "cache": "cache",
    "other": "rest",
}
"""The parts of a step's time, in words."""


class TokenTexts:
    """The texts of tokens, which are looked up only when they are shown.

    Args:
        tokenizer: the target's tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """Return the text of a token that follows another one, with its spaces and newlines."""
        text = self._known.get(token)
        if text is None:
            text = self._known[token] = token_text(token, self._tokenizer)
        return text


@dataclass(frozen=True)
class Node:
    """A drafted token, without the tensors.

    Args:
        token: its id.
        parent: the index of the node that it follows, 0 for the root.
        outcome: what became of it.
        p: the target's probability of it before temperature, if it was judged and logits were kept.
        q: the draft model's probability of it, if that was kept too.
    """

    token: int
    parent: int
    outcome: Outcome
    p: float | None = None
    q: float | None = None


@dataclass(frozen=True)
class StepRecord:
    """A step, without the tensors.

    Args:
        root: the token that everything drafted follows.
        ids: the emitted tokens.
        sources: the source of each.
        nodes: the drafted tokens; node N of the tree is the one before N.
        seconds: how long each part of the step took.
        texts: returns the text of a token.
        p: the target's probability of the last emitted token, if logits were kept and anything
            was drafted.
        choice: what the drafter chose to draft with; "" if it has no choice.
    """

    root: int
    ids: tuple[int, ...]
    sources: tuple[Source, ...]
    nodes: tuple[Node, ...]
    seconds: StepTimes
    texts: TokenTexts
    p: float | None = None
    choice: str = ""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The texts of the emitted tokens, with their spaces and newlines."""
        return tuple(map(self.texts, self.ids))

    @property
    def accepted(self) -> int:
        """How many drafted tokens were accepted and emitted."""
        return self.sources.count("accepted")


class StepRecorder:
    """Records the steps of a reply as numbers, so that no tensors need to be kept.

    Args:
        tokenizer: the target's tokenizer.

    Attributes:
        records: the steps so far.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._texts = TokenTexts(tokenizer)
        self.records: list[StepRecord] = []

    def add(self, step: Step) -> None:
        """Record a step."""
        tree = step.tree
        accepted = step.sources.count("accepted")
        kept = step.verdict.path[: accepted + 1]  # a stop token may cut the path
        judging = kept[: len(step.tokens)]  # what follows the token that ended it is not judged
        p, q, last = _probabilities(step, kept)
        nodes = []
        for n, parent in enumerate(tree.parents[1:], 1):
            outcome: Outcome = "refused" if parent in judging else "unjudged"
            outcome = "accepted" if n in kept else outcome
            nodes.append(Node(tree.tokens[n], parent, outcome, p.get(n), q.get(n)))
        self.records.append(
            StepRecord(
                tree.tokens[0],
                step.tokens,
                step.sources,
                tuple(nodes),
                step.times,
                self._texts,
                last,
                step.choice,
            )
        )


def _probabilities(
    step: Step, kept: Sequence[int]
) -> tuple[dict[int, float], dict[int, float], float | None]:
    """Return the target's and the draft model's probability of each node that follows an accepted
    one, and the target's of the last emitted token, as far as they are known; none of a step that
    drafted nothing, which would cost as much to record as one that did.

    Args:
        step: the step.
        kept: the accepted nodes, the root first.
    """
    if step.logits is None or len(step.tree) == 1:
        return {}, {}, None
    tree, place = step.tree, {node: row for row, node in enumerate(kept)}
    nodes = [n for n, parent in enumerate(tree.parents) if parent in place]
    rows = [*(place[tree.parents[n]] for n in nodes), len(step.tokens) - 1]
    tokens = [tree.tokens[n] for n in nodes]
    of_target = step.logits[list(kept)].float().softmax(-1)
    *p, last = of_target[rows, [*tokens, step.tokens[-1]]].tolist()
    q = tree.q[nodes, tokens].tolist() if tree.q is not None and nodes else []
    return dict(zip(nodes, p, strict=True)), dict(zip(nodes, q, strict=False)), last


def token_text(token: int, tokenizer: Any) -> str:
    """Return the text of a token that follows another one."""
    # After another token a SentencePiece tokenizer keeps the space in front of a word.
    text: str = tokenizer.decode([token, token])[len(tokenizer.decode([token])) :]
    return text


def visible(text: str, symbols: Symbols) -> str:
    """Return a text with symbols instead of its spaces and newlines."""
    return clean(text.replace("\n", symbols.newline)).replace(" ", symbols.space)


def visible_text(token: int, tokenizer: Any, symbols: Symbols) -> str:
    """Return the text of a token, with symbols instead of its spaces and newlines."""
    return visible(token_text(token, tokenizer), symbols)
