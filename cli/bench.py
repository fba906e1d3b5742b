"""`nfox bench`: every method against plain decoding, on the same prompts in the same run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.drafters import names, plain, ready
from nfox.errors import UsageError

from .data import command_line
from .grouped import grouped, option
from .header import model_name
from .loading import check, load_chat
from .options import Accept, GenerationArguments, MethodArguments, ModelArguments
from .progress import loading_display
from .result_files import check_out, write_out

if TYPE_CHECKING:
    from nfox.chat import Chat
    from nfox.eval.trials import Bench, Divergence, Entrant, Trial

SCHEMA = "nfox.bench/1"
_BENCH = "Benchmark"


@dataclass(frozen=True)
class BenchArguments:
    """What is measured, and where the result goes."""

    methods: Annotated[
        str,
        option(_BENCH, "Which, with options: none,spec,spec:gamma=4; all.", "--methods"),
    ] = "all"
    prompts: Annotated[
        str,
        option(
            _BENCH, "demo, gsm8k, mt-bench, humaneval, sharegpt, files, NAME=FILE.", "--prompts"
        ),
    ] = "demo"
    limit: Annotated[int | None, option(_BENCH, "Of each set at most.", "--limit", min=1)] = None
    turns: Annotated[int | None, option(_BENCH, "Of a conversation at most.", "--turns", min=1)] = (
        None
    )
    schemas: Annotated[
        Path | None, option(_BENCH, "Spider's tables.json or its databases.", "--schemas")
    ] = None
    rounds: Annotated[
        int, option(_BENCH, "Of all prompts with all methods.", "--rounds", min=1)
    ] = 2
    warmup: Annotated[int, option(_BENCH, "Prompts that do not count.", "--warmup", min=0)] = 2
    accept: Annotated[Accept, option(_BENCH, "The acceptance rule.", "--accept")] = "exact"
    simulated: Annotated[
        str | None,
        option(
            _BENCH, "0.6,0.8: guesses right at such a rate, on any model.", "--simulate-acceptance"
        ),
    ] = None
    simulated_gamma: Annotated[
        int, option(_BENCH, "Tokens they draft in a step.", "--simulate-gamma", min=1)
    ] = 4
    out: Annotated[Path | None, option(_BENCH, "Where the JSON goes.", "--json", envvar=None)] = (
        None
    )
    explain: Annotated[
        bool, option(_BENCH, "Say what every figure means, and stop.", "--explain", envvar=None)
    ] = False
    debug: Annotated[bool, option(_BENCH, "Show tracebacks.", "--debug")] = False


def bench(
    arguments: BenchArguments, model: ModelArguments, generation: GenerationArguments
) -> None:
    """Measure methods against plain decoding: in turn, on the same prompts, with exactness."""
    if arguments.explain:
        _explain()
        return
    check(model, MethodArguments())
    check_out(arguments.out)
    from nfox.eval.tasks import read
    from nfox.eval.trials import Bench

    found = read(arguments.prompts, arguments.limit, arguments.turns, arguments.schemas)
    if found.skipped:
        print(f"nfox: {found.skipped} records ask nothing, left out", file=sys.stderr)
    with loading_display(sys.stderr.isatty()) as told:
        plainly = MethodArguments(plain(), accept=arguments.accept)
        chat = load_chat(model, plainly, generation, told=told)
    made = Bench(chat, [*_entrants(arguments.methods, chat), *_simulated(arguments)], found.kept)
    trials, parted = _run(made, arguments)
    result = _result(made, trials, parted, arguments, model, generation)
    from .bench_table import print_table

    print_table(result)
    if arguments.out is not None:
        write_out(arguments.out, json.dumps(result, indent=1) + "\n")


def _explain() -> None:
    from nfox.eval.figures import EXPLAIN

    width = max(map(len, EXPLAIN))
    for name, meaning in EXPLAIN.items():
        print(f"{name.ljust(width)}  {meaning}")


def _entrants(given: str, chat: Chat) -> list[Entrant]:
    """Return what is compared, plain decoding first.

    Raises:
        UsageError: for a method that is not there.
    """
    from nfox.eval.trials import Entrant

    everything = ready(chat.model.name, chat.places)
    wanted = everything if given == "all" else [part.strip() for part in given.split(",")]
    entrants = {name: Entrant.parse(name) for name in (plain(), *wanted) if name}
    for entrant in entrants.values():
        if entrant.method not in names():
            known = ", ".join(names())
            raise UsageError(f"there is no method {entrant.method!r}", f"one of {known}")
    return list(entrants.values())


def _simulated(arguments: BenchArguments) -> list[Entrant]:
    """Return the rates that are simulated.

    Raises:
        UsageError: for what is no rate.
    """
    from nfox.eval.trials import Entrant

    try:
        rates = [float(part) for part in (arguments.simulated or "").split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--simulate-acceptance: {error}", "for example 0.6,0.8") from None
    return [Entrant.simulated(rate, arguments.simulated_gamma) for rate in rates]


def _run(made: Bench, arguments: BenchArguments) -> tuple[list[Trial], list[Divergence]]:
    """Run all rounds; return the trials, and where they part from the plain ones."""
    trials: list[Trial] = []
    parted: dict[tuple[str, int], Divergence] = {}
    base: Trial | None = None
    for trial in made.rounds(arguments.rounds, arguments.warmup, _tell):
        trials.append(trial)
        base = trial if trial.entrant == plain() else base
        if base and trial is not base and trial.replies != base.replies:
            where = made.divergence(trial, base)
            if where is not None:
                parted.setdefault((trial.entrant, trial.task), where)
    return trials, list(parted.values())


def _tell(done: int, of: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == of else ""
        print(f"\r{done} of {of} conversations", end=end, file=sys.stderr, flush=True)


def _result(
    made: Bench,
    trials: Sequence[Trial],
    parted: Sequence[Divergence],
    arguments: BenchArguments,
    model: ModelArguments,
    generation: GenerationArguments,
) -> dict[str, Any]:
    """Return everything that was found, as it is written."""
    from nfox.eval.figures import rows, simulation
    from nfox.eval.machine import machine

    chat = made.chat
    target = model_name(chat) + (f" with {chat.model.adapter}" if chat.model.adapter else "")
    given = asdict(arguments) | asdict(generation)
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}
    found = rows(trials, [task.category for task in made.tasks], parted)
    return {
        "schema": SCHEMA,
        "machine": machine(chat, command_line()),
        "settings": settings | {"model": model.model, "adapter": model.adapter},
        "drafters": {name: drafter.describe() for name, (_, drafter) in made.drafters.items()},
        "rows": [{"target": target, **row} for row in found],
        "simulation": simulation(made.entrants, found, chat.costs),
        "divergences": [{**asdict(one), "task": made.tasks[one.task].id} for one in parted],
    }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(grouped(bench))
