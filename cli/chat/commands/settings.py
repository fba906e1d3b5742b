"""Commands that change how replies are made, in mid-conversation."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from nfox.drafters import method, names
from nfox.errors import UsageError
from nfox.models import adapters
from nfox.text.resolve import available, resolve

from ...display.header import adapter_hint, exactness, method_line, model_name, print_legend
from .registry import command

if TYPE_CHECKING:
    from nfox.reply import Settings

    from ..app import ChatApp

_BEST = "auto"
_NO = "none"  # adapter
_OWN = ("sampling", "keep_logits")  # fields of Settings that are not set by name


def _settings(settings: Settings) -> dict[str, Any]:
    """Return everything that /set knows, with its value."""
    sampling = {f.name: getattr(settings.sampling, f.name) for f in fields(settings.sampling)}
    rest = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _OWN}
    return sampling | rest


@command(
    "/set",
    usage="[NAME=VALUE]",
    words=lambda app: (f"{name}=" for name in _settings(app.engine.settings)),
)
def change(app: ChatApp, rest: str) -> None:
    """Show or change settings: temperature, stop, ..."""
    if rest:
        app.engine.settings = changed(app.engine.settings, rest)
    shown = _settings(app.engine.settings).items()
    app.say("  ".join(f"{name}={_written(value)}" for name, value in shown))
    if rest:
        app.say(exactness(app.engine))


def changed(settings: Settings, text: str) -> Settings:
    """Return the settings after NAME=VALUE pairs.

    Raises:
        UsageError: for an unknown name or a value that does not fit.
    """
    known, values = _settings(settings), {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"/set {text}: {error}", "put quotes around values with spaces") from None
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        if name not in known:
            raise UsageError(f"there is no setting {name!r}", f"it is one of {', '.join(known)}")
        if not equals:
            raise UsageError(f"{name} to what?", f"for example /set {name}={_written(known[name])}")
        values[name] = _parsed(name, value, known[name])
    of_sampling = {f.name for f in fields(settings.sampling)} & values.keys()
    sampling = replace(settings.sampling, **{name: values.pop(name) for name in of_sampling})
    return replace(settings, sampling=sampling, **values)


def _parsed(name: str, text: str, old: Any) -> Any:
    if isinstance(old, tuple):
        return (text.replace("\\n", "\n"),) if text else ()
    try:
        return type(old)(text)
    except ValueError:
        raise UsageError(
            f"{name}={text}: expected {'a whole number' if isinstance(old, int) else 'a number'}"
        ) from None


def _written(value: Any) -> str:
    return (
        shlex.quote("".join(value).replace("\n", "\\n")) if isinstance(value, tuple) else str(value)
    )


@command("/method", usage="[NAME [OPTION=VALUE]]", words=lambda app: (*names(), _BEST))
def use_method(app: ChatApp, rest: str) -> None:
    """Show or change the method."""
    engine = app.engine
    if rest:
        name, *words = rest.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        if len(options) < len(words):
            raise UsageError(f"options of a method are NAME=VALUE, not {' '.join(words)!r}")
        engine.use(None if name == _BEST else name, options)
        for line in filter(None, (method_line(engine), adapter_hint(engine))):
            app.say(line)
        return
    for name in names():
        mark = "*" if name == engine.method else " "
        app.say(f"{mark} {name.ljust(10)} {method(name).summary}")
    app.say(f"in use: {engine.method}, {engine.why}")


def _adapters(app: ChatApp) -> list[str]:
    """Return what can be chosen, and what is in use."""
    model = app.engine.model
    there = adapters.available(model.name)
    other = [] if model.adapter in (None, *there) else [model.adapter]
    return [_NO, *there, *filter(None, other)]


@command("/adapter", usage="[NAME]", words=_adapters)
def use_adapter(app: ChatApp, rest: str) -> None:
    """Show or change the adapter of the model, which then reads the conversation anew."""
    engine = app.engine
    if rest:
        if rest != _NO:
            adapters.place(engine.model.name, rest)  # before anything is said to be loaded
        app.say(f"loading {model_name(engine)} again {app.screen.symbols.ellipsis}")
        engine.adapt(None if rest == _NO else rest)
        app.say(method_line(engine))
    used = engine.model.adapter or _NO
    app.say("  ".join(f"{'*' if name == used else ' '} {name}" for name in _adapters(app)))


@command("/template", usage="[NAME]", words=lambda app: available())
def use_template(app: ChatApp, rest: str) -> None:
    """Show or change the conversation template."""
    engine = app.engine
    if rest:
        model = engine.model
        engine.set_template(
            resolve(model.tokenizer, rest, model_name=model.name, system=engine.system)
        )
    app.say(f"template {engine.template.name}, from {engine.template.origin}")


def _fold_words(app: ChatApp) -> Iterable[str]:
    return ("on", "off")


@command("/fold", usage="[on|off]", words=_fold_words)
def fold(app: ChatApp, rest: str) -> None:
    """Hide or show reasoning (<think>) in replies to come."""
    if rest not in ("", "on", "off"):
        raise UsageError(f"/fold {rest}: expected on or off")
    app.fold = rest == "on" if rest else not app.fold
    app.say("reasoning is folded" if app.fold else "reasoning is shown")


@command("/legend")
def legend(app: ChatApp, rest: str) -> None:
    """Show how to read the marks."""
    print_legend(app.engine, app.screen)
