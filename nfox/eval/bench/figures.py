"""The rows of a benchmark's result: every figure with its definition and its unit.

A figure that cannot be seen, or that is no finite number, is None.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nfox.decoding.stats import DEFINITIONS

ALL = "all"
"""The category of all tasks together."""
Key = tuple[str, str, str]
"""What a row is of: its target, its method and its category."""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _define(meaning: str, low: float | None = None, high: float | None = None) -> Any:
    """Declare a figure that may be unknown, with its definition and the bounds of its values."""
    return Field(default=None, description=meaning, ge=low, le=high)


Figure = Annotated[float | None, BeforeValidator(_finite)]


class Record(BaseModel):
    """A part of a file of the benchmark. It is strict: the text "2" is no number."""

    model_config = ConfigDict(frozen=True, strict=True)


class StepTime(Record):
    """Where the time of a step goes, in milliseconds per step.

    Args:
        draft: drafting.
        target: the target's forward over the tree.
        verify: judging the tree.
        cache: keeping the keys and values of accepted tokens.
        host: the rest of the loop.
    """

    draft: Figure = None
    target: Figure = None
    verify: Figure = None
    cache: Figure = None
    host: Figure = None

    @property
    def loop(self) -> float:
        """Milliseconds of the loop around drafting and the target's forward."""
        return sum(part or 0.0 for part in (self.verify, self.cache, self.host))


class RowBase(Record):
    """What a row of a result or of a baseline is of.

    Args:
        target: the name of the model.
        method: the name of the entrant, with its options.
        category: the kind of tasks, or `ALL`.
        prompts: see its definition.
    """

    target: str
    method: str
    category: str
    prompts: int = Field(
        ge=0,
        description="conversations that were held; each counts once, however many rounds there "
        "were",
    )

    @property
    def key(self) -> Key:
        """What the row is of: its target, its method and its category."""
        return self.target, self.method, self.category


class Row(RowBase):
    """The figures of one entrant on the tasks of one category; `EXPLAIN` has their definitions."""

    tokens: int | None = _define(
        "tokens emitted in all rounds; what is drafted beyond a reply's end is none of them"
    )
    steps: int | None = _define(DEFINITIONS["steps"])
    tau: Figure = _define(DEFINITIONS["tau"])
    tokens_per_second: Figure = _define(
        "tokens / time of the steps, summed over prompts and rounds; no prefill"
    )
    ttft_ms: Figure = _define(
        "median over replies of the time to the first token: prefill and the first step"
    )
    speedup: Figure = _define(
        "tokens_per_second / that of plain decoding, on the same prompts in the same rounds"
    )
    speedup_low: Figure = _define(
        "where 2.5 % of speed-ups are below, prompts and rounds drawn anew (bootstrap)"
    )
    speedup_high: Figure = _define("where 2.5 % are above")
    speedup_total: Figure = _define(
        "the same with prefill: replies' tokens / (time of prefill and steps)"
    )
    efficiency: Figure = _define(
        "speedup / tau: what is left of the tokens per step once wide forwards and drafting are "
        "paid"
    )
    identical: Figure = _define(
        "share of conversations whose tokens all equal those of plain decoding in the same round; "
        "a simulated one is given them",
        low=0,
        high=1,
    )
    accept_by_depth: list[Figure] | None = _define(DEFINITIONS["by depth"])
    peak_memory_mb: Figure = _define(
        "most memory in use after a conversation: of nfox's process, with the weights of all its "
        "methods, or of the peer's own; on a GPU the most of torch's tensors meanwhile, for "
        "llama.cpp what its process has beside the GPU"
    )
    too_long: int | None = _define(
        "conversations that were ended since they did not fit into the context"
    )
    nodes: Figure = _define("tokens drafted in a step")
    wide: Figure = _define(
        "t(N)/t(1): time of the target's forward in a step / time of a plain step"
    )
    drafting: Figure = _define(
        "d: time of drafting in a step / time of a plain step; what a drafter reads of the prompt "
        "is drafting, in the first step"
    )
    predicted: Figure = _define(
        "tau / (wide + drafting): the speed-up if the loop itself took no time"
    )
    overhead: Figure = _define(
        "share of the steps' time that is neither drafting nor the target's forward"
    )
    time: StepTime | None = _define(
        "milliseconds of a step: drafting, the target's forward, judging the tree, keeping keys "
        "and values, and the rest of the loop"
    )
    gap: Figure = _define(
        "where replies part from the plain ones: the largest difference of the two tokens' logits "
        "(with penalties and noise) in a plain step; near-ties fall either way when logits are "
        "rounded"
    )


class SimulationRow(Record):
    """What a simulated rate of acceptance gave, beside what it should give.

    Args:
        method: the name of the entrant.
        acceptance: the chance that a drafted token is right, given that the one before was.
        gamma: tokens drafted in a step.
        tau: as in a `Row`.
        expected_tau: see its definition, as for the other expected figures.
        speedup: as in a `Row`.
    """

    method: str
    acceptance: Figure = None
    gamma: int | None = None
    tau: Figure = None
    expected_tau: Figure = _define(
        "of the formula: (1 - a^(g+1)) / (1 - a), for a text without an end"
    )
    expected_tau_cut: Figure = _define(
        "cut: what replies of these lengths should give; they end inside of a step"
    )
    speedup: Figure
    expected_speedup: Figure = _define(
        "tau of the formula x t(1) / (t(g+1) + g x time of a drafted token), by the costs measured "
        "at load"
    )


class DivergenceRow(Record):
    """Where the replies of a conversation first part from the plain ones.

    Args:
        entrant: the name of the entrant.
        task: the id of the task.
        reply: which reply of the conversation, from 0.
        token: which token of that reply, from 0.
        gap: as in a `Row`.
    """

    entrant: str
    task: str
    reply: int
    token: int
    gap: Figure


def _definitions(model: type[Record]) -> dict[str, str]:
    """Return the definition of every field that has one."""
    fields = model.model_fields.items()
    return {name: field.description for name, field in fields if field.description}


EXPLAIN = _definitions(Row)
"""What every figure means."""
SIMULATED = _definitions(SimulationRow)
"""What the figures of simulated rates of acceptance mean."""
PEERS = (
    "A peer runs in a process of its own, and only its tokens and their times are seen: those that "
    "come with the prompt's forward, which is no step, are left out of tokens, steps and "
    "tokens_per_second, and what a step consists of is not known; so is what a draft model reads "
    "of the prompt, while nfox counts that in its first step. hf peers read the whole conversation "
    "again in every turn. Where tokens are drawn, a peer draws others. Of quantised weights a peer "
    "says another text."
)
"""What is different of other programs."""


def written(figure: float | None, form: str = ".2f") -> str:
    """Return a figure as text; nothing where it is not known."""
    return "" if figure is None else format(figure, form)
