"""One run of the benchmark: who takes part, the rounds, and how an interrupted run goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.counting import counted
from nfox.drafters import method_names, plain_method, ready_methods
from nfox.errors import ModelError, UsageError

from .. import unused
from ..engine_arguments import EngineArguments
from ..facts import model_facts
from ..options.engine import GenerationArguments, MethodArguments, ModelArguments
from ..printing import tell
from ..suspension import suspendable

if TYPE_CHECKING:
    import typer

    from nfox.eval.bench.entrants import Entrant
    from nfox.eval.bench.journal import TrialJournal
    from nfox.eval.bench.sweeps import Sweep
    from nfox.eval.bench.trials import Bench, Trial

    from .arguments import BenchArguments


_GAMMA = 4  # tokens that a simulated drafter drafts


def prepare(
    arguments: BenchArguments, model: ModelArguments, generation: GenerationArguments
) -> Bench:
    """Load the model, and make the tasks and the entrants ready.

    Raises:
        NfoxError: for options that do not fit, or where there is nothing to compare.
    """
    from nfox.eval.bench.sweeps import Sweep
    from nfox.eval.bench.tasks import read
    from nfox.eval.bench.trials import Bench

    sweeps = [Sweep.parse(text) for text in arguments.sweep]
    _refuse_idle_options(arguments, sweeps, generation)
    _entrants(arguments, sweeps, method_names())  # mistakes are told before a model is loaded
    sizes = arguments.limit, arguments.turns
    categories = _listed(arguments.categories or "")
    listed = read(arguments.prompts, *sizes, arguments.schemas, categories)
    if listed.skipped:
        tell(f"nfox: left out {counted(listed.skipped, 'record')}: no JSON, or nothing is asked")
    method = MethodArguments(plain_method(), accept=arguments.accept)
    engine = EngineArguments(model, method, generation).load()
    entrants = _entrants(arguments, sweeps, ready_methods(engine.model.name, engine.sources))
    tasks = listed.tasks
    for sweep in sweeps:
        tasks, left_out = sweep.tasks(tasks, engine)
        if left_out:
            tell(f"nfox: left out {counted(left_out, 'prompt')}: longer than that")
    if not tasks:
        raise UsageError("all prompts are longer than the contexts that are swept over")
    bench = Bench(engine, entrants, tasks)
    if bench.missing and len(bench.entrants) == 1:
        name, why = next(iter(bench.missing.items()))
        raise ModelError(f"there is nothing to compare with {plain_method()}: {name}: {why}")
    return bench


def _entrants(
    arguments: BenchArguments, sweeps: Sequence[Sweep], all_methods: Sequence[str]
) -> list[Entrant]:
    """Return who is compared, plain decoding first.

    Args:
        arguments: that name them.
        sweeps: over options.
        all_methods: the methods that "all" stands for.

    Raises:
        UsageError: for names, rates and options that there are not.
    """
    from nfox.eval import peers
    from nfox.eval.bench.entrants import (
        MethodEntrant,
        PeerEntrant,
        ReplayEntrant,
        SimulatedEntrant,
        token_count,
    )

    methods = all_methods if arguments.methods == "all" else _listed(arguments.methods)
    entrants: list[Entrant] = [MethodEntrant.parse(name) for name in methods]
    try:
        rates = [float(rate) for rate in _listed(arguments.simulated or "")]
    except ValueError as error:
        raise UsageError(f"--simulate-acceptance: {error}", "for example 0.6,0.8") from None
    gamma = arguments.simulated_gamma or _GAMMA
    entrants += [SimulatedEntrant.of(rate, gamma) for rate in rates]
    counts = _listed(arguments.replay)
    entrants += [ReplayEntrant.of(token_count("--replay", count)) for count in counts]
    programs = peers.names() if arguments.peers == "all" else _listed(arguments.peers)
    entrants += [PeerEntrant(name) for name in programs]
    for sweep in sweeps:
        entrants = sweep.entrants(entrants)
    entrants = [MethodEntrant.parse(plain_method()), *entrants]
    return list({entrant.name: entrant for entrant in entrants}.values())


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _refuse_idle_options(
    arguments: BenchArguments, sweeps: Sequence[Sweep], generation: GenerationArguments
) -> None:
    """Refuse options that would do nothing, or something else than it seems.

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


def report_idle(context: typer.Context, bench: Bench, arguments: BenchArguments) -> None:
    """Print which options change nothing in a benchmark, which methods guess nothing, and why."""
    from nfox.eval.bench.entrants import MethodEntrant
    from nfox.eval.bench.runner import MethodRunner
    from nfox.eval.bench.sweeps import TEMPERATURE, Sweep

    engine = bench.engine
    methods = [entrant.method for entrant in bench.entrants if isinstance(entrant, MethodEntrant)]
    if any(entrant.kind == "peer" for entrant in bench.entrants):
        methods += ready_methods(engine.model.name, engine.sources)  # a peer may take their weights
    idle = unused.of_loading(engine) | unused.of_drafting(engine, list(dict.fromkeys(methods)))
    if all(Sweep.parse(text).name != TEMPERATURE for text in arguments.sweep):
        idle |= unused.of_sampling(engine)
    unused.report_typed(context, idle)
    for runner in bench.runners.values():
        if isinstance(runner, MethodRunner):
            unused.report_idle_method(runner.drafter)


def all_settings(
    bench: Bench,
    arguments: BenchArguments,
    model: ModelArguments,
    generation: GenerationArguments,
) -> dict[str, Any]:
    """Return all that was asked for, by the names of the options, as JSON has it."""
    sampling = asdict(bench.settings.sampling)  # as it is, whoever said so
    options = asdict(arguments) | asdict(generation) | asdict(model)
    settings = options | sampling | model_facts(model) | {"model": model.model}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in settings.items()
    }


def open_journal(out: Path, bench: Bench, settings: dict[str, Any]) -> TrialJournal:
    """Return the file that keeps trials until the result is written.

    Args:
        out: the file for the result.
        bench: whose trials are kept.
        settings: all that was asked for.
    """
    from nfox.eval.bench.journal import TrialJournal, trials_file
    from nfox.eval.bench.machine import this_machine

    machine = this_machine(bench.engine, "")
    names = ("device", "threads", "dtype", "commit", "versions")
    facts = settings | {name: getattr(machine, name) for name in names}
    facts["entrants"] = [entrant.name for entrant in bench.entrants]
    facts["tasks"] = [asdict(task) for task in bench.tasks]
    return TrialJournal(trials_file(out), facts)


def run_rounds(
    bench: Bench, arguments: BenchArguments, journal: TrialJournal | None
) -> tuple[list[Trial], bool]:
    """Run what is left of all rounds.

    Returns:
        The trials of those tasks and rounds that all entrants have finished, without those of
        peers that died, and whether these are all that were asked for.
    """
    from nfox.eval.bench.journal import complete_rounds

    trials = complete_rounds(journal.read(), list(bench.runners)) if journal else []
    if trials:
        tell(f"nfox: going on after {counted(len(trials), 'conversation')}")
    finished = {trial.key for trial in trials}
    with suspendable(), journal.writing() if journal else nullcontext() as add:
        try:
            for trial in bench.rounds(arguments.rounds, arguments.warmup, _on_trial, finished):
                trials.append(trial)
                if add:
                    add(trial)
        except KeyboardInterrupt:
            then = "the same command goes on" if journal else "with --json it could be gone on with"
            count = counted(len(trials), "conversation")
            tell("", f"nfox: interrupted after {count}; {then}")
            return complete_rounds(trials, list(bench.runners)), False
    return [trial for trial in trials if trial.entrant in bench.runners], True


def _on_trial(done: int, total: int) -> None:
    if sys.stderr.isatty():
        tell(f"{done} of {total} conversations", end="\n" if done == total else "\r")
