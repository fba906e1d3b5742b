"""The steps of a reply in a table: which tokens each emitted, of which source, and which guesses of
the drafter were refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from .steps import StepRecord, visible
from .theme import Screen, Symbols

_DIM = Style(dim=True)
_SHOWN = 6  # refused tokens of a row


def print_table(records: Sequence[StepRecord], screen: Screen, console: Console) -> None:
    """Print a table with a row for each step.

    Args:
        records: the steps of a reply.
        screen: how tokens of each source are marked.
        console: the console to print on.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=_DIM)
    table.add_column("step", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("draft", justify="right")
    table.add_column("kept", justify="right")
    has_choices = any(record.choice for record in records)
    if has_choices:
        table.add_column("by")
    first, own = screen.symbols.depth(1), screen.symbols.raised[-1]
    table.add_column(f"emitted ({first} drafted, {own} own)", overflow="fold")
    table.add_column("refused", overflow="fold", style=_DIM)
    for number, record in enumerate(records, 1):
        table.add_row(
            str(number),
            f"{record.seconds.total * 1e3:.1f}",
            f"{record.seconds.draft * 1e3:.1f}",
            f"{record.accepted}/{len(record.nodes)}",
            *([record.choice] if has_choices else []),
            _emitted(record, screen),
            _refused(record, screen.symbols),
        )
    console.print(table)


def _emitted(record: StepRecord, screen: Screen) -> Text:
    """Return the emitted tokens, each with its draft depth or the sign of the target."""
    line = Text()
    for index, (token, source) in enumerate(zip(record.tokens, record.sources, strict=True), 1):
        line.append(visible(token, screen.symbols), screen.styles[source])
        raised = screen.symbols.depth(index) if source == "accepted" else screen.symbols.raised[-1]
        line.append(f"{raised} ", _DIM)
    return line


def _refused(record: StepRecord, symbols: Symbols) -> str:
    """Return the refused tokens, with a sign where more was drafted behind them."""
    refused = [node for node in record.nodes if node.outcome == "refused"]
    texts = [visible(record.texts(node.token), symbols) for node in refused[:_SHOWN]]
    left_out = len(record.nodes) - record.accepted - len(texts)
    return " ".join(texts + [symbols.ellipsis] * (left_out > 0))
