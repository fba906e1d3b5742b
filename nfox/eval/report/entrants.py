"""The entrants of a benchmark as its page and plots show them: their order, whose they are, and the
sentence that says what came of it.
"""

from __future__ import annotations

from nfox.drafters import plain_method
from nfox.eval import peers
from nfox.eval.bench.figures import Row, written
from nfox.eval.bench.result import KINDS, BenchResult

OURS, SIMULATED = KINDS["method"], KINDS["simulated"]


def fastest_first(result: BenchResult) -> BenchResult:
    """Return a result whose rows are in the order of their speed in each category; what is
    simulated comes last, since nobody can have it.
    """
    places = {name: place for place, name in enumerate(["all", *result.categories])}

    def order(row: Row) -> tuple[int, bool, float]:
        return places[row.category], result.kind(row.method) == "simulated", -(row.speedup or 0.0)

    return result.model_copy(update={"rows": sorted(result.rows, key=order)})


def program(result: BenchResult, name: str) -> str:
    """Return whose an entrant is: nfox's, another program's by its name, or simulated."""
    kind = result.kind(name)
    return peers.program(name) if kind == "peer" else KINDS[kind]


def programs(result: BenchResult) -> list[str]:
    """Return whose the entrants are: nfox first, then other programs, then what is simulated."""
    found = dict.fromkeys(program(result, row.method) for row in result.rows)
    others = [name for name in found if name not in (OURS, SIMULATED)]
    return [name for name in (OURS, *others, SIMULATED) if name in found]


def bounds(row: Row) -> str:
    """Write the bounds of a speed-up; "" where they are not known, or there was one trial only."""
    low, high = row.speedup_low, row.speedup_high
    return "" if low is None or high is None or low == high else f"{low:.2f}-{high:.2f}"


def lead(result: BenchResult, category: str = "all") -> list[str]:
    """Return sentences about how fast the fastest method answers, and the fastest other program.

    Args:
        result: with its rows in the order of their speed.
        category: the kind of tasks.
    """
    known = [row for row in result.of_category(category) if row.speedup is not None]
    methods = [
        row for row in known if result.kind(row.method) == "method" and row.method != plain_method()
    ]
    rivals = [row for row in known if result.kind(row.method) == "peer"]
    sentences = [_of_the_fastest(methods[0])] if methods else []
    if rivals:
        best = rivals[0]
        sentences.append(f"The fastest other program, {best.method}, has {_times(best)}.")
    return sentences


def _of_the_fastest(row: Row) -> str:
    """Return what a reader wants to know first."""
    times, low = row.speedup or 0.0, row.speedup_low
    if times <= 1:
        return f"No method is faster than plain decoding here: {row.method} has {_times(row)}."
    if low is not None and low <= 1:
        return f"{row.method} answers {_times(row)} as fast as plain decoding, which may be chance."
    return f"{row.method} answers {_times(row)} as fast as plain decoding{_exactness(row)}."


def _exactness(row: Row) -> str:
    if row.identical is None:
        return ""
    of_all = "all" if row.identical == 1 else f"{row.identical:.0%} of the"
    return f", with the same text in {of_all} conversations"


def _times(row: Row) -> str:
    interval = bounds(row) or ("one prompt" if row.prompts == 1 else "")
    return f"{written(row.speedup)}x" + (f" ({interval})" if interval else "")
