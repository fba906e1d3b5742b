"""What simulated rates of acceptance should give, beside what they gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nfox.decoding.costs import Costs, expected_tau
from nfox.eval.bench.entrants import Entrant, SimulatedEntrant
from nfox.eval.bench.figures import ALL, Row, SimulationRow
from nfox.eval.bench.trials import Trial


def simulation(
    entrants: Iterable[Entrant],
    trials: Sequence[Trial],
    rows: Sequence[Row],
    costs: Costs | None,
) -> list[SimulationRow]:
    """Return what simulated rates of acceptance should give, beside what they gave.

    Two taus: that of the formula, for texts without an end, and that of replies as long as these.

    Args:
        entrants: of which those that are simulated count.
        trials: of all entrants.
        rows: made of the trials.
        costs: of the target; without them no speed-up is expected.
    """
    together = {row.method: row for row in rows if row.category == ALL}
    return [
        _row(entrant, together[entrant.name], trials, costs)
        for entrant in entrants
        if isinstance(entrant, SimulatedEntrant)
    ]


def _row(
    entrant: SimulatedEntrant, row: Row, trials: Sequence[Trial], costs: Costs | None
) -> SimulationRow:
    acceptance, gamma = entrant.rate.acceptance, entrant.rate.gamma
    lengths = [stats.tokens for t in trials if t.entrant == entrant.name for stats in t.stats]
    steps = sum(expected_steps(acceptance, gamma, length) for length in lengths)
    draft = row.time.draft if row.time else None  # milliseconds of a step
    speedup = costs and draft is not None and costs.speedup(gamma, acceptance, draft / 1e3 / gamma)
    return SimulationRow(
        method=entrant.name,
        acceptance=acceptance,
        gamma=gamma,
        tau=row.tau,
        expected_tau=expected_tau(acceptance, gamma),
        expected_tau_cut=sum(lengths) / steps if steps else 0.0,
        speedup=row.speedup,
        expected_speedup=speedup or None,
    )


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
