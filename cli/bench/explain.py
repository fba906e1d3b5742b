"""What `nfox bench --explain` prints: the definition of every figure."""

from __future__ import annotations

from ..printing import say

_SHOWN = {
    "tokens_per_second": "tok/s",
    "ttft_ms": "TTFT",
    "efficiency": "eff.",
    "wide": "t(N)/t(1)",
    "drafting": "d",
    "overhead": "loop",
}
"""What the table at the terminal calls figures with long names."""


def print_definitions() -> None:
    """Print the definitions of all figures, and what is different of peers."""
    from nfox.eval.bench.figures import EXPLAIN, PEERS, SIMULATED

    width = max(map(len, EXPLAIN))
    for name, meaning in (EXPLAIN | SIMULATED).items():
        shown = f" [{_SHOWN[name]}]" if name in _SHOWN else ""
        say(f"{name.ljust(width)}  {meaning}{shown}")
    say("", *PEERS.splitlines())
