"""The command `nfox doctor`: findings as they are found, then what to do, in the order of gain."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.controls import json_text
from nfox.errors import UsageError
from nfox.version import __version__

from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.completion import models
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..printing import say_json
from ..suspension import suspendable

if TYPE_CHECKING:
    from .findings import Advice, Finding

WRONG = 1
"""The exit code where something is wrong."""


@dataclass(frozen=True)
class DoctorArguments:
    """The model to look at, and how findings are printed."""

    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="As --model. [default: that of the chat]", autocompletion=models
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
    model = usual_model(model)
    from .drawing import Drawing
    from .examination import examine
    from .findings import ordered_advice
    from .machine import is_busy
    from .subject import Subject

    findings: list[Finding] = []
    draw = None if arguments.as_json else Drawing()
    with suspendable():
        for finding in examine(Subject(model)):
            findings.append(finding)
            if draw:
                draw.finding(finding)
    advice, wrong = ordered_advice(findings), any(one.mark == "wrong" for one in findings)
    if draw:
        draw.advice(advice, is_busy=any(is_busy(one) for one in findings))
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
    say_json(json_text(result, indent=1) + "\n")
