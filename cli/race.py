"""`nfox race`: one prompt answered by several methods, side by side at the pace of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.characters import cleaned
from nfox.drafters import plain_method
from nfox.errors import UsageError

from . import unused
from .engine_arguments import EngineArguments
from .errors import INTERRUPTED
from .known_models import usual_model
from .options.chat import DisplayArguments, Theme
from .options.dataclass_options import grouped, option, rare
from .options.engine import GenerationArguments, MethodArguments, ModelArguments
from .output_files import check_out, write_out
from .printing import say, say_whole, tell

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.eval.bench.entrants import MethodEntrant


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
    svg: Annotated[
        Path | None,
        option("Race", "A moving picture to write, for a page.", "--svg", envvar=None),
    ] = None
    theme: Annotated[Theme, rare("Race", "The terminal's background.", "--theme")] = "auto"


def race(
    context: typer.Context,
    arguments: RaceArguments,
    model: ModelArguments,
    generation: GenerationArguments,
) -> None:
    """Answer a prompt by several methods, and show them side by side, each at its own pace.

    They answer one after the other, since they share the machine, and are then shown together.
    """
    model = usual_model(model)
    EngineArguments(model, generation=generation).check()
    prompt = cleaned(arguments.prompt)
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'nfox race "text"')
    EngineArguments.check_names(arguments.methods)
    from .display.pictures import check_file

    check_out(arguments.cast, "recording")
    check_file(arguments.svg)
    from .chat import race as racing  # it takes torch

    names = arguments.methods
    entrants = racing.parse(names.split(",")) if names is not None else None
    engine = EngineArguments(model, MethodArguments(plain_method()), generation).load()
    entrants = entrants or racing.parse(racing.usual_methods(engine))
    drafting = unused.of_drafting(engine, [entrant.method for entrant in entrants])
    unused.report_typed(context, unused.of_loading(engine) | unused.of_sampling(engine) | drafting)
    if not _hold(engine, prompt, entrants, arguments):
        raise typer.Exit(INTERRUPTED)


def _hold(
    engine: Engine, prompt: str, entrants: Sequence[MethodEntrant], arguments: RaceArguments
) -> bool:
    """Hold a race, show it on stdout, in columns where that is a terminal, and record it where it
    came to its end; return whether nobody stopped it.
    """
    from .chat.race import measure, show
    from .display.cast import recording
    from .display.race_picture import MEASURED, RacePicture
    from .display.race_svg import animated
    from .display.theme import make_screen

    screen = make_screen(DisplayArguments(theme=arguments.theme))
    measured = measure(engine, engine.request(prompt), entrants, screen, tell)
    picture = RacePicture(measured, engine.model.tokenizer)
    if screen.console.is_terminal:
        went_on = show(picture, screen, tell)
    else:
        say(*picture.results.table(screen.symbols))
        for text, names in picture.results.texts().items():
            say("", f"{', '.join(names)}:")
            say_whole(text)
        tell(MEASURED)
        went_on = measured.is_complete
    if measured.is_complete and arguments.cast is not None:
        write_out(arguments.cast, recording(picture))
        tell(f"the recording is in {arguments.cast}; asciinema play {arguments.cast} shows it")
    if measured.is_complete and arguments.svg is not None:
        write_out(arguments.svg, animated(picture, prompt))
        tell(f"the moving picture is in {arguments.svg}")
    return went_on


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("race")(grouped(race))
