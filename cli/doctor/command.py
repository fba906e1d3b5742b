"""The command `nfox doctor`: findings as they are found, then what to do, in the order of gain."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.controls import json_text
from nfox.errors import NfoxError, UsageError
from nfox.files.hub import short_name
from nfox.version import __version__

from ..display.progress import loading_display
from ..engine_arguments import EngineArguments
from ..options.completion import models
from ..options.dataclass_options import option
from ..options.engine import MethodArguments, ModelArguments
from ..printing import say

if TYPE_CHECKING:
    from nfox.engine import Engine

    from .findings import Advice, Finding
    from .subject import Subject

WRONG = 1
"""The exit code where something is wrong."""


@dataclass(frozen=True)
class DoctorArguments:
    """The model to look at, and how findings are printed."""

    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="As --model. [default: the embedded one]", autocompletion=models
        ),
    ] = None
    as_json: Annotated[bool, option("Display", "As JSON.", "--json", envvar=None)] = False


def doctor(context: typer.Context, arguments: DoctorArguments, model: ModelArguments) -> None:
    """Say whether machine, packages and a model are fit, measure it, and advise what is faster.

    Downloads nothing. Exit code 1: something is wrong.
    """
    if arguments.name is not None:
        source = context.get_parameter_source("model")
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"two models: {arguments.name} and {model.model}", "name one")
        model = replace(model, model=arguments.name)
    EngineArguments(model).check()
    from .drawing import Drawing
    from .findings import ordered_advice
    from .subject import Subject

    findings: list[Finding] = []
    draw = None if arguments.as_json else Drawing()
    for finding in _examine(Subject(model)):
        findings.append(finding)
        if draw:
            draw.finding(finding)
    advice, wrong = ordered_advice(findings), any(one.mark == "wrong" for one in findings)
    if draw:
        draw.advice(advice)
    else:
        _print_json(model, findings, advice)
    if wrong:
        raise typer.Exit(WRONG)


def _print_json(model: ModelArguments, findings: list[Finding], advice: list[Advice]) -> None:
    result = {
        "nfox": __version__,
        "model": model.model,
        "ok": all(one.mark != "wrong" for one in findings),
        "findings": [asdict(one) for one in findings],
        "advice": [asdict(one) for one in advice],
    }
    say(*json_text(result, indent=1).splitlines())


def _examine(subject: Subject) -> Iterator[Finding]:
    """Yield all findings, from the machine to what was measured; where one is wrong that the others
    need, they are not looked for.
    """
    from .findings import Advice, Finding
    from .packages import of_bitsandbytes, of_packages, starts

    torch_fault = starts("torch")
    if torch_fault is None:
        yield from _of_machine(subject)
    yield from of_packages()
    if fault := torch_fault or starts("transformers"):
        yield fault
        return
    import torch

    if torch.cuda.is_available() or subject.arguments.quantisation in ("4bit", "8bit"):
        yield of_bitsandbytes()
    section = f"model {short_name(subject.arguments.model or 'the embedded model')}"
    try:
        yield from _of_model(subject, section)
    except NfoxError as error:
        yield Finding(section, "model", error.message, "wrong", Advice.of(error))


def _of_machine(subject: Subject) -> Iterator[Finding]:
    import torch

    from nfox.models.devices import choose_device

    from .machine import of_forwards, of_gpus, of_processor

    if subject.arguments.threads is not None:
        torch.set_num_threads(subject.arguments.threads)
    yield from of_processor(torch.get_num_threads(), subject)
    with loading_display(sys.stderr.isatty()) as progress:
        progress.stage("looking for GPUs")
        found = [*of_gpus()]
    yield from found
    try:
        device = choose_device(subject.arguments.device)
    except NfoxError as error:
        yield Finding("machine", "device", error.message, "wrong", Advice.of(error))
        return
    with loading_display(sys.stderr.isatty()) as progress:
        progress.stage("looking for a compiler")
        found = [*of_forwards(device)]
    yield from found


def _of_model(subject: Subject, section: str) -> Iterator[Finding]:
    """Yield findings about the model, before it is loaded and after.

    Args:
        subject: the model with its options.
        section: of what is said before it is loaded.

    Raises:
        NfoxError: if it cannot be loaded.
    """
    from . import before, changes, drafting, measured, prompts
    from .findings import Finding, warnings_kept

    is_fit = True
    for finding in before.of_model(subject, section):
        is_fit = is_fit and finding.mark != "wrong"
        yield finding
    if not is_fit:
        return
    begin = time.perf_counter()
    with warnings_kept() as told:
        engine = _load(subject)
    seconds = time.perf_counter() - begin
    yield from (Finding(section, "loading", text, "warn") for text in told)
    found = [*drafting.of_methods(subject, engine)]
    yield from (one.finding for one in found)
    unused = [*drafting.of_cache(subject, engine)]
    yield from unused
    trained = [one for one in found if one.finding.facts.get("weights")]
    if not trained and not unused and engine.model.target.proposals != "nothing":
        yield drafting.of_training(subject)
    yield prompts.of_template(subject, engine)
    yield from prompts.of_pairs(subject, engine)
    yield from measured.of_loading(engine, seconds)
    methods = {one.finding.name: one.method for one in found if one.method is not None}
    with loading_display(sys.stderr.isatty()) as progress:
        results = [*measured.of_methods(subject, engine, methods, progress)]
    yield from results
    with loading_display(sys.stderr.isatty()) as progress:
        results = [*changes.of_changes(subject, engine, seconds, progress)]
    yield from results


def _load(subject: Subject) -> Engine:
    """Load the model, to be decoded plainly, also without a chat template."""
    from nfox.drafters import plain_method
    from nfox.text.resolve import TOKENIZER_OR_PLAIN

    arguments = subject.arguments
    template = arguments.conv_template or TOKENIZER_OR_PLAIN
    model = replace(arguments, offline=True, conv_template=template)
    return EngineArguments(model, MethodArguments(plain_method())).load()
