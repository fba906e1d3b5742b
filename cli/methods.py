"""`nfox methods`: all drafting methods, what each needs, and which weights a model has for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from nfox.controls import json_text, one_line
from nfox.drafters import method_class, method_names

from .help import panels
from .known_models import usual_model
from .layout import unbroken
from .options.dataclass_options import grouped, option
from .options.engine import ModelArguments
from .printing import say_json


@dataclass(frozen=True)
class MethodsArguments:
    """The model whose weights are looked for, and how the list is printed."""

    model: Annotated[
        str | None,
        option("Model", "Folder or hub id; that of the chat by default.", "--model", "-m"),
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
    from nfox.drafters.common.method import WeightSources
    from nfox.files.model_names import check_hub_id
    from nfox.heads.named_model import find_named

    named = find_named(usual_model(_named(arguments)).model, heads=arguments.heads)
    model, sources = named.base, WeightSources(arguments.draft_model, named.heads)
    check_hub_id(model)
    rows = [_row(name, model, method_class(name).locate(model, sources)) for name in method_names()]
    if arguments.as_json:
        say_json(json_text({"model": model, "methods": rows}, indent=1) + "\n")
        return
    typer.echo("\n".join(panels(_panels(model, rows))).lstrip("\n"))


def _named(arguments: MethodsArguments) -> ModelArguments:
    return ModelArguments(arguments.model, draft_model=arguments.draft_model, heads=arguments.heads)


def _panels(model: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the panel of the methods, and one for the options of each that has any."""
    widest = max(len(row["name"]) for row in rows)
    states = {True: "ready", False: "missing"}
    yield (
        "Methods",
        [(f"{row['name']:<{widest}}  {states[row['ready']]}", _about(model, row)) for row in rows],
    )
    for row in rows:
        settings = row["options"].items()
        yield (
            f"Options of {row['name']}",
            [(f"-o {name}=", _setting(one)) for name, one in settings],
        )


def _about(model: str, row: dict[str, Any]) -> str:
    """Return what a method does, and where its weights are, or which it needs."""
    weights = (row["weights"] or "").replace(model, "<model>")
    more = f"; weights: {weights}" if weights else f"; needs {row['needs']}" if row["needs"] else ""
    return one_line(f"{row['summary']}{more}")


def _setting(setting: dict[str, Any]) -> str:
    """Return what an option of a method does, and its default."""
    default = setting["default"]
    shown = "" if default in (None, "") else f" {unbroken(f'[default: {default}]')}"
    return f"{setting['help']}{shown}"


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
