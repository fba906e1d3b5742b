"""The steps of a reply in a table: which tokens each committed, of which source, and which drafted
tokens were refused.
"""

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
    from nfox.decoding.drafter import StepTimes
    from nfox.decoding.generate import Step
    from nfox.decoding.tree import Source

_DIM = Style(dim=True)
_SHOWN = 6  # refused tokens, and siblings at one depth of a wide tree, that are shown


@dataclass(frozen=True)
class Node:
    """A drafted token, without the tensors.

    Args:
        text: its text, with its spaces and newlines.
        depth: its depth in the tree; the tokens that follow the root have depth 1.
        accepted: whether it was accepted.
        p: the target's probability of it before temperature, if logits were kept.
        q: the draft model's probability of it, if that was kept.
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
        tokens: the texts of the committed tokens, with their spaces and newlines.
        sources: the source of each.
        nodes: the drafted tokens.
        seconds: how long each part of the step took.
        p: the target's probability of the last committed token, if logits were kept.
        choice: what the drafter chose to draft with; "" if it has no choice.
    """

    tokens: tuple[str, ...]
    sources: tuple[Source, ...]
    nodes: tuple[Node, ...]
    seconds: StepTimes
    p: float | None = None
    choice: str = ""


class StepRecorder:
    """Records the steps of a reply as texts and numbers, so that no tensors need to be kept.

    Args:
        tokenizer: the target's tokenizer.

    Attributes:
        records: the steps so far.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.records: list[StepRecord] = []

    def add(self, step: Step) -> None:
        """Record a step."""
        tree, path = step.tree, set(step.verdict.path)
        probabilities = None if step.logits is None else step.logits.float().softmax(-1)
        nodes = []
        for n in range(1, len(tree)):
            token, p, q = tree.tokens[n], None, None
            if probabilities is not None:
                p = float(probabilities[tree.parents[n], token])
                q = None if tree.q is None else float(tree.q[n, token])
            text = token_text(token, self._tokenizer)
            nodes.append(Node(text, tree.depths[n], n in path, p, q))
        parent = step.verdict.path[len(step.tokens) - 1]  # a stop token may cut the path
        last = None if probabilities is None else float(probabilities[parent, step.tokens[-1]])
        tokens = tuple(token_text(token, self._tokenizer) for token in step.tokens)
        self.records.append(
            StepRecord(tokens, step.sources, tuple(nodes), step.times, last, step.choice)
        )


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


def print_steps(
    records: Sequence[StepRecord], screen: Screen, console: Console, *, trees: bool
) -> None:
    """Print a table with a row for each step, and on demand its tree below the row.

    Args:
        records: the steps of a reply.
        screen: how tokens of each source are marked.
        console: the console to print on.
        trees: show every drafted token with its probabilities.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=_DIM)
    table.add_column("step", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("draft", justify="right")
    table.add_column("kept", justify="right")
    has_choices = any(record.choice for record in records)
    if has_choices:
        table.add_column("by")
    table.add_column(
        f"emitted, by draft depth or target {screen.symbols.raised[-1]}", overflow="fold"
    )
    table.add_column("refused", overflow="fold", style=_DIM)
    for number, record in enumerate(records, 1):
        accepted = sum(node.accepted for node in record.nodes)
        table.add_row(
            str(number),
            f"{record.seconds.total * 1e3:.1f}",
            f"{record.seconds.draft * 1e3:.1f}",
            f"{accepted}/{len(record.nodes)}",
            *([record.choice] if has_choices else []),
            _committed(record, screen),
            _refused(record, screen.symbols),
        )
        for line in _tree_lines(record, screen) if trees else ():
            table.add_row("", "", "", "", *([""] if has_choices else []), line, "")
    console.print(table)


def _committed(record: StepRecord, screen: Screen) -> Text:
    """Return the committed tokens, each with its draft depth or the sign of the target."""
    line = Text()
    for index, (token, source) in enumerate(zip(record.tokens, record.sources, strict=True), 1):
        line.append(visible(token, screen.symbols), screen.styles[source])
        raised = screen.symbols.depth(index) if source == "accepted" else screen.symbols.raised[-1]
        line.append(f"{raised} ", _DIM)
    return line


def _refused(record: StepRecord, symbols: Symbols) -> str:
    refused = [visible(node.text, symbols) for node in record.nodes if not node.accepted]
    more = [symbols.ellipsis] if len(refused) > _SHOWN else []
    return " ".join(refused[:_SHOWN] + more)


def _tree_lines(record: StepRecord, screen: Screen) -> Iterator[Text]:
    """Yield the drafted tokens, a line for each depth, the accepted token first."""
    symbols = screen.symbols
    for depth in sorted({node.depth for node in record.nodes}):
        nodes = [node for node in record.nodes if node.depth == depth]
        nodes.sort(key=lambda node: (not node.accepted, -(node.p or 0.0)))
        texts = [_describe(node, symbols) for node in nodes[:_SHOWN]]
        more = f"  {symbols.ellipsis} {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
        yield Text(f"{symbols.depth(depth)}  {'  '.join(texts)}{more}", _DIM)
    if record.p is not None and record.sources[-1] != "accepted":
        yield Text(
            f"{symbols.raised[-1]}  {visible(record.tokens[-1], symbols)} p={record.p:.3f}", _DIM
        )


def _describe(node: Node, symbols: Symbols) -> str:
    """Return a drafted token with its mark and its probabilities."""
    mark = symbols.yes if node.accepted else symbols.no
    p = "" if node.p is None else f" p={node.p:.3f}"
    q = "" if node.q is None else f" q={node.q:.3f}"
    return f"{mark} {visible(node.text, symbols)}{p}{q}"
