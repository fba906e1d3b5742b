"""The files of the benchmark: a result, and a baseline made of several.

What the models below say is the layout of the files: one definition writes and reads them.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, field_validator

from nfox.controls import one_line
from nfox.eval.bench.figures import ALL, DivergenceRow, Record, Row, RowBase, SimulationRow
from nfox.eval.bench.noise import Interval
from nfox.files.reading import parse_json, read_text, refusing

KINDS = {"method": "nfox", "peer": "another program", "simulated": "simulated"}
"""The kinds of entrants, as a reader calls them."""

_SWEPT = re.compile(r"(context|temperature) (\d+(?:\.\d+)?)")


class File(Record):
    """A file of the benchmark, of one schema."""

    schema_name: ClassVar[str]

    def json_text(self) -> str:
        """Return the text of the file."""
        return json.dumps({"schema": self.schema_name} | self.model_dump(), indent=1) + "\n"


class Machine(Record):
    """The machine, the versions and the model's costs that figures depend on.

    Args:
        device: the name of the processor or of the GPU.
        cores: its physical cores.
        threads: that torch computes with.
        memory_gb: of the machine, in 10^9 bytes.
        system: the operating system and the processor's architecture.
        dtype: of the model's weights.
        costs: times of wide forwards, as measured when the model was loaded.
        nfox: the version.
        commit: of the source tree that it ran from.
        python: the version.
        versions: of other packages.
        command: that was typed.
    """

    device: str | None = None
    cores: int | None = None
    threads: int | None = None
    memory_gb: float | None = None
    system: str | None = None
    dtype: str | None = None
    costs: str | None = None
    nfox: str | None = None
    commit: str | None = None
    python: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    command: str | None = None


class EntrantRecord(Record):
    """What an entrant of a result is.

    Args:
        kind: one of `KINDS`.
        settings: what it ran with, in a few words.
    """

    kind: str
    settings: str = ""


def _counted(settings: dict[str, Any]) -> dict[str, Any]:
    rounds = settings.get("rounds")
    if rounds is not None and (type(rounds) is not int or rounds < 1):
        raise ValueError(f"rounds must be a number of them, not {rounds!r:.40}")
    return settings


_Settings = Annotated[dict[str, Any], AfterValidator(_counted)]


class BenchResult(File):
    """Everything that `nfox bench` measured, as `--json` writes it.

    Args:
        machine: that it ran on.
        settings: all that was asked for, by the names of the command's options.
        entrants: all that ran, by name.
        missing: why others could not run, by name.
        rows: all categories together first, and in each the plain method first.
        simulation: one row for every simulated rate of acceptance.
        divergences: of all conversations that part from the plain ones.
    """

    schema_name: ClassVar[str] = "nfox.bench/1"

    machine: Machine
    settings: _Settings
    entrants: dict[str, EntrantRecord] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    rows: Annotated[list[Row], Field(min_length=1)]
    simulation: list[SimulationRow] = Field(default_factory=list)
    divergences: list[DivergenceRow] = Field(default_factory=list)

    @field_validator("rows")
    @classmethod
    def _has_all_tasks(cls, rows: list[Row]) -> list[Row]:
        """Refuse rows of which none is of all tasks together, as every reader takes for granted."""
        if all(row.category != ALL for row in rows):
            raise ValueError(f"no row is of the category {ALL!r}")
        return rows

    def kind(self, entrant: str) -> str:
        """Return the kind of an entrant: one of `KINDS`."""
        record = self.entrants.get(entrant)
        return record.kind if record and record.kind in KINDS else "method"

    @property
    def categories(self) -> list[str]:
        """The names of the kinds of tasks, without that of all together."""
        return [name for name in dict.fromkeys(row.category for row in self.rows) if name != ALL]

    def of_category(self, category: str = ALL) -> list[Row]:
        """Return the rows of one category, or of all tasks together."""
        return [row for row in self.rows if row.category == category]

    def legible(self) -> BenchResult:
        """Return the result with what can be drawn, and stand in a page, of its names and texts."""
        text = json.dumps(_legible(self.model_dump()))
        return TypeAdapter(BenchResult).validate_json(text)


def _legible(value: Any) -> Any:
    """Return a value as JSON has it, with `one_line` of every text in it."""
    if isinstance(value, dict):
        return {_legible(name): _legible(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_legible(inner) for inner in value]
    return one_line(value) if isinstance(value, str) else value


def swept(category: str) -> tuple[str, float] | None:
    """Return what a sweep went over and the value that a category has; None for other ones."""
    read = _SWEPT.fullmatch(category)
    return (read[1], float(read[2])) if read else None


class BaselineMachine(Record):
    """What a machine must have in common with a baseline's: see `Machine`."""

    dtype: str | None = None
    threads: int | None = None


def _finite(interval: Interval) -> Interval:
    if not all(map(math.isfinite, (interval.value, interval.low, interval.high))):
        raise ValueError("what later results are held against must be finite")
    return interval


_Ratio = Annotated[Interval, AfterValidator(_finite)] | None


class BaselineRow(RowBase):
    """Ratios of an entrant over several results: their median, and the widest bounds.

    Args:
        speedup: see `Row`, as for the others.
    """

    speedup: _Ratio
    efficiency: _Ratio
    tau: _Ratio
    overhead: _Ratio


class Baseline(File):
    """The ratios that later results are held against.

    Args:
        results: how many it was made of.
        machine: of all of them.
        settings: of all of them, those that decide which text is said.
        rows: as in a result, without those of peers.
    """

    schema_name: ClassVar[str] = "nfox.bench.baseline/1"

    results: int
    machine: BaselineMachine
    settings: _Settings
    rows: Annotated[list[BaselineRow], Field(min_length=1)]


def rounds(file: BenchResult | Baseline) -> int:
    """Return how many times every task was run with every entrant."""
    return file.settings.get("rounds") or 1


_File = TypeVar("_File", bound=BenchResult | Baseline)


def read(file: Path, *layouts: type[_File]) -> _File:
    """Read a file of the benchmark.

    Args:
        file: as it was written.
        layouts: that are expected.

    Raises:
        UsageError: if it is none of these.
    """
    known = {layout.schema_name: layout for layout in layouts}
    expected = f"JSON of {' or '.join(known)}, as nfox bench writes it"
    with refusing(file, expected):
        text = read_text(file)
        content = parse_json(text, file, non_finite=True)  # such figures are not known
        schema = content.get("schema") if isinstance(content, dict) else None
        if not isinstance(schema, str) or schema not in known:
            raise ValueError(f"its schema is {schema or 'not said'}")
        return TypeAdapter(known[schema]).validate_json(text)  # strict as JSON is, not as Python
