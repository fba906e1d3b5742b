"""One run of the benchmark: who takes part, the rounds, what is kept of an interrupted one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nfox.drafters import names as method_names
from nfox.drafters import plain, ready
from nfox.errors import ModelError, UsageError

from ..display.header import model_name
from ..display.progress import loading_display
from ..facts import EMBEDDED, command_line, model_facts
from ..load import load_engine
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments
from ..output_files import make_folder
from .answers import write_answers

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.eval.bench.entrants import Entrant
    from nfox.eval.bench.journal import Kept
    from nfox.eval.bench.result import BenchResult
    from nfox.eval.bench.runner import Bench, Task, Trial
    from nfox.eval.bench.sweeps import Sweep

    from .arguments import BenchArguments, ResultArguments


_GAMMA = 4  # tokens that a simulated drafter drafts


class Found(Protocol):
    """Takes a result."""

    def __call__(self, result: BenchResult, /, *, complete: bool) -> None: ...


def run(
    arguments: BenchArguments,
    model: ModelArguments,
    generation: GenerationArguments,
    results: ResultArguments,
    found: Found,
) -> bool:
    """Measure; return whether all was measured.

    Args:
        arguments: who is measured, and on what.
        model: its options.
        generation: how tokens are chosen.
        results: where they go.
        found: takes the result, unless there is none yet.

    Raises:
        NfoxError: for options that do not fit, or where nothing can be kept.
    """
    from nfox.eval.bench.runner import Bench
    from nfox.eval.bench.sweeps import Sweep
    from nfox.eval.bench.tasks import read

    sweeps = [Sweep.parse(text) for text in arguments.sweep]
    _refuse_idle_options(arguments, sweeps, generation)
    _entrants(arguments, sweeps, method_names())  # mistakes are told before a model is loaded
    prompts = read(arguments.prompts, arguments.limit, arguments.turns, arguments.schemas)
    if prompts.skipped:
        print(
            f"nfox: {prompts.skipped} records are no JSON or ask nothing: left out", file=sys.stderr
        )
    with loading_display(sys.stderr.isatty()) as progress:
        plainly = MethodArguments(plain(), accept=arguments.accept)
        engine = load_engine(model, plainly, generation, progress=progress)
    entrants = _entrants(arguments, sweeps, ready(engine.model.name, engine.sources))
    tasks = _tasks(prompts.tasks, sweeps, engine)
    with closing(Bench(engine, entrants, tasks)) as made:
        if made.missing and len(made.entrants) == 1:
            name, why = next(iter(made.missing.items()))
            raise ModelError(f"there is nothing to compare with {plain()}: {name}: {why}")
        settings = _settings(arguments, model, generation, engine)
        kept = _kept(results.out, made, settings)
        trials, complete = _rounds(made, arguments, kept)
        name = Path(model.model or EMBEDDED).name
        if trials:
            found(_result(made, trials, settings, name), complete=complete)
        if complete:
            _write_more(made, trials, results, name)
    return complete


def _entrants(
    arguments: BenchArguments, sweeps: Sequence[Sweep], everything: Sequence[str]
) -> list[Entrant]:
    """Return who is compared, plain decoding first.

    Args:
        arguments: that name them.
        sweeps: over options.
        everything: the methods that "all" stands for.

    Raises:
        UsageError: for names, rates and options that there are not.
    """
    from nfox.eval import peers
    from nfox.eval.bench.entrants import Entrant

    methods = everything if arguments.methods == "all" else _listed(arguments.methods)
    made = [Entrant.parse(name) for name in methods]
    try:
        rates = [float(rate) for rate in _listed(arguments.simulated or "")]
    except ValueError as error:
        raise UsageError(f"--simulate-acceptance: {error}", "for example 0.6,0.8") from None
    made += [Entrant.simulated(rate, arguments.simulated_gamma or _GAMMA) for rate in rates]
    others = peers.names() if arguments.peers == "all" else _listed(arguments.peers)
    made += [Entrant.peer(name) for name in others]
    for sweep in sweeps:
        made = sweep.entrants(made)
    return list({one.name: one for one in (Entrant.parse(plain()), *made)}.values())


def _refuse_idle_options(
    arguments: BenchArguments, sweeps: Sequence[Sweep], generation: GenerationArguments
) -> None:
    """Say which options would do nothing, or something else than it seems.

    Raises:
        UsageError: if there are any.
    """
    from nfox.eval.bench.sweeps import CONTEXT, TEMPERATURE

    varied = [sweep.name for sweep in sweeps]
    if {CONTEXT, TEMPERATURE} <= set(varied) or len(set(varied)) < len(varied):
        raise UsageError(
            "sweeps over prompts exclude each other, and nothing is swept twice",
            f"{CONTEXT} and {TEMPERATURE} in a run each; options of methods go with either",
        )
    if arguments.simulated_gamma is not None and not arguments.simulated:
        raise UsageError("--simulate-gamma is of --simulate-acceptance", "add the rates")
    greedy = not generation.temperature and generation.sampling != "model"
    if arguments.accept != "exact" and greedy and TEMPERATURE not in varied:
        raise UsageError(
            f"--accept {arguments.accept} is the same as exact at temperature 0",
            "add --temperature",
        )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _tasks(tasks: Sequence[Task], sweeps: Sequence[Sweep], engine: Engine) -> list[Task]:
    made = list(tasks)
    for sweep in sweeps:
        made, left_out = sweep.tasks(made, engine)
        if left_out:
            print(f"nfox: {left_out} prompts are longer than that, left out", file=sys.stderr)
    if not made:
        raise UsageError("all prompts are longer than the contexts that are swept over")
    return made


def _settings(
    arguments: BenchArguments,
    model: ModelArguments,
    generation: GenerationArguments,
    engine: Engine,
) -> dict[str, Any]:
    """Return all that was asked for, as JSON has it."""
    sampling = asdict(engine.settings.sampling)  # as it is, whoever said so
    asked = asdict(arguments) | asdict(generation) | asdict(model)
    given = asked | sampling | model_facts(model) | {"model": model.model}
    return {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}


def _kept(out: Path | None, made: Bench, settings: dict[str, Any]) -> Kept | None:
    """Return the file that keeps trials until all are there; None if results are not kept."""
    if out is None:
        return None
    from nfox.eval.bench.journal import Kept, trials_file
    from nfox.eval.bench.machine import machine

    here = machine(made.engine, "")
    there = {
        name: getattr(here, name) for name in ("device", "threads", "dtype", "commit", "versions")
    }
    facts = settings | there | {"entrants": [one.name for one in made.entrants]}
    facts["tasks"] = [asdict(task) for task in made.tasks]
    return Kept(trials_file(out), facts)


def _rounds(made: Bench, arguments: BenchArguments, kept: Kept | None) -> tuple[list[Trial], bool]:
    """Run what is left of all rounds; return the trials of those tasks that all have held, and
    whether these are all.
    """
    from nfox.eval.bench.journal import whole

    names = [one.name for one in made.entrants]
    trials = whole(kept.read(), names) if kept else []  # what some have held, all hold again
    if trials:
        print(f"nfox: going on after {len(trials)} conversations", file=sys.stderr)
    held = {(trial.entrant, trial.task, trial.turn) for trial in trials}
    with kept.writing() if kept else nullcontext() as add:
        try:
            for trial in made.rounds(arguments.rounds, arguments.warmup, _tell, held):
                trials.append(trial)
                if add:
                    add(trial)
        except KeyboardInterrupt:
            then = "the same command goes on" if kept else "with --json it could be gone on with"
            print(f"\nnfox: interrupted after {len(trials)} conversations; {then}", file=sys.stderr)
            return whole(trials, names), False
    return trials, True


def _tell(done: int, of: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == of else ""
        print(f"\r{done} of {of} conversations", end=end, file=sys.stderr, flush=True)


def _result(
    made: Bench, trials: Sequence[Trial], settings: dict[str, Any], name: str
) -> BenchResult:
    """Return everything that was measured, as it is written."""
    from nfox.eval.bench.figures import DivergenceRow
    from nfox.eval.bench.machine import machine
    from nfox.eval.bench.metrics import rows
    from nfox.eval.bench.result import BenchResult, EntrantRecord
    from nfox.eval.bench.simulation import simulation

    engine = made.engine
    target = model_name(engine) + (f" with {engine.model.adapter}" if engine.model.adapter else "")

    def describe(entrant: str) -> str:
        """Name a place beside the model, wherever it lies."""
        return made.runners[entrant].describe().replace(engine.model.name, name)

    divergences = made.parted(trials)
    peers = {one.name for one in made.entrants if one.kind == "peer"}
    categories = [task.category for task in made.tasks]
    table = rows(target, trials, categories, divergences, peers)
    return BenchResult(
        machine=machine(engine, command_line()),
        settings=settings,
        entrants={
            one.name: EntrantRecord(kind=one.kind, settings=describe(one.name))
            for one in made.entrants
        },
        missing=made.missing,
        rows=table,
        simulation=simulation(made.entrants, trials, table, engine.costs),
        divergences=[
            DivergenceRow(**{**asdict(each), "task": made.tasks[each.task].id})
            for each in divergences
        ],
    )


def _write_more(made: Bench, trials: Sequence[Trial], results: ResultArguments, name: str) -> None:
    """Write what needs more than the figures."""
    from nfox.text.stream import decode_text

    if results.answers is not None:
        peers = {one.name for one in made.entrants if one.kind == "peer"}
        engine = made.engine

        def decode(ids: Sequence[int]) -> str:
            return decode_text(engine.model.tokenizer, ids).strip()

        files = write_answers(results.answers, trials, made.tasks, decode, name, peers)
        print(f"answers of {len(files)} written to {results.answers}", file=sys.stderr)
    if results.profile is not None:
        from nfox.eval.bench.profiles import write

        make_folder(results.profile)
        files = write(made, results.profile)
        print(f"profiles of {len(files)} written to {results.profile}", file=sys.stderr)
