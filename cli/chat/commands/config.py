"""The command that shows the options in force, and where each was set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer._click.globals import get_current_context

from nfox.engine import ASKED_FOR
from nfox.errors import UsageError
from nfox.reply import Settings

from ...config.file import CONFIG, ConfigFile, short
from ...config.shown import DEFAULT, as_toml, key_of, shown
from ...layout import column_of, definitions
from .registry import command
from .settings import values_of

if TYPE_CHECKING:
    from ..app import ChatApp

_ALL = "all"
_CHANGED = "changed in the chat"


def _in_force(app: ChatApp) -> dict[str, Any]:
    """Return the values that commands of the chat can change, by the names of their options."""
    engine = app.engine
    values = values_of(engine.settings) | {"fold_thinking": app.fold}
    values["think"] = engine.settings.think
    if engine.why == ASKED_FOR:
        values["method"] = engine.method
    return values


@command("/config", usage=f"[{_ALL}]", completions=lambda app: (_ALL,))
def show_config(app: ChatApp, argument: str) -> None:
    """Show the options that were set, or all, and where."""
    if argument not in ("", _ALL):
        raise UsageError(f"/config {argument}: expected nothing, or {_ALL}")
    context: Any = get_current_context(silent=True)
    if context is None:
        raise UsageError("this chat was not started by a command line")
    file: ConfigFile = context.meta[CONFIG]
    values, usual = _in_force(app), Settings()
    defaults = values_of(usual) | {"think": usual.think}
    rows = []
    for parameter, text, place in shown(context):
        given = context.params[parameter.name]
        before = as_toml(defaults.get(parameter.name) if given is None else given)
        now = as_toml(values.get(parameter.name, given))
        place = place if now in (text, before) else _CHANGED
        rows.append((f"{key_of(parameter)} = {now}", place))
    others = sum(place == DEFAULT for _, place in rows)
    chosen = [row for row in rows if argument or row[1] != DEFAULT]
    column = column_of((text for text, _ in chosen), app.notes.width // 2)
    for line in definitions(chosen, app.notes.width, column, indent=0):
        app.say(line)
    if not argument:
        which = f"{others} others" if chosen else f"all {others} options"
        app.say(f"{which} have their defaults, /config {_ALL} lists them")
        app.say(f"the file of options is {short(file.path)}")
