"""Methods, one file each. A method's name is its file's name; files are listed, not imported, so
that help texts need no torch."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nfox.errors import ModelError, UsageError

if TYPE_CHECKING:
    from nfox.drafters.common.method import Drafter, Options, Parts, Places
    from nfox.models.loading import LoadedModel


def names() -> list[str]:
    """Return the names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def method(name: str) -> type[Drafter]:
    """Return the drafter class of a method.

    Raises:
        UsageError: if there is no such method.
    """
    if name not in names():
        raise UsageError(f"unknown method {name!r}", f"available: {', '.join(names())}")
    found: type[Drafter] = import_module(f"{__name__}.{name}").METHOD
    return found


def plain() -> str:
    """Return the name of the method that drafts nothing."""
    return next(name for name in names() if not method(name).drafts)


def ready(model: str, places: Places) -> list[str]:
    """Return the methods whose needs are met for a model.

    Args:
        model: folder or hub id.
        places: where weights were said to be.
    """
    found = {name: method(name) for name in names()}
    return [name for name, made in found.items() if not made.needs or made.find(model, places)]


def options_for(name: str, values: dict[str, str]) -> Options:
    """Make the options of a method from texts, as given by `-o name=value`.

    Raises:
        UsageError: for an option the method does not have, or a value that does not fit it.
    """
    from pydantic import TypeAdapter, ValidationError

    made = method(name).options
    known: dict[str, Any] = made.__dataclass_fields__
    for key in values:
        if key not in known:
            hint = f"it has: {', '.join(known)}" if known else "it has no options"
            raise UsageError(f"method {name} has no option {key!r}", hint)
    try:
        return TypeAdapter(made).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"-o {first['loc'][0]}={first['input']}: {first['msg']}") from None


def best(model: LoadedModel, places: Places) -> tuple[str, str]:
    """Return the best method whose needs are met for a model, and why it is this one.

    Args:
        model: the target.
        places: where weights were said to be.
    """
    if model.target.proposals == "nothing":
        return plain(), "this model's state cannot be rolled back, so nothing can be drafted"
    chosen = max(ready(model.name, places), key=lambda name: method(name).rank)
    weights = method(chosen).find(model.name, places)
    if weights:
        return chosen, f"its weights are in {weights}"
    return chosen, "no draft model and no heads were found for this model"


def build(name: str, options: dict[str, str], parts: Parts, places: Places) -> Drafter:
    """Make the drafter of a method for a target.

    Args:
        name: of the method.
        options: of the method, as texts.
        parts: the target and what was measured; its weights are found here.
        places: where weights were said to be.

    Raises:
        NfoxError: if the method is unknown, does not fit the target, or lacks what it needs.
    """
    found, model = method(name), parts.model
    made = options_for(name, options)
    if found.drafts and model.target.proposals == "nothing":
        raise ModelError(
            f"{model.name} keeps a recurrent state that cannot be rolled back, so method {name} "
            "cannot be used with it",
            "leave --method out",
        )
    weights = found.find(model.name, places) or found.fetch(model.name)
    if found.needs and weights is None:
        raise ModelError(f"method {name} needs {found.needs}", found.advice(model.name))
    return found.build(replace(parts, weights=weights), made)
