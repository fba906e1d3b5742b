"""`nfox methods`: all drafting methods, what each needs, and which weights a model has for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from nfox.controls import json_text
from nfox.drafters import method_class, method_names

from .options.dataclass_options import grouped, option
from .printing import say


@dataclass(frozen=True)
class MethodsArguments:
    """The model whose weights are looked for, and how the list is printed."""

    model: Annotated[
        str | None,
        option("Model", "Folder or hub id; the embedded one by default.", "--model", "-m"),
    ] = None
    draft_model: Annotated[
        str | None, option("Model", "Folder or hub id of a draft model.", "--draft-model")
    ] = None
    heads: Annotated[
        str | None, option("Model", "Folder or hub id of trained heads.", "--heads")
    ] = None
    as_json: Annotated[bool, option("Display", "As JSON.", "--json", envvar=None)] = False


def methods(arguments: MethodsArguments) -> None:
    """List the methods, with what each needs, and which weights were found for the model."""
    from nfox.demo import TARGET
    from nfox.drafters.common.method import WeightSources
    from nfox.files.hub import check_hub_id
    from nfox.heads.named_model import find_named

    named = find_named(arguments.model or str(TARGET), heads=arguments.heads)
    model, sources = named.base, WeightSources(arguments.draft_model, named.heads)
    check_hub_id(model)
    rows = [_row(name, model, method_class(name).locate(model, sources)) for name in method_names()]
    if arguments.as_json:
        say(*json_text({"model": model, "methods": rows}, indent=1).splitlines())
        return
    from rich.padding import Padding
    from rich.text import Text

    from .display.console import CleanConsole

    console = CleanConsole()
    for row in rows:
        console.print(Text(f"{row['name']}", style="bold"), Text(row["summary"]))
        for line in _lines(row):
            console.print(Padding(Text(line, style="dim"), (0, 0, 0, 8)))


def _lines(row: dict[str, Any]) -> list[str]:
    """Return a line with what a method needs, and a line for each of its options."""
    weights = f"found: {row['weights']}" if row["weights"] else "not found for this model"
    lines = [f"needs {row['needs']} ({weights})"] if row["needs"] else []
    for name, setting in row["options"].items():
        default = "" if setting["default"] is None else f" (default {setting['default']})"
        lines.append(f"-o {name}=: {setting['help']}{default}")
    return lines


def _row(name: str, model: str, weights: str | None) -> dict[str, Any]:
    """Return what is said of a method for a model, as --json prints it."""
    drafter_class = method_class(name)
    return {
        "name": name,
        "summary": drafter_class.summary,
        "needs": drafter_class.needs,
        "ready": not drafter_class.needs or weights is not None,
        "weights": weights,
        "published": drafter_class.published(model),
        "options": {
            field.name: {"default": field.default, "help": field.metadata["help"]}
            for field in fields(drafter_class.options)
        },
    }


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("methods")(grouped(methods))
