"""What simulated rates of acceptance should give, beside what they gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nfox.decoding.costs import Costs, expected_tau
from nfox.eval.bench.entrants import Entrant
from nfox.eval.bench.result import ALL
from nfox.eval.bench.runner import Trial


def simulation(
    entrants: Iterable[Entrant],
    trials: Sequence[Trial],
    found: Sequence[dict[str, Any]],
    costs: Costs | None,
) -> list[dict[str, Any]]:
    """Return what simulated rates of acceptance should give, beside what they gave.

    Two taus: that of the formula, for texts without an end, and that of replies as long as these.

    Args:
        entrants: those with a rate count.
        trials: of them.
        found: `rows`.
        costs: of the target; without them no speed is foretold.
    """
    together = {row["method"]: row for row in found if row["category"] == ALL}
    listed = []
    for one in entrants:
        if one.kind != "simulated":
            continue
        row, acceptance, gamma = together[one.name], one.rate.acceptance, one.rate.gamma
        lengths = [stats.tokens for t in trials if t.entrant == one.name for stats in t.stats]
        steps = sum(expected_steps(acceptance, gamma, length) for length in lengths)
        draft = row["time"]["draft"] / 1e3 / gamma
        speedup = costs.speedup(gamma, acceptance, draft) if costs else None
        listed.append(
            {
                "method": one.name,
                "acceptance": acceptance,
                "gamma": gamma,
                "tau": row["tau"],
                "expected_tau": expected_tau(acceptance, gamma),
                "expected_tau_cut": sum(lengths) / steps if steps else 0.0,
                "speedup": row["speedup"],
                "expected_speedup": speedup,
            }
        )
    return listed


def expected_steps(acceptance: float, gamma: int, length: int) -> float:
    """Return how many steps a reply of so many tokens is expected to take.

    The formula of `expected_tau` is that of a text without an end. A reply ends inside of a step,
    which drafts no further than that.
    """
    steps = [0.0]
    for left in range(1, length + 1):
        most = min(gamma, left - 1)
        ended = sum(
            acceptance ** (count - 1) * (1 - acceptance) * steps[left - count]
            for count in range(1, most + 1)
        )
        steps.append(1 + ended + acceptance**most * steps[left - most - 1])
    return steps[length]
