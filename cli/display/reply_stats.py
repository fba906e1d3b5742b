"""What the numbers of a reply look like: the status row, the footer, the details of -v."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from typing_extensions import override

from .theme import Symbols

if TYPE_CHECKING:
    from nfox.decoding.stats import Stats
    from nfox.engine import Engine
    from nfox.reply import Reply

_RECENT = 16  # steps whose speed the status row shows
FINISHES = {
    "length": "cut at max_new_tokens={limit}",
    "context": "the context is full",
    "interrupt": "stopped",
}


class Speed:
    """Tokens a second of the last few steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=_RECENT)

    def add(self, tokens: int, seconds: float) -> None:
        """Count a step."""
        self._steps.append((tokens, seconds))

    @override
    def __str__(self) -> str:
        tokens, seconds = (sum(column) for column in zip(*self._steps, strict=True))
        return f"{tokens / seconds:.1f} tok/s" if seconds else ""


def fit(parts: Sequence[str], width: int, dot: str) -> str:
    """Join as many of the parts as fit into a row, the first ones first."""
    row = ""
    for part in filter(None, parts):
        longer = row + dot + part if row else part
        if cell_len(longer) <= width:
            row = longer
    return row


def short(number: int) -> str:
    """Write a count of tokens in at most four characters or so."""
    return str(number) if number < 1000 else f"{number / 1000:.1f}k".replace(".0k", "k")


def status(engine: Engine, speed: Speed, symbols: Symbols, width: int) -> str:
    """Return what the row below a growing reply says."""
    stats = engine.reply.stats
    parts = (
        str(speed),
        f"{symbols.tau} {stats.tau:.2f}",
        f"{stats.tokens} tok",
        bars(stats.lengths[-12:], symbols.bars) if width >= 72 else "",
        context(engine, stats),
        "^C stops",
    )
    return fit(parts, width - 1, symbols.dot)


def footer(engine: Engine, reply: Reply, symbols: Symbols, width: int) -> str:
    """Return the one line that stays below a reply."""
    stats = reply.stats
    why = FINISHES.get(reply.finish, "").format(limit=engine.settings.max_new_tokens)
    parts = (
        why,
        f"{stats.tokens_per_second:.1f} tok/s",
        f"{symbols.tau} {stats.tau:.2f}",
        f"{stats.tokens} tok",
        f"accepted {stats.accepted}/{stats.drafted}" if stats.drafted else "nothing drafted",
        f"TTFT {seconds(stats.first_token_seconds)}",
        f"{stats.steps} steps",
        reply.method,
        context(engine, stats),
    )
    return fit(parts, width, symbols.dot)


def context(engine: Engine, stats: Stats) -> str:
    """Say how full the context is."""
    return f"ctx {short(stats.prompt_tokens + stats.tokens)}/{short(engine.max_context)}"


def bars(numbers: Sequence[int], levels: str) -> str:
    """Draw numbers from 1 on as bars."""
    most = max(numbers, default=1)
    return "".join(levels[(n - 1) * (len(levels) - 1) // max(most - 1, 1)] for n in numbers)


def seconds(number: float) -> str:
    """Write a time."""
    return f"{number:.2f} s" if number >= 1 else f"{number * 1e3:.0f} ms"


def details(stats: Stats, symbols: Symbols) -> list[str]:
    """Return where the time went and how far drafts were right, a line for each."""
    per_step = 1e3 / max(stats.steps, 1)
    parts = {
        "draft": stats.draft_seconds,
        "target": stats.target_seconds,
        "verify": stats.verify_seconds,
        "cache": stats.cache_seconds,
    }
    parts["rest"] = stats.seconds - sum(parts.values())
    times = symbols.dot.join(f"{name} {part * per_step:.2f}" for name, part in parts.items())
    new = stats.prompt_tokens - stats.cached_tokens
    spent = stats.prefill_seconds
    speed = f" at {new / spent:.0f} tok/s" if spent > 0 else ""
    lengths = "  ".join(f"{n}:{times}" for n, times in sorted(Counter(stats.lengths).items()))
    rates = "  ".join(f"{rate:.2f}" for rate in stats.acceptance_by_depth)
    return [
        f"prefill   {new} tok in {seconds(spent)}{speed}, {stats.cached_tokens} cached",
        f"decode    {stats.tokens} tok in {seconds(stats.seconds)}, {stats.steps} steps",
        f"ms/step   {times}",
        f"lengths   {lengths}  (tokens:steps)",
        *([f"by depth  {rates}  (share accepted)"] if rates else []),
    ]
