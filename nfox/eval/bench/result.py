"""The result of a benchmark, as `nfox bench --json` writes it, and how it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
Row = Mapping[str, Any]
Key = tuple[str, str, str]
"""Of a row: target, method, category."""

SCHEMA = "nfox.bench/1"
BASELINE = "nfox.bench.baseline/1"
"""The schema of what is made of several results, and later ones are held against."""
ALL = "all"
"""The category of all tasks together."""
KINDS = {"method": "nfox", "peer": "another program", "simulated": "simulated"}
"""Entrants, as a reader calls them."""

_SWEPT = re.compile(r"(context|temperature) (\d+(?:\.\d+)?)")


def number(value: object) -> float | None:
    """Return a figure; None for one that is not there or not finite."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def key(row: Row) -> Key:
    """Return what a row is of."""
    return row["target"], row["method"], row["category"]


def kind(result: Result, name: str) -> str:
    """Say whether an entrant is a method, a peer or simulated."""
    given = result.get("entrants", {}).get(name, {}).get("kind")
    return given if given in KINDS else "method"


def categories(result: Result) -> list[str]:
    """Return the names of the kinds of tasks, without that of all together."""
    named = dict.fromkeys(row["category"] for row in result["rows"])
    return [name for name in named if name != ALL]


def swept(category: str) -> tuple[str, float] | None:
    """Return what a sweep went over and the value that a category has; None for other ones."""
    read = _SWEPT.fullmatch(category)
    return (read[1], float(read[2])) if read else None


def of_category(result: Result, category: str = ALL) -> list[Row]:
    """Return the rows of one category, or of all tasks together."""
    return [row for row in result["rows"] if row["category"] == category]


def rounds(result: Result) -> int:
    """Return how often all prompts were held."""
    return int(result["settings"].get("rounds") or 1)


def parts(time: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return milliseconds of a step: drafting, the target's forward, and the loop around them."""
    draft, target, *host = (
        number(time.get(name)) or 0.0 for name in ("draft", "target", "verify", "cache", "host")
    )
    return draft, target, sum(host)
