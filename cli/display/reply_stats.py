"""The numbers of a reply in words: the status row, the footer, the details of -v."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from typing_extensions import override

from nfox.counting import counted
from nfox.decoding.costs import WIDTHS
from nfox.text.resolve import is_foreign

from .steps import PARTS
from .theme import Screen, Symbols

if TYPE_CHECKING:
    from nfox.decoding.costs import Costs
    from nfox.decoding.stats import Stats
    from nfox.engine import Engine
    from nfox.reply import Exchange, Reply

NAME_CELLS = 10
"""Cells of the name that each line of `details` begins with."""
_DIM = Style(dim=True)
_RECENT = 16  # steps whose speed the status row shows
FINISHES = {
    "length": "cut at {limit} tokens",
    "context": "the context is full",
    "interrupt": "stopped",
}


def empty_reply(engine: Engine) -> str:
    """Return what is said of a reply without any text, and which template may be the reason."""
    template, tokenizer = engine.template, engine.model.tokenizer
    words = "(an empty reply: it ended at once"
    if tokenizer is not None and is_foreign(template, tokenizer):
        words += f"; the template {template.name} is not the model's own: /template tokenizer"
    return f"{words})"


class Speed:
    """The tokens per second of the last few steps, to be shown while a reply grows."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=_RECENT)

    def add(self, tokens: int, seconds: float) -> None:
        """Count a step that committed so many tokens in so many seconds."""
        self._steps.append((tokens, seconds))

    @override
    def __str__(self) -> str:
        tokens, seconds = (sum(column) for column in zip(*self._steps, strict=True))
        return f"{tokens / seconds:.1f} tok/s" if seconds else ""


def join_fitting(parts: Sequence[str], width: int, dot: str) -> str:
    """Join the parts that fit into a row of so many cells; a part that does not fit is left out."""
    row = ""
    for part in filter(None, parts):
        longer = row + dot + part if row else part
        if cell_len(longer) <= width:
            row = longer
    return row


def short_count(number: int) -> str:
    """Return a count of tokens in about four characters: 950, 2k, 13.4k."""
    return str(number) if number < 1000 else f"{number / 1000:.1f}k".replace(".0k", "k")


def status_row(engine: Engine, reply: Reply, speed: Speed, screen: Screen) -> Text:
    """Return the row that is shown below a growing reply."""
    stats, symbols, width = reply.stats, screen.symbols, screen.console.width
    parts = (
        str(speed),
        f"{symbols.tau} {stats.tau:.2f}",
        f"{stats.tokens} tok",
        thought(stats),
        bars(stats.lengths[-12:], symbols.bars) if width >= 72 else "",
        context_use(engine, stats),
        "^C stops",
    )
    return Text(join_fitting(parts, width - 1, symbols.dot), _DIM)


def footer(engine: Engine, exchange: Exchange, symbols: Symbols, width: int) -> str:
    """Return the one line that stays below a reply."""
    reply, stats = exchange.reply, exchange.reply.stats
    limit = exchange.request.settings.max_new_tokens
    parts = (
        FINISHES.get(reply.finish, "").format(limit=limit),
        f"{stats.tokens_per_second:.1f} tok/s",
        f"{symbols.tau} {stats.tau:.2f}",
        f"{stats.tokens} tok",
        thought(stats),
        f"accepted {stats.accepted}/{stats.drafted}" if stats.drafted else "nothing drafted",
        f"TTFT {duration(stats.first_token_seconds)}",
        counted(stats.steps, "step"),
        reply.method,
        context_use(engine, stats),
    )
    return join_fitting(parts, width, symbols.dot)


def thought(stats: Stats) -> str:
    """Return how long the model thought before it answered; "" if it did not."""
    if not stats.thought_tokens:
        return ""
    return f"thought {stats.thought_tokens} tok, {duration(stats.thought_seconds)}"


def context_use(engine: Engine, stats: Stats) -> str:
    """Return how many positions of the context are taken, and how many there are."""
    taken = stats.prompt_tokens + stats.tokens
    return f"ctx {short_count(taken)}/{short_count(engine.max_context)}"


def bars(numbers: Sequence[int], levels: str) -> str:
    """Draw each number, of 1 or more, as one character from the lowest to the highest level."""
    largest = max(numbers, default=1)
    return "".join(levels[(n - 1) * (len(levels) - 1) // max(largest - 1, 1)] for n in numbers)


def duration(seconds: float) -> str:
    """Return a time in seconds, or below a second in milliseconds."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def by_depth(stats: Stats) -> str:
    """Return the shares of drafts that were accepted by depth, without the depths at the end of
    which hardly any was; "" if nothing was drafted.
    """
    rates = [f"{rate:.2f}" for rate in stats.acceptance_by_depth]
    reached = max((depth for depth, rate in enumerate(rates, 1) if rate != "0.00"), default=0)
    shown = "  ".join([*rates[:reached], *(["0.00"] if reached < len(rates) else [])])
    deeper = f", and so to depth {len(rates)}" if len(rates) > reached + 1 else ""
    return f"{shown}{deeper}  (share accepted)" if rates else ""


def forward_costs(costs: Costs) -> str:
    """Return what forwards over several tokens take, in words."""
    first = costs.forward_seconds(1)
    text = f"{first * 1e3:.1f} ms over 1 token"
    wider = [n for n in WIDTHS if 1 < n <= max(costs.seconds)]
    times = [f"{costs.forward_seconds(n) / first:.2f} times that over {n}" for n in wider[:1]]
    times += [f"{costs.forward_seconds(n) / first:.2f} over {n}" for n in wider[1:]]
    return ", ".join((text, *times))


def details(engine: Engine, reply: Reply, symbols: Symbols) -> list[str]:
    """Return lines about where the time went, how far drafts were accepted, and what the drafter
    chose to draft with, if it has a choice.
    """
    stats = reply.stats
    per_step = 1e3 / max(stats.steps, 1)
    parts = [
        stats.draft_seconds,
        stats.target_seconds,
        stats.verify_seconds,
        stats.cache_seconds,
    ]
    named = zip(PARTS.values(), [*parts, stats.seconds - sum(parts)], strict=True)
    times = symbols.dot.join(f"{word} {part * per_step:.2f}" for word, part in named)
    uncached = stats.prompt_tokens - stats.cached_tokens
    prefill = stats.prefill_seconds
    speed = f" at {uncached / prefill:.0f} tok/s" if prefill > 0 else ""
    lengths = "  ".join(f"{n}:{steps}" for n, steps in sorted(Counter(stats.lengths).items()))
    depths = by_depth(stats)
    most = sorted(stats.choices.items(), key=lambda choice: -choice[1])
    choices = "  ".join(f"{name}:{steps}" for name, steps in most)
    steps = counted(stats.steps, "step")
    is_in_use = choices and engine.method == reply.method
    return [
        f"prefill   {uncached} tok in {duration(prefill)}{speed}, {stats.cached_tokens} cached",
        f"decode    {stats.tokens} tok in {duration(stats.seconds)}, {steps}",
        f"ms/step   {times}",
        f"lengths   {lengths}  (tokens:steps)",
        *([f"by depth  {depths}"] if depths else []),
        *([f"chosen    {choices}  (steps)"] if choices else []),
        *([f"lately    {engine.drafter.describe()}"] if is_in_use else []),
    ]
