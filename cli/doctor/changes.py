"""What a plain step would take with other options, tried where that is quick."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

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
_SECONDS = 0.3  # of timing forwards
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
    for changes in _candidates(subject, engine):
        option = " ".join(f"--{name} {value}" for name, value in changes.items())
        if seconds > _QUICK:
            words = f"not tried: loading takes {seconds:.0f} s"
            advice = Advice(f"{option}: this measures it", subject.command("doctor", **changes))
            yield Finding(_SECTION, option, words, advice=advice)
            continue
        progress.stage(f"trying {option}")
        yield _tried(subject, engine, option, changes)


def _candidates(subject: Subject, engine: Engine) -> Iterator[dict[str, str]]:
    """Yield options that may make forwards on the CPU faster."""
    options, target = subject.arguments, engine.model.target
    if target.is_native and options.quantisation is None:
        yield {"quantize": "int8"}
        yield {"quantize": "int4"}
    elif target.dtype == torch.float32 and options.dtype == "auto" and options.compile != "off":
        yield {"dtype": "bfloat16"}


def _tried(subject: Subject, engine: Engine, option: str, changes: Mapping[str, str]) -> Finding:
    """Return what a plain step takes where the model is loaded with another option."""
    loader: Any = engine.loader
    renamed = {{"quantize": "quantisation"}.get(name, name): changes[name] for name in changes}
    other = replace(loader, loading=replace(loader.loading, **renamed), progress=LoadProgress())
    try:
        loaded = other.target(engine.model.adapter)
    except NfoxError as error:
        return Finding(_SECTION, option, f"not here: {error.message}")
    now, then = _step_seconds(engine.model.target), _step_seconds(loaded.target)
    text = f"plain decoding with {option}, which rounds the weights, so that texts differ"
    return _compared(option, now, then, text, subject.command(**changes))


def _of_threads(subject: Subject, target: Target, cores: int) -> Finding:
    """Return what a plain step takes with all cores."""
    threads, now = torch.get_num_threads(), _step_seconds(target)
    torch.set_num_threads(cores)
    try:
        then = _step_seconds(target)
    finally:
        torch.set_num_threads(threads)
    command = subject.command(threads=cores)
    option = f"--threads {cores}"
    return _compared(option, now, then, f"{cores} threads instead of {threads}", command)


def _step_seconds(target: Target) -> float:
    return measure_costs(target, time_limit=_SECONDS).forward_seconds(1)


def _compared(option: str, now: float, then: float, text: str, command: str) -> Finding:
    """Return the times of a step now and with another option, with advice if it is faster."""
    gain = now / then
    words = f"a plain step takes {1e3 * then:.1f} instead of {1e3 * now:.1f} ms, {gain:.2f}x"
    advice = Advice(text, command, round(gain, 2)) if gain > GAIN else None
    facts = {"seconds": then, "seconds_now": now, "gain": gain}
    return Finding(_SECTION, option, words, advice=advice, facts=facts)
