"""Two results of the benchmark: what changed by more than noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from nfox.eval.bench.figures import ALL, Key, Row
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
from nfox.eval.bench.result import Baseline, BaselineMachine, BenchResult, Machine, rounds

Verdict = Literal["higher", "lower", "within noise", "not judged"]
RowVerdict = Literal["faster", "slower", "within noise", "not judged", "only old", "only new"]

SETTINGS = (
    "prompts", "categories", "limit", "turns",
    "schemas", "accept", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "sampling", "seed", "stop", "max_new_tokens", "max_context", "template",
    "system", "think", "revision", "quantisation",
)  # fmt: skip
"""The settings that decide which text is said; the model is known by its name in the rows."""
_MACHINE = ("device", "threads", "dtype")
_OF_MACHINE = ("tokens_per_second", "peak_memory_mb")
_FIGURES = ("speedup", "efficiency", "tau", "identical", "overhead", *_OF_MACHINE)
_SPEED: dict[Verdict, RowVerdict] = {
    "higher": "faster",
    "lower": "slower",
    "within noise": "within noise",
    "not judged": "not judged",
}


@dataclass(frozen=True)
class FigureChange:
    """One figure of a row in both results.

    Args:
        name: of the figure.
        old: the figure in the old result; None where it is not known.
        new: the figure in the new result.
        verdict: on the new one against the old one.
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
    verdict: RowVerdict
    figures: tuple[FigureChange, ...] = ()

    @property
    def beyond_noise(self) -> bool:
        """Whether any figure changed by more than noise."""
        return any(figure.verdict in ("higher", "lower") for figure in self.figures)


def settings_differ(old: BenchResult | Baseline, new: BenchResult | Baseline) -> list[str]:
    """Return a line for every setting that decides which text is said and differs."""
    pairs = {name: [file.settings.get(name) for file in (old, new)] for name in SETTINGS}
    targets = [dict.fromkeys(row.target for row in file.rows) for file in (old, new)]
    pairs["model"] = [", ".join(names) for names in targets]
    return [
        f"settings differ: {name}: {_value(was)} -> {_value(now)}"
        for name, (was, now) in pairs.items()
        if was != now
    ]


def machines_differ(
    old: Machine | BaselineMachine, new: Machine | BaselineMachine, facts: Iterable[str] = _MACHINE
) -> list[str]:
    """Return a line for every fact that differs between two machines."""
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in facts}
    return [f"{name}: {_value(a)} -> {_value(b)}" for name, (a, b) in pairs.items() if a != b]


def _value(value: Any) -> str:
    return "not given" if value in (None, []) else str(value)[:200]


def changes(old: BenchResult, new: BenchResult) -> list[Change]:
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
    same_settings = not settings_differ(old, new)
    times = min(rounds(old), rounds(new)) if same_settings else 1
    exact = new.settings.get("accept", "exact") == "exact"
    same_text = same_settings and exact and old.machine.dtype == new.machine.dtype
    same_machine = not machines_differ(old.machine, new.machine)
    names = [name for name in _FIGURES if same_machine or name not in _OF_MACHINE]
    compared = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        if was is None:
            compared.append(Change(*after[key].key, "only new"))
            continue
        if now is None:
            compared.append(Change(*was.key, "only old"))
            continue
        judged = dict.fromkeys(BOUNDED, enough(was, times) and enough(now, times))
        judged["tau"] = same_text and was.prompts == now.prompts
        figures = tuple(_figure(name, was, now, judged.get(name, True)) for name in names)
        compared.append(Change(*now.key, _SPEED[figures[0].verdict], figures))
    return compared


def _matched(old: BenchResult, new: BenchResult) -> tuple[dict[Key, Row], dict[Key, Row]]:
    """Return the rows of both results by their keys.

    Where each has one target, these are held against each other though their names differ: the
    target is then left out of the keys.
    """
    alone = all(len({row.target for row in result.rows}) < 2 for result in (old, new))
    before, after = (
        {("" if alone else row.target, row.method, row.category): row for row in result.rows}
        for result in (old, new)
    )
    return before, after


def _figure(name: str, old: Row, new: Row, judged: bool) -> FigureChange:
    was, now = interval(old, name), interval(new, name)
    if was is None or now is None or not judged or name in _OF_MACHINE:
        return FigureChange(name, was, now, "not judged")
    if name == "tau":
        beyond = abs(now.value - was.value) > tau_noise(old) * was.value
    elif name == "identical":
        beyond = shares_differ(was.value, old.prompts, now.value, new.prompts)
    elif name == "overhead":
        less, more = sorted((was.value, now.value))
        beyond = more > most_overhead(less, MARGIN)
    else:
        beyond = now.disjoint(was)
    if not beyond:
        return FigureChange(name, was, now, "within noise")
    return FigureChange(name, was, now, "higher" if now.value > was.value else "lower")


@dataclass(frozen=True)
class Rankings:
    """How two results rank pairs of methods, by their speed-up over all tasks.

    Args:
        alike: pairs whose bounds overlap in neither result, and the same one is faster in both.
        contrary: those with another one; the one that was faster in the old result first.
        close: pairs whose bounds overlap in one of the results.
    """

    alike: int
    contrary: tuple[tuple[str, str], ...]
    close: int


def rankings(old: BenchResult, new: BenchResult) -> Rankings:
    """Compare how two results rank the methods that both have, of enough conversations."""
    before, after = (
        {key: speedup for key, row in rows.items()
         if key[2] == ALL and enough(row, rounds(result))
         and (speedup := interval(row, "speedup")) is not None}
        for result, rows in zip((old, new), _matched(old, new), strict=True)
    )  # fmt: skip
    alike, close = 0, 0
    contrary: list[tuple[str, str]] = []
    for pair in combinations([key for key in before if key in after], 2):
        first, second = sorted(pair, key=lambda key: -before[key].value)
        if first[0] != second[0]:  # of two targets
            continue
        if not all(speedups[first].disjoint(speedups[second]) for speedups in (before, after)):
            close += 1
            continue
        if after[first].value > after[second].value:
            alike += 1
        else:
            contrary.append((first[1], second[1]))
    return Rankings(alike, tuple(contrary), close)
