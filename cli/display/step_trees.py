"""What each step of a reply drafted, as a tree: below a token stand the guesses that follow it, the
refused ones first, and the accepted one, or the target's own token, last.

Tokens that follow one another without another guess stand in one row. Refused ones are cut at the
edge of the screen, and left out where they are many, unless one step is shown whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.style import Style
from rich.text import Text

from .steps import PARTS, Node, StepRecord, visible
from .theme import Screen, Symbols
from .tree_rows import GAP, Branch, drawn

_DIM = Style(dim=True)
_ROWS = 3  # of refused tokens with others behind them, below one token
_TELLING = 0.005  # from either end: nearer to 0 or 1, a probability is not shown


def print_trees(
    records: Sequence[StepRecord],
    screen: Screen,
    console: Console,
    first: int = 1,
    most: int | None = None,
) -> int:
    """Print what each step drafted, its number before it; steps without drafts stand together.

    Args:
        records: the steps of a reply.
        screen: how tokens of each source are marked.
        console: the console to print on.
        first: the number of the step to begin with.
        most: rows to print; None for all. What stands together is printed whole.

    Returns:
        The number of the last step that was printed.
    """
    numbered = list(enumerate(records, 1))[first - 1 :]
    groups = groupby(numbered, lambda step: step[0] if step[1].nodes else 0)
    blocks, last, printed = [list(steps) for _, steps in groups], first - 1, 0
    names = [_name(block) for block in blocks]
    choices = ["/".join(dict.fromkeys(record.choice for _, record in block)) for block in blocks]
    cells = [max(map(len, column)) for column in (names, choices)]
    indent = cells[0] + len(GAP) + (cells[1] + len(GAP) if cells[1] else 0)
    for name, choice, block in zip(names, choices, blocks, strict=True):
        head = f"{name.rjust(cells[0])}{GAP}{choice}".ljust(indent)
        rows = list(_rows([record for _, record in block], screen, console.width - indent))
        if most is not None and printed and printed + len(rows) > most:
            break
        last, printed = block[-1][0], printed + len(rows)
        for row in rows:
            console.print(Text(head, _DIM) + row, no_wrap=True, overflow="crop")
            head = " " * indent
    return last


def print_whole(
    number: int, records: Sequence[StepRecord], screen: Screen, console: Console
) -> None:
    """Print all that one step drafted, with the probabilities of every judged token.

    Args:
        number: of the step, from 1.
        records: the steps of a reply.
        screen: how tokens of each source are marked.
        console: the console to print on.
    """
    record = records[number - 1]
    root = visible(record.texts(record.root), screen.symbols)
    parts = vars(record.seconds)
    times = ", ".join(f"{word} {parts[name] * 1e3:.1f}" for name, word in PARTS.items())
    lines = (
        f"step {number} of {len(records)}: {record.accepted} of {len(record.nodes)} drafted "
        f"tokens accepted after {root}",
        f"{record.seconds.total * 1e3:.1f} ms: {times}"
        + (f"; drafted by {record.choice}" if record.choice else ""),
    )
    console.print(Text("\n".join(lines), _DIM))
    branches = _Tree(record, screen, is_whole=True).below(0)
    for row in drawn(branches, screen.symbols, console.width):
        console.print(row)


def meanings(records: Sequence[StepRecord], symbols: Symbols) -> Iterator[str]:
    """Yield lines that say how the trees of some steps are to be read."""
    line = f"{symbols.yes} accepted  {symbols.no} refused, what follows it was not judged"
    yield f"{line}  {symbols.raised[-1]} the model's own"
    if any(record.p is not None for record in records):
        yield "%: the model's probability, where it is neither 0 nor 100"


def _name(block: Sequence[tuple[int, StepRecord]]) -> str:
    """Return the number of a step, or the first and the last of several."""
    first, last = block[0][0], block[-1][0]
    return str(first) if first == last else f"{first}-{last}"


def _rows(records: Sequence[StepRecord], screen: Screen, width: int) -> Iterator[Text]:
    """Yield the rows of one step, or those of several without drafts."""
    if records[0].nodes:
        return drawn(_Tree(records[0], screen).below(0), screen.symbols, width)
    own = [(_Tree(record, screen).own_token(), 0) for record in records]
    return Branch(f"{screen.symbols.raised[-1]} ", " ", own).rows(width)


class _Tree:
    """Makes branches of what one step drafted.

    Args:
        record: the step.
        screen: how tokens of each source are marked.
        is_whole: whether nothing is left out.
    """

    def __init__(self, record: StepRecord, screen: Screen, *, is_whole: bool = False) -> None:
        self._record, self._screen, self._symbols = record, screen, screen.symbols
        self._is_whole = is_whole
        self._children: dict[int, list[int]] = {}
        for n, node in enumerate(record.nodes, 1):
            self._children.setdefault(node.parent, []).append(n)
        self._sizes = [1] * (1 + len(record.nodes))  # of nodes with all that follow them
        for n in range(len(record.nodes), 0, -1):
            self._sizes[self._node(n).parent] += self._sizes[n]
        is_ended = record.accepted == len(record.ids)  # by an accepted token
        kept = [n for n, node in enumerate(record.nodes, 1) if node.outcome == "accepted"]
        self._before_own = -1 if is_ended else max(kept, default=0)

    def own_token(self) -> Text:
        """Return the target's own token."""
        record = self._record
        return self._token(record.ids[-1], self._screen.styles[record.sources[-1]], record.p)

    def below(self, parent: int) -> list[Branch]:
        """Return the branches of what follows a node, the accepted or the target's own last."""
        nodes = sorted(self._children.get(parent, ()), key=lambda n: -(self._node(n).p or 0.0))
        kept = [n for n in nodes if self._node(n).outcome == "accepted"]
        others = [n for n in nodes if n not in kept]
        branches = [self._chain(n) for n in others] if self._is_whole else self._fewer(others)
        branches += [self._chain(n) for n in kept]
        if parent == self._before_own:
            branches.append(Branch(f"{self._symbols.raised[-1]} ", "", [(self.own_token(), 0)]))
        return branches

    def _fewer(self, nodes: Sequence[int]) -> list[Branch]:
        """Return branches of tokens that were not accepted: a few with the first that follow them,
        and one of those that nothing follows; the likely ones first.
        """
        if nodes and self._node(nodes[0]).outcome == "unjudged":
            return [Branch("", "", [], is_cut=True, more=self._count(nodes))]
        inner = [n for n in nodes if n in self._children]
        leaves = [(self._text(n), 1) for n in nodes if n not in self._children]
        branches = [self._first(n) for n in inner[:_ROWS]]
        if leaves or inner[_ROWS:]:
            more = self._count(inner[_ROWS:])
            branches.append(Branch(f"{self._symbols.no} ", GAP, leaves, is_cut=True, more=more))
        return branches

    def _first(self, n: int) -> Branch:
        """Return a refused token and what follows it, up to a fork, in one row."""
        branch = self._chain(n)
        branch.more, branch.below, branch.is_cut = self._count([n]) - len(branch.parts), [], True
        repeated = groupby(branch.parts, lambda part: part[0].plain)
        branch.parts = [self._times([text for text, _ in parts]) for _, parts in repeated]
        return branch

    def _times(self, texts: Sequence[Text]) -> tuple[Text, int]:
        """Return a token that is drafted so often in a row as one, with its number."""
        count = len(texts)
        return texts[0] + Text(f" x{count}" * (count > 1), _DIM), count

    def _count(self, nodes: Sequence[int]) -> int:
        """Return how many nodes there are, with all that follow them."""
        return sum(self._sizes[n] for n in nodes)

    def _chain(self, n: int) -> Branch:
        """Return a node and what alone follows it, and what is below that."""
        outcome, own = self._node(n).outcome, self._symbols.raised[-1]
        marks = {"accepted": f"{self._symbols.yes} ", "refused": f"{self._symbols.no} "}
        branch = Branch(marks.get(outcome, ""), self._symbols.guides[-1], [(self._text(n), 1)])
        while len(following := self._children.get(n, [])) == 1 and n != self._before_own:
            if outcome == "accepted" != self._node(following[0]).outcome:
                break
            n = following[0]
            branch.parts.append((self._text(n), 1))
        if n == self._before_own and not following:
            branch.parts.append((Text(f"{own} ") + self.own_token(), 0))
        else:
            branch.below = self.below(n)
        return branch

    def _node(self, n: int) -> Node:
        return self._record.nodes[n - 1]

    def _text(self, n: int) -> Text:
        """Return a drafted token, with its probabilities if it was judged."""
        node = self._node(n)
        if node.outcome == "accepted":
            return self._token(node.token, self._screen.styles["accepted"], node.p, node.q)
        p = node.p if node.outcome == "refused" else None
        return self._token(node.token, _DIM, p, node.q)

    def _token(self, token: int, style: Style, p: float | None, q: float | None = None) -> Text:
        """Return a token and its probabilities."""
        text = Text(visible(self._record.texts(token), self._symbols), style)
        if p is None:
            return text
        if self._is_whole:
            return text + Text(f" p={p:.3g}" + ("" if q is None else f" q={q:.3g}"), _DIM)
        return text + Text(f" {p:.0%}" if _TELLING <= p < 1 - _TELLING else "", _DIM)
