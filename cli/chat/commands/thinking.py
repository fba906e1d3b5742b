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
    if engine.template.switch is None:
        raise UsageError(thinking(engine), "/fold on hides what a model thinks")
    if argument:
        engine.use_settings(engine.settings.changed(think=argument))
    app.say(f"thinking is {thinking(engine)}")


@command("/fold", usage="[on|off]", completions=lambda app: _FOLD)
def fold(app: ChatApp, argument: str) -> None:
    """Hide reasoning (<think>) in replies to come, or not."""
    if argument not in ("", *_FOLD):
        raise UsageError(f"/fold {argument}: expected on or off")
    app.fold = argument == "on" if argument else not app.fold
    app.say("reasoning is folded" if app.fold else "reasoning is shown")
