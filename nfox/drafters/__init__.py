"""Methods, one file each. A method's name is its file's name; files are listed, not imported, so
that help texts need no torch."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nfox.errors import ModelError, UsageError

if TYPE_CHECKING:
    from nfox.drafters.common.method import DrafterInputs, Method, Options, WeightSources
    from nfox.models.options import LoadedModel


def names() -> list[str]:
    """Return the names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def method(name: str) -> type[Method]:
    """Return the drafter class of a method.

    Raises:
        UsageError: if there is no such method.
    """
    if name not in names():
        raise UsageError(f"unknown method {name!r}", f"available: {', '.join(names())}")
    drafter_class: type[Method] = import_module(f"{__name__}.{name}").METHOD
    return drafter_class


def plain() -> str:
    """Return the name of the method that drafts nothing."""
    return next(name for name in names() if not method(name).drafts)


def ready(model: str, sources: WeightSources) -> list[str]:
    """Return the methods whose needs are met for a model.

    Args:
        model: folder or hub id.
        sources: where the person said that weights are.
    """
    methods = {name: method(name) for name in names()}
    return [name for name, kind in methods.items() if not kind.needs or kind.locate(model, sources)]


def options_for(name: str, values: dict[str, str]) -> Options:
    """Make the options of a method from texts, as given by `-o name=value`.

    Raises:
        UsageError: for an option the method does not have, or a value that does not fit it.
    """
    from pydantic import TypeAdapter, ValidationError

    options_class = method(name).options
    known: dict[str, Any] = options_class.__dataclass_fields__
    for key in values:
        if key not in known:
            hint = f"it has: {', '.join(known)}" if known else "it has no options"
            raise UsageError(f"method {name} has no option {key!r}", hint)
    try:
        return TypeAdapter(options_class).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"-o {first['loc'][0]}={first['input']}: {first['msg']}") from None


def best(model: LoadedModel, sources: WeightSources) -> tuple[str, str]:
    """Return the best method whose needs are met for a model, and why it is this one.

    Args:
        model: the target.
        sources: where the person said that weights are.
    """
    if model.target.proposals == "nothing":
        return plain(), "this model's state cannot be rolled back, so nothing can be drafted"
    chosen = max(ready(model.name, sources), key=lambda name: method(name).rank)
    weights = method(chosen).locate(model.name, sources)
    if weights:
        return chosen, f"its weights are in {weights}"
    return chosen, "no draft model and no heads were found for this model"


def build(
    name: str, options: dict[str, str], inputs: DrafterInputs, sources: WeightSources
) -> Method:
    """Make the drafter of a method for a target.

    Args:
        name: of the method.
        options: of the method, as texts.
        inputs: the target and what was measured; its weights are found here.
        sources: where the person said that weights are.

    Raises:
        NfoxError: if the method is unknown, does not fit the target, or lacks what it needs.
    """
    kind, model = method(name), inputs.model
    chosen = options_for(name, options)
    if kind.drafts and model.target.proposals == "nothing":
        raise ModelError(
            f"{model.name} keeps a recurrent state that cannot be rolled back, so method {name} "
            "cannot be used with it",
            "leave --method out",
        )
    weights = kind.locate(model.name, sources) or kind.published(model.name)
    if kind.needs and weights is None:
        raise ModelError(f"method {name} needs {kind.needs}", kind.hint(model.name))
    return kind.build(replace(inputs, weights=weights), chosen)
