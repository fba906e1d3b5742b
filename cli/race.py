"""`nfox race`: one prompt answered by several methods, side by side at the pace of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.characters import cleaned
from nfox.drafters import plain_method
from nfox.errors import UsageError

from . import unused
from .engine_arguments import EngineArguments
from .errors import INTERRUPTED
from .options.chat import DisplayArguments
from .options.dataclass_options import grouped, option
from .options.engine import GenerationArguments, MethodArguments, ModelArguments
from .output_files import check_out, write_out
from .printing import say, tell

if TYPE_CHECKING:
    from nfox.race import Race


@dataclass(frozen=True)
class RaceArguments:
    """Who races with what, and where it is recorded."""

    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What all of them answer.")]
    methods: Annotated[
        str | None,
        option("Race", "none,spec,spec:gamma=4; plain and drafted by default.", "--methods"),
    ] = None
    cast: Annotated[
        Path | None,
        option("Race", "A recording to write, for asciinema.", "--cast", envvar=None),
    ] = None


def race(
    context: typer.Context,
    arguments: RaceArguments,
    model: ModelArguments,
    generation: GenerationArguments,
) -> None:
    """Answer a prompt by several methods, and show them side by side, each at its own pace.

    They answer one after the other, since they share the machine, and are then shown together.
    """
    engine_arguments = EngineArguments(model, MethodArguments(plain_method()), generation)
    engine_arguments.check()
    prompt = cleaned(arguments.prompt)
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'nfox race "text"')
    check_out(arguments.cast, "recording")
    from .chat import race as racing  # it takes torch

    names = arguments.methods
    entrants = racing.parse(names.split(",")) if names is not None else None
    engine = engine_arguments.load()
    entrants = entrants or racing.parse(racing.usual_methods(engine))
    drafting = unused.of_drafting(engine, [entrant.method for entrant in entrants])
    unused.report_typed(context, unused.of_loading(engine) | unused.of_sampling(engine) | drafting)
    measured = racing.measure(engine, engine.request(prompt), entrants, tell)
    if measured is None:
        raise typer.Exit(INTERRUPTED)
    _show(measured, engine.model.tokenizer, arguments.cast)


def _show(measured: Race, tokenizer: Any, cast: Path | None) -> None:
    """Show a race on stdout, in columns where that is a terminal, and record it."""
    from .chat.race import show
    from .display.cast import recording
    from .display.race_picture import RacePicture
    from .display.theme import make_screen

    picture, screen = RacePicture(measured, tokenizer), make_screen(DisplayArguments())
    if screen.console.is_terminal:
        show(picture, screen)
    else:
        say(*picture.table(screen.symbols))
        for text, names in picture.texts().items():
            say("", f"{', '.join(names)}:", *text.splitlines())
    tell(picture.note)
    if cast is not None:
        write_out(cast, recording(picture))
        tell(f"the recording is in {cast}; asciinema play {cast} shows it")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("race")(grouped(race))
