"""Commands that change the settings, the method, the adapter or the template during a chat."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from nfox.drafters import method_class, method_names
from nfox.errors import UsageError, did_you_mean
from nfox.models import adapters
from nfox.text.resolve import available, resolve
from nfox.text.tokenizer_templates import own_names

from ...display.header import (
    adapter_hint,
    exactness,
    method_line,
    model_name,
    print_legend,
    thinking_hint,
)
from ...paths import NO_FILES
from .registry import command

if TYPE_CHECKING:
    from nfox.reply import Settings

    from ..app import ChatApp

_BEST = "auto"
_NO_ADAPTER = "none"
_LIST = "list"
_NAME_CELLS = 13  # of a method in its list
_ESCAPED = {r"\\": "\\", r"\n": "\n", r"\r": "\r", r"\t": "\t"}  # as typed; in this order
_ESCAPE = re.compile(r"\\[\\nrt]")
_NOT_BY_NAME = ("sampling", "keep_logits", "think")  # fields of Settings that /set does not know


def values_of(settings: Settings) -> dict[str, Any]:
    """Return the value of everything that /set knows."""
    sampling = {f.name: getattr(settings.sampling, f.name) for f in fields(settings.sampling)}
    others = [field.name for field in fields(settings) if field.name not in _NOT_BY_NAME]
    return sampling | {name: getattr(settings, name) for name in others}


@command(
    "/set",
    usage="[NAME[=VALUE]]",
    completions=lambda app: (f"{name}=" for name in values_of(app.engine.settings)),
)
def change(app: ChatApp, argument: str) -> None:
    """Show or change settings: temperature, stop, ..."""
    values = values_of(app.engine.settings)
    if (name := argument.replace("-", "_")) in values:
        app.say("  ".join(_as_typed(name, values[name])))
        return
    if argument:
        app.engine.use_settings(changed(app.engine.settings, argument))
        values = values_of(app.engine.settings)
    app.say("  ".join(typed for name, value in values.items() for typed in _as_typed(name, value)))
    if argument:
        app.say(f"with these: {exactness(app.engine)}")


def changed(settings: Settings, text: str) -> Settings:
    """Return the settings with the changes of NAME=VALUE pairs, which are quoted as in a shell.
    What may have several values is named once for each.

    Raises:
        UsageError: for an unknown name or a value that does not fit.
    """
    known = values_of(settings)
    values: dict[str, Any] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"/set {text}: {error}", "put quotes around values with spaces") from None
    if len(words) == 2 and "=" not in text:  # as it is typed elsewhere
        words = ["=".join(words)]
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if name not in known:
            hint = f"it is one of {', '.join(known)}"
            raise UsageError(f"there is no setting {name!r}", did_you_mean(name, known, hint))
        if not equals:
            raise UsageError(
                f"{name} to what?", f"for example /set {' '.join(_as_typed(name, known[name]))}"
            )
        parsed = _parse(name, value, known[name])
        values[name] = (*values.get(name, ()), *parsed) if isinstance(parsed, tuple) else parsed
    return settings.changed(**values)


def _parse(name: str, text: str, old: Any) -> Any:
    """Return the value that a text means, of the type that the setting has now."""
    if isinstance(old, tuple):
        return (_ESCAPE.sub(lambda found: _ESCAPED[found[0]], text),) if text else ()
    try:
        return type(old)(text)
    except ValueError:
        raise UsageError(
            f"{name}={text}: expected {'a whole number' if isinstance(old, int) else 'a number'}"
        ) from None


def format_value(value: Any) -> str:
    """Return the value of a setting as it can be typed; if it has several, one after the other."""
    return " ".join(_each_as_typed(value))


def _as_typed(name: str, value: Any) -> list[str]:
    """Return the words that set a setting to its value."""
    return [f"{name}={text}" for text in _each_as_typed(value)]


def _each_as_typed(value: Any) -> list[str]:
    if not isinstance(value, tuple):
        return [str(value)]
    return [_quoted(text) for text in value or ("",)]


def _quoted(text: str) -> str:
    """Return a text in one line, with the quotes that it needs."""
    for escape, meant in _ESCAPED.items():
        text = text.replace(meant, escape)
    return shlex.quote(text)


@command("/method", usage="[NAME [OPTION=VALUE]]", completions=lambda app: method_names())
def use_method(app: ChatApp, argument: str) -> None:
    """Show or change the method."""
    engine = app.engine
    if argument:
        name, *words = argument.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        if len(options) < len(words):
            raise UsageError(f"options of a method are NAME=VALUE, not {' '.join(words)!r}")
        engine.use(None if name == _BEST else name, options)
        for line in filter(None, (method_line(engine), adapter_hint(engine))):
            app.say(line)
        app.gain.of_method(engine)
        return
    for name in method_names():
        mark = "*" if name == engine.method else " "
        app.say(f"{mark} {name.ljust(10)} {method_class(name).summary}", _NAME_CELLS)
    app.say(f"in use: {method_line(engine)}")


def _adapters(app: ChatApp) -> list[str]:
    """Return the adapters that are there for the model, and the one in use, wherever it lies."""
    model = app.engine.model
    choices = [_NO_ADAPTER, *adapters.available(model.name)]
    if model.adapter is not None and model.adapter not in choices:
        choices.append(model.adapter)
    return choices


@command("/adapter", usage="[NAME]", completions=_adapters, paths=NO_FILES)
def use_adapter(app: ChatApp, argument: str) -> None:
    """Show or change the adapter of the model."""
    engine = app.engine
    if argument:
        if argument != _NO_ADAPTER:
            adapters.location(engine.model.name, argument)  # before anything is said to be loaded
        app.say(f"loading {model_name(engine)} again {app.screen.symbols.ellipsis}")
        engine.adapt(None if argument == _NO_ADAPTER else argument)
        app.say(method_line(engine))
    in_use = engine.model.adapter or _NO_ADAPTER
    app.say("  ".join(f"{'*' if name == in_use else ' '} {name}" for name in _adapters(app)))


def _templates(app: ChatApp) -> list[str]:
    """Return the names of all templates, those of the model's tokenizer first."""
    return [*own_names(app.engine.model.tokenizer), *available()]


@command(
    "/template",
    usage="[NAME|list]",
    completions=lambda app: (_LIST, *_templates(app)),
    paths=(".json",),
)
def use_template(app: ChatApp, argument: str) -> None:
    """Show or change the conversation template."""
    engine = app.engine
    if argument == _LIST:
        app.say("  ".join(_templates(app)))
        return
    if argument:
        model = engine.model
        engine.use_template(
            resolve(model.tokenizer, argument, model_name=model.name, system=engine.system)
        )
    template = engine.template
    origin = "" if template.origin == "tokenizer" else f", from {template.origin}"
    app.say(f"in use: {template.in_words}{origin}")
    if argument and (hint := thinking_hint(engine)):
        app.say(hint)


@command("/legend")
def legend(app: ChatApp, argument: str) -> None:
    """Show how to read the marks."""
    print_legend(app.engine, app.screen)
