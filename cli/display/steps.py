"""What happened in each step of a reply: what it emitted, from where, and what was refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from .reply_view import clean
from .theme import Screen, Symbols

if TYPE_CHECKING:
    from nfox.decoding.generate import Seconds, Step
    from nfox.decoding.tree import Source

_DIM = Style(dim=True)
_SHOWN = 6  # refused tokens, and siblings at one depth of a wide tree, that are shown


@dataclass(frozen=True)
class Node:
    """A drafted token.

    Args:
        text: what it says.
        depth: 1 follows the root.
        accepted: whether the target took it.
        p: the target's probability of it before temperature, if that was kept.
        q: the draft model's, if it was kept.
    """

    text: str
    depth: int
    accepted: bool
    p: float | None = None
    q: float | None = None


@dataclass(frozen=True)
class StepRecord:
    """A step, without the tensors.

    Args:
        tokens: what was emitted.
        sources: from where.
        nodes: what was drafted.
        seconds: where the time went.
        p: the target's probability of the last token.
    """

    tokens: tuple[str, ...]
    sources: tuple[Source, ...]
    nodes: tuple[Node, ...]
    seconds: Seconds
    p: float | None = None


class Recorder:
    """Keeps the steps of a reply in words.

    Args:
        tokenizer: spells tokens.
        symbols: for spaces and newlines.
    """

    def __init__(self, tokenizer: Any, symbols: Symbols) -> None:
        self._tokenizer = tokenizer
        self._symbols = symbols
        self.records: list[StepRecord] = []

    def add(self, step: Step) -> None:
        """Keep a step."""
        tree, path = step.tree, set(step.verdict.path)
        scores = None if step.logits is None else step.logits.float().softmax(-1)
        nodes = tuple(
            Node(
                spell(tree.tokens[n], self._tokenizer, self._symbols),
                tree.depths[n],
                n in path,
                None if scores is None else float(scores[tree.parents[n], tree.tokens[n]]),
                None if scores is None or tree.q is None else float(tree.q[n, tree.tokens[n]]),
            )
            for n in range(1, len(tree))
        )
        before = step.verdict.path[len(step.tokens) - 1]  # a stop token may cut the path
        p = None if scores is None else float(scores[before, step.tokens[-1]])
        tokens = tuple(spell(token, self._tokenizer, self._symbols) for token in step.tokens)
        self.records.append(StepRecord(tokens, step.sources, nodes, step.seconds, p))


def spell(token: int, tokenizer: Any, symbols: Symbols) -> str:
    """Write a token so that its spaces can be seen."""
    # After another token a SentencePiece tokenizer keeps the space in front of a word.
    text = tokenizer.decode([token, token])[len(tokenizer.decode([token])) :]
    return clean(text.replace("\n", symbols.newline)).replace(" ", symbols.space)


def print_steps(
    records: Sequence[StepRecord], screen: Screen, console: Console, *, trees: bool
) -> None:
    """Print a row for each step, and its tree below it.

    Args:
        records: of a reply.
        screen: says how sources are marked.
        console: where to print.
        trees: show every drafted token with its probabilities.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=_DIM)
    table.add_column("step", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("draft", justify="right")
    table.add_column("kept", justify="right")
    table.add_column(
        f"emitted, by draft depth or target {screen.symbols.raised[-1]}", overflow="fold"
    )
    table.add_column("refused", overflow="fold", style=_DIM)
    for number, record in enumerate(records, 1):
        kept = sum(node.accepted for node in record.nodes)
        table.add_row(
            str(number),
            f"{record.seconds.total * 1e3:.1f}",
            f"{record.seconds.draft * 1e3:.1f}",
            f"{kept}/{len(record.nodes)}",
            _emitted(record, screen),
            _refused(record, screen.symbols),
        )
        for line in _tree(record, screen) if trees else ():
            table.add_row("", "", "", "", line, "")
    console.print(table)


def _emitted(record: StepRecord, screen: Screen) -> Text:
    line = Text()
    for index, (token, source) in enumerate(zip(record.tokens, record.sources, strict=True), 1):
        line.append(token, screen.styles[source])
        raised = screen.symbols.depth(index) if source == "accepted" else screen.symbols.raised[-1]
        line.append(f"{raised} ", _DIM)
    return line


def _refused(record: StepRecord, symbols: Symbols) -> str:
    refused = [node.text for node in record.nodes if not node.accepted]
    more = [symbols.ellipsis] if len(refused) > _SHOWN else []
    return " ".join(refused[:_SHOWN] + more)


def _tree(record: StepRecord, screen: Screen) -> Iterator[Text]:
    """Write what was drafted, a line per depth, the accepted token first."""
    symbols = screen.symbols
    for depth in sorted({node.depth for node in record.nodes}):
        here = [node for node in record.nodes if node.depth == depth]
        here.sort(key=lambda node: (not node.accepted, -(node.p or 0.0)))
        words = [_node(node, symbols) for node in here[:_SHOWN]]
        more = f"  {symbols.ellipsis} {len(here) - _SHOWN} more" if len(here) > _SHOWN else ""
        yield Text(f"{symbols.depth(depth)}  {'  '.join(words)}{more}", _DIM)
    if record.p is not None and record.sources[-1] != "accepted":
        yield Text(f"{symbols.raised[-1]}  {record.tokens[-1]} p={record.p:.3f}", _DIM)


def _node(node: Node, symbols: Symbols) -> str:
    mark = symbols.yes if node.accepted else symbols.no
    p = "" if node.p is None else f" p={node.p:.3f}"
    q = "" if node.q is None else f" q={node.q:.3f}"
    return f"{mark} {node.text}{p}{q}"
