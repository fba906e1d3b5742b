"""Commands about what the model thinks before it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from nfox.errors import UsageError
from nfox.text.thinking import Think

from ...display.header import thinking
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp

_THINK = get_args(Think)
_FOLD = ("on", "off")


@command("/think", usage="[on|off|auto]", completions=lambda app: _THINK)
def think(app: ChatApp, argument: str) -> None:
    """Show or change whether the model thinks first."""
    engine = app.engine
    if argument not in ("", *_THINK):
        raise UsageError(f"/think {argument}: expected {', '.join(_THINK)}")
    if argument and engine.template.switch is None:
        raise UsageError(thinking(engine), "/fold on hides what a model thinks")
    if argument:
        engine.use_settings(engine.settings.changed(think=argument))
    app.say(f"{'' if engine.template.switch is None else 'thinking is '}{thinking(engine)}")


@command("/fold", usage="[on|off]", completions=lambda app: _FOLD)
def fold(app: ChatApp, argument: str) -> None:
    """Show or change whether thinking (<think>) is hidden."""
    if argument not in ("", *_FOLD):
        raise UsageError(f"/fold {argument}: expected on or off")
    if argument:
        app.fold = argument == "on"
    state = "hidden; /fold off shows it" if app.fold else "shown; /fold on hides it"
    app.say(f"thinking is {state}")
