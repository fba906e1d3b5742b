"""The command that changes the model during a chat."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from typer._click.globals import get_current_context

from nfox.decoding import clock
from nfox.demo import NAME
from nfox.errors import UsageError
from nfox.files.model_names import short_name
from nfox.known_models import KNOWN, kept_at

from ...display.header import model_name, print_header, thinking_hint
from ...display.progress import loading_display
from ...options.completion import model_names
from .registry import command

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.reply import Settings

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
    try:
        engine.use_settings(_settings(engine, former))
    except UsageError:
        engine.close()
        raise
    app.conversation.go_on_with(engine)
    former.close()
    print_header(engine, app.screen, clock.now() - begin, verbose=False)
    if hint := thinking_hint(engine):
        app.say(hint)


def _settings(engine: Engine, former: Engine) -> Settings:
    """Return the settings of another model's engine: under `--sampling model` those that its
    generation_config.json says, but for what was typed, or set in the chat.

    Raises:
        UsageError: if the file asks for what nfox does not apply.
    """
    context = get_current_context(silent=True)
    if context is None or context.params.get("sampling") != "model":
        return engine.settings
    from nfox.models.generation_config import sampling_of
    from nfox.reply import SAMPLING_FIELDS

    configs = (one.model.target.model.generation_config for one in (former, engine))
    before, now = map(sampling_of, configs)
    in_force = engine.settings.sampling
    typed = {name for name in SAMPLING_FIELDS if context.params.get(name) is not None}
    changed = {n for n in SAMPLING_FIELDS if getattr(in_force, n) != getattr(before, n)}
    kept = {name: getattr(in_force, name) for name in typed | changed}
    return replace(engine.settings, sampling=replace(now, **kept))
