"""Results of the benchmark, and baselines made of them, as files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from nfox.errors import UsageError
from nfox.eval.bench.result import BASELINE, SCHEMA


@dataclass(frozen=True)
class _Row:
    """What is read of a result's row."""

    target: str
    method: str
    category: str
    prompts: int
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    efficiency: float | None = None
    tau: float | None = None
    identical: float | None = None
    overhead: float | None = None
    tokens_per_second: float | None = None
    peak_memory_mb: float | None = None
    accept_by_depth: list[float | None] | None = None
    time: dict[str, float | None] | None = None


@dataclass(frozen=True)
class _Bounds:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _BaselineRow:
    """A baseline's row."""

    target: str
    method: str
    category: str
    prompts: int
    speedup: _Bounds | None
    efficiency: _Bounds | None
    tau: _Bounds | None
    overhead: _Bounds | None


@dataclass(frozen=True)
class _Entrant:
    kind: str


@dataclass(frozen=True)
class _Simulated:
    method: str
    speedup: float | None


@dataclass(frozen=True)
class _Divergence:
    entrant: str
    task: str
    gap: float | None


@dataclass(frozen=True)
class _Result:
    """What is read of a result."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: Annotated[list[_Row], Field(min_length=1)]
    entrants: dict[str, _Entrant] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    simulation: list[_Simulated] = field(default_factory=list)
    divergences: list[_Divergence] = field(default_factory=list)


@dataclass(frozen=True)
class _Baseline:
    """A baseline."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: Annotated[list[_BaselineRow], Field(min_length=1)]


_LAYOUTS = {SCHEMA: _Result, BASELINE: _Baseline}


def trials_file(out: Path) -> Path:
    """Return where the trials of a result are kept until it is written."""
    return out.with_name(f"{out.name}.trials")


def read(file: Path, *schemas: str) -> dict[str, Any]:
    """Read a result or a baseline. What is no number (NaN) counts as not seen.

    Args:
        file: as it was written.
        schemas: that are expected.

    Raises:
        UsageError: if it is not what is expected.
    """
    expected = f"expected JSON of {' or '.join(schemas)}, as nfox bench writes it"
    try:
        said = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda name: None)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}", expected) from error
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}", expected) from error
    schema = said.get("schema") if isinstance(said, dict) else None
    if schema not in schemas:
        raise UsageError(f"{file}: its schema is {schema or 'not said'}", expected)
    try:
        TypeAdapter(_LAYOUTS[schema]).validate_json(json.dumps(said), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{file}: {where}: {first['msg']}", expected) from error
    return dict(said)
