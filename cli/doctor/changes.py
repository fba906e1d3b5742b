"""What a plain step would take with other options, tried where that is quick."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from nfox.counting import counted
from nfox.decoding.costs import measure_costs
from nfox.errors import NfoxError
from nfox.models.options import LoadProgress

from .findings import Advice, Finding
from .machine import usable_cores
from .measured import GAIN
from .subject import Subject

if TYPE_CHECKING:
    from nfox.decoding.target import Target
    from nfox.engine import Engine

_SECTION = "other options"
_ROUNDS, _SECONDS = 3, 0.1  # of timing forwards now and with another option, in turn
_QUICK = 6.0  # seconds of loading, up to which it is loaded again to try something


def of_changes(
    subject: Subject, engine: Engine, seconds: float, progress: LoadProgress
) -> Iterator[Finding]:
    """Yield what a plain step takes with other options, where that can be tried quickly.

    Args:
        subject: the model with its options.
        engine: with the model.
        seconds: that loading it took.
        progress: told what is tried.
    """
    target = engine.model.target
    if target.device.type != "cpu" or engine.loader is None:
        return
    threads, cores = torch.get_num_threads(), usable_cores()
    if threads < cores and (engine.threads is None or engine.threads.most < cores):
        yield _of_threads(subject, target, cores)
    for option, changes in _candidates(subject, engine):
        if seconds > _QUICK:
            words = f"not tried: loading takes {seconds:.0f} s"
            advice = Advice(f"{option}: this measures it", subject.command("doctor", **changes))
            yield Finding(_SECTION, option, words, advice=advice)
            continue
        progress.stage(f"trying {option}")
        yield _tried(subject, engine, option, changes)


def _candidates(subject: Subject, engine: Engine) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield options that may make forwards on the CPU faster, as they are typed and by name."""
    options, target = subject.arguments, engine.model.target
    if target.stored_in:
        return  # in few bits already
    if target.is_native and options.quantisation is None:
        yield "--quantize int8", {"quantize": "int8"}
        yield "--quantize int4", {"quantize": "int4"}
    elif options.load_in_4bit:
        yield "--quantize int4", {"load_in_4bit": False, "quantize": "int4"}
    elif options.load_in_8bit:
        yield "--quantize int8", {"load_in_8bit": False, "quantize": "int8"}
    elif target.dtype == torch.float32 and options.compile != "off":
        yield "--dtype bfloat16", {"dtype": "bfloat16"}


def _tried(subject: Subject, engine: Engine, option: str, changes: Mapping[str, Any]) -> Finding:
    """Return what a plain step takes where the model is loaded with another option."""
    loader: Any = engine.loader
    loading = Subject(replace(subject.arguments, **changes)).loading
    try:
        loaded = replace(loader, loading=loading, progress=LoadProgress()).target(loading.adapter)
    except NfoxError as error:
        return Finding(_SECTION, option, f"not here: {error.message}", "-")
    now, then = _seconds_of(engine.model.target, loaded.target)
    text = f"plain decoding with {option}; other weights, so other texts"
    return _compared(option, now, then, text, subject.command(**changes))


def _of_threads(subject: Subject, target: Target, cores: int) -> Finding:
    """Return what a plain step takes with all cores."""
    threads = torch.get_num_threads()
    try:
        now, then = _seconds_of(target, target, threads=(threads, cores))
    finally:
        torch.set_num_threads(threads)
    text, command = (
        f"{counted(cores, 'thread')} instead of {threads}",
        subject.command(threads=cores),
    )
    return _compared(f"--threads {cores}", now, then, text, command)


def _seconds_of(
    first: Target, second: Target, threads: tuple[int, int] | None = None
) -> tuple[float, float]:
    """Return the least seconds of plain steps of two targets, timed in turn, so that both meet
    what else the machine does.

    Args:
        first: a target.
        second: another one, or the same.
        threads: how many each has; None leaves that as it is.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for number, target in enumerate((first, second)):
            if threads:
                torch.set_num_threads(threads[number])
            times[number].append(measure_costs(target, time_limit=_SECONDS).forward_seconds(1))
    return min(times[0]), min(times[1])


def _compared(option: str, now: float, then: float, text: str, command: str) -> Finding:
    """Return the times of a step now and with another option, with advice if it is faster."""
    gain = now / then
    words = f"a plain step takes {1e3 * then:.2f} instead of {1e3 * now:.2f} ms, {gain:.2f}x"
    advice = Advice(text, command, round(gain, 2)) if gain > GAIN else None
    facts = {"seconds": then, "seconds_now": now, "gain": gain}
    return Finding(_SECTION, option, words, advice=advice, facts=facts)
