"""Two results of the benchmark: what changed by more than noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from nfox.eval.bench.noise import (
    BOUNDED,
    MARGIN,
    Interval,
    enough,
    interval,
    most_overhead,
    shares_differ,
    tau_noise,
)
from nfox.eval.bench.result import ALL, Key, Result, Row, rounds

Verdict = Literal["higher", "lower", "within noise", "not judged"]
OfRow = Literal["faster", "slower", "within noise", "not judged", "only old", "only new"]

SETTINGS = (
    "prompts", "limit", "turns", "schemas", "accept", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "sampling", "seed", "stop", "max_new_tokens", "max_context", "template",
    "system", "revision", "quantisation",
)  # fmt: skip
"""What decides which text is said; the model is known by its name in the rows."""
_MACHINE = ("device", "threads", "dtype")
_OF_MACHINE = ("tokens_per_second", "peak_memory_mb")
_FIGURES = ("speedup", "efficiency", "tau", "identical", "overhead", *_OF_MACHINE)
_SPEED: dict[Verdict, OfRow] = {
    "higher": "faster",
    "lower": "slower",
    "within noise": "within noise",
    "not judged": "not judged",
}


@dataclass(frozen=True)
class Figure:
    """One figure of a row in both results.

    Args:
        name: as in the rows.
        old: in the old one; None where it cannot be seen.
        new: in the new one.
        verdict: the new one against the old one.
    """

    name: str
    old: Interval | None
    new: Interval | None
    verdict: Verdict


@dataclass(frozen=True)
class Change:
    """A row of both results, or of only one.

    Args:
        target: of the new result, if it has the row.
        method: of the row.
        category: of the row.
        verdict: on the speed-up, or which result alone has the row.
        figures: that can be compared; none where only one result has the row.
    """

    target: str
    method: str
    category: str
    verdict: OfRow
    figures: tuple[Figure, ...] = ()

    @property
    def beyond_noise(self) -> bool:
        """Whether any figure changed by more than noise."""
        return any(figure.verdict in ("higher", "lower") for figure in self.figures)


def settings_differ(old: Result, new: Result) -> list[str]:
    """Say for every setting that decides what text is said where two results have another."""
    pairs = {name: [one["settings"].get(name) for one in (old, new)] for name in SETTINGS}
    targets = [dict.fromkeys(row["target"] for row in one["rows"]) for one in (old, new)]
    pairs["model"] = [", ".join(names) for names in targets]
    return [
        f"settings differ: {name}: {_said(was)} -> {_said(now)}"
        for name, (was, now) in pairs.items()
        if was != now
    ]


def machines_differ(old: Result, new: Result, facts: Iterable[str] = _MACHINE) -> list[str]:
    """Say which facts of the machines differ."""
    pairs = {name: [one["machine"].get(name) for one in (old, new)] for name in facts}
    return [f"{name}: {_said(a)} -> {_said(b)}" for name, (a, b) in pairs.items() if a != b]


def _said(value: Any) -> str:
    return "not given" if value in (None, []) else str(value)


def changes(old: Result, new: Result) -> list[Change]:
    """Compare two results, row by row.

    Speed-up and efficiency changed beyond noise where the bounds of both do not overlap; of fewer
    than `FEWEST` conversations they are not judged. Tau is judged (`tau_noise`) where the text is
    the same: settings, prompts, dtype, and an exact rule of acceptance, which gives one text for
    one seed. The share of identical conversations: beyond 1.96 standard errors of its difference.
    The loop's overhead: where it alone makes steps slower or faster by more than `MARGIN`. Tokens/s
    and memory are left out where machines differ, and shown without a verdict elsewhere: nothing in
    a result says how much they differ from run to run.
    """
    before, after = _matched(old, new)
    same = not settings_differ(old, new)
    times = min(rounds(old), rounds(new)) if same else 1
    exact = new["settings"].get("accept", "exact") == "exact"
    alike = same and exact and not machines_differ(old, new, ("dtype",))
    names = [name for name in _FIGURES if name not in _OF_MACHINE or not machines_differ(old, new)]
    found = []
    for place in dict.fromkeys([*before, *after]):
        was, now = before.get(place), after.get(place)
        of = (now or was or {})["target"], *place[1:]
        if was is None or now is None:
            found.append(Change(*of, "only new" if was is None else "only old"))
            continue
        judged = dict.fromkeys(BOUNDED, enough(was, times) and enough(now, times))
        judged["tau"] = alike and was["prompts"] == now["prompts"]
        figures = tuple(_figure(name, was, now, judged.get(name, True)) for name in names)
        found.append(Change(*of, _SPEED[figures[0].verdict], figures))
    return found


def _matched(old: Result, new: Result) -> tuple[dict[Key, Row], dict[Key, Row]]:
    """Return the rows of both by what they are of.

    Where each has one target, these are held against each other, though another model.
    """
    alone = all(len({row["target"] for row in one["rows"]}) < 2 for one in (old, new))
    before, after = (
        {("" if alone else row["target"], row["method"], row["category"]): row
         for row in one["rows"]}
        for one in (old, new)
    )  # fmt: skip
    return before, after


def _figure(name: str, old: Row, new: Row, judged: bool) -> Figure:
    was, now = interval(old, name), interval(new, name)
    if was is None or now is None or not judged or name in _OF_MACHINE:
        return Figure(name, was, now, "not judged")
    if name == "tau":
        beyond = abs(now.value - was.value) > tau_noise(old) * was.value
    elif name == "identical":
        beyond = shares_differ(was.value, old["prompts"], now.value, new["prompts"])
    elif name == "overhead":
        less, more = sorted((was.value, now.value))
        beyond = more > most_overhead(less, MARGIN)
    else:
        beyond = now.disjoint(was)
    if not beyond:
        return Figure(name, was, now, "within noise")
    return Figure(name, was, now, "higher" if now.value > was.value else "lower")


@dataclass(frozen=True)
class Rankings:
    """How pairs of methods are ranked in two results, by their speed-up over all tasks.

    Args:
        alike: pairs whose bounds do not overlap in either, and the same one is faster in both.
        contrary: those with another one; the one that was faster in the old result first.
        close: pairs whose bounds overlap in one of them.
    """

    alike: int
    contrary: tuple[tuple[str, str], ...]
    close: int


def rankings(old: Result, new: Result) -> Rankings:
    """Compare how two results rank the methods that both have, of enough conversations."""
    before, after = (
        {place: found for place, row in rows.items()
         if place[2] == ALL and enough(row, rounds(result))
         and (found := interval(row, "speedup")) is not None}
        for result, rows in zip((old, new), _matched(old, new), strict=True)
    )  # fmt: skip
    alike, close = 0, 0
    contrary: list[tuple[str, str]] = []
    for one, other in combinations([place for place in before if place in after], 2):
        if one[0] != other[0]:
            continue
        if not all(intervals[one].disjoint(intervals[other]) for intervals in (before, after)):
            close += 1
            continue
        first, second = sorted((one, other), key=lambda place: -before[place].value)
        if after[first].value > after[second].value:
            alike += 1
        else:
            contrary.append((first[1], second[1]))
    return Rankings(alike, tuple(contrary), close)
