"""The command that changes the model during a chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.decoding import clock
from nfox.demo import NAME
from nfox.files.hub import short_name
from nfox.known_models import KNOWN, kept_at

from ...display.header import model_name, print_header, thinking_hint
from ...display.progress import loading_display
from ...options.completion import model_names
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp

_NAME_CELLS = 13  # of a model in the list


@command(
    "/model",
    usage="[NAME]",
    completions=lambda app: model_names(),
    paths=(".gguf",),
)
def use_model(app: ChatApp, argument: str) -> None:
    """Show or change the model; the conversation stays."""
    if not argument:
        app.say(f"in use: {model_name(app.engine)}")
        for name, known in KNOWN.items():
            where = "" if kept_at(name) else f"; not here yet: `nfox get {name}`"
            text = f"{known.repository}, {known.parameters}{where}"
            app.say(f"  {name.ljust(10)} {text}", _NAME_CELLS)
        app.say(f"  {NAME.ljust(10)} the model that comes with nfox", _NAME_CELLS)
        app.say("or a folder, a GGUF file, a hub id")
        return
    from nfox.loader import load_another

    begin = clock.now()
    app.say(f"loading {short_name(argument)} {app.screen.symbols.ellipsis}")
    former = app.engine
    try:
        with loading_display(app.screen.live) as progress:
            engine = load_another(former, argument, progress)
    except KeyboardInterrupt:
        app.say(f"stopped; {model_name(former)} answers, as before")
        return
    app.conversation.go_on_with(engine)
    former.close()
    print_header(engine, app.screen, clock.now() - begin, verbose=False)
    if hint := thinking_hint(engine):
        app.say(hint)
