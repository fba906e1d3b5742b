"""Drafting methods, one file each. The name of a method is that of its file; files are listed, not
imported, so that help texts need no torch. What methods share is in the package `common`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from nfox.errors import ModelError, UsageError, did_you_mean

if TYPE_CHECKING:
    from nfox.drafters.common.method import DrafterInputs, Method, Options, WeightSources
    from nfox.models.options import LoadedModel


def method_names() -> list[str]:
    """Return the names of all methods: those of the modules in this folder, but not of packages."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def check_method_name(name: str) -> None:
    """Refuse a name that no method has.

    Raises:
        UsageError: if there is no such method.
    """
    names = method_names()
    if name not in names:
        raise UsageError(f"unknown method {name!r}", f"available: {', '.join(names)}")


def method_class(name: str) -> type[Method]:
    """Return the drafter class of a method.

    Raises:
        UsageError: if there is no such method.
    """
    check_method_name(name)
    drafter_class: type[Method] = import_module(f"{__name__}.{name}").METHOD
    return drafter_class


def methods_with_heads() -> list[str]:
    """Return the names of the methods that draft with heads."""
    from nfox.drafters.common.heads import HeadsDrafter

    return [name for name in method_names() if issubclass(method_class(name), HeadsDrafter)]


def plain_method() -> str:
    """Return the name of the method that drafts nothing."""
    return next(name for name in method_names() if not method_class(name).drafts)


def ready_methods(model: str, sources: WeightSources) -> list[str]:
    """Return the names of the methods whose needs are met for a model.

    Args:
        model: the target's folder or hub id.
        sources: where the person said that weights are.
    """
    classes = {name: method_class(name) for name in method_names()}
    return [
        name
        for name, drafter_class in classes.items()
        if not drafter_class.needs or drafter_class.locate(model, sources)
    ]


def choosing_method() -> str:
    """Return the name of the method that drafts with the others."""
    return next(name for name in method_names() if method_class(name).chooses)


def drafting_methods(name: str, model: str, sources: WeightSources) -> list[str]:
    """Return the names of the methods that draft where one is used, the best first: itself, or
    those that it chooses from. Where weights were named, others that need some do not take part.

    Args:
        name: of the method.
        model: the target's folder or hub id.
        sources: where the person said that weights are.
    """
    if not method_class(name).chooses:
        return [name]
    classes = {name: method_class(name) for name in ready_methods(model, sources)}
    weights = {
        name: drafter_class.locate(model, sources) for name, drafter_class in classes.items()
    }
    names = [
        name
        for name, drafter_class in classes.items()
        if drafter_class.drafts and not drafter_class.chooses
        if not (sources.named and drafter_class.needs) or weights[name] in sources.named
    ]
    return sorted(names, key=lambda name: -classes[name].rank)


def parse_options(name: str, values: dict[str, str]) -> Options:
    """Return the options of a method from texts, as given by `-o name=value`.

    Args:
        name: of the method.
        values: the texts, by the names of the options.

    Raises:
        UsageError: for an option that the method does not have, or a value that does not fit it.
    """
    from pydantic import TypeAdapter, ValidationError

    options_class = method_class(name).options
    known = method_class(name).option_names()
    for key in values:
        if key not in known:
            hint = f"it has: {', '.join(known)}" if known else "it has no options"
            raise UsageError(f"method {name} has no option {key!r}", hint)
    try:
        return TypeAdapter(options_class).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"-o {first['loc'][0]}={first['input']}: {first['msg']}") from None


def choose_method(
    model: LoadedModel, sources: WeightSources, options: Iterable[str] = ()
) -> tuple[str, str]:
    """Return the name of the method for a model where none was asked for, and why it is this one:
    the one that chooses from the others, unless the person set options of some of them. Then
    weights that were named come before those that lie beside the model, and a method that has the
    options before one that has not.

    Args:
        model: the target.
        sources: where the person said that weights are.
        options: the names of the options that the person set.

    Raises:
        UsageError: if there is an option that no method has.
    """
    wanted = set(options)
    _check_known(wanted)
    if model.target.proposals == "nothing":
        reason = "this model's state cannot be rolled back, so nothing can be drafted"
        return plain_method(), reason
    automatic = choosing_method()
    if wanted <= {*method_class(automatic).option_names()}:
        return automatic, _choice(automatic, model.name, sources)
    ready = [name for name in ready_methods(model.name, sources) if name != automatic]
    weights = {name: method_class(name).locate(model.name, sources) for name in ready}
    named = [name for name in ready if weights[name] in sources.named]
    fitting = [name for name in named or ready if wanted <= {*method_class(name).option_names()}]
    best = max(fitting or named or ready, key=lambda name: method_class(name).rank)
    if not weights[best]:
        return best, _NOTHING_FOUND
    others = "".join(f"; {weights[name]}: --method {name}" for name in named if name != best)
    return best, f"its weights are in {weights[best]}{others}"


def _check_known(options: Iterable[str]) -> None:
    """Refuse options that no method has.

    Raises:
        UsageError: if there is one.
    """
    known = sorted({option for n in method_names() for option in method_class(n).option_names()})
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known, "`nfox methods` lists those that there are")
            raise UsageError(f"no method has the option {option!r}", hint)


_NOTHING_FOUND = "no draft model and no heads were found for this model"


def _choice(automatic: str, model: str, sources: WeightSources) -> str:
    """Return in words what the method that chooses has to choose from."""
    names = drafting_methods(automatic, model, sources)
    weights = {name: method_class(name).locate(model, sources) for name in names}
    among = ", ".join(f"{name} ({weights[name]})" if weights[name] else name for name in names)
    words = f"the fastest of {among} or plain decoding, as it goes"
    return words if any(weights.values()) else f"{words}; {_NOTHING_FOUND}"


def build_drafter(
    name: str, options: dict[str, str], inputs: DrafterInputs, sources: WeightSources
) -> Method:
    """Return the drafter of a method for a target.

    Args:
        name: of the method.
        options: of the method, as texts.
        inputs: the target and what was measured; the method's weights are found here.
        sources: where the person said that weights are.

    Raises:
        NfoxError: if the method is unknown, does not fit the target, or lacks what it needs.
    """
    drafter_class, model = method_class(name), inputs.model
    parsed_options = parse_options(name, options)
    if drafter_class.drafts and model.target.proposals == "nothing":
        raise ModelError(
            f"{model.name} keeps a recurrent state that cannot be rolled back, so method {name} "
            "cannot be used with it",
            "leave --method out",
        )
    weights = drafter_class.locate(model.name, sources)
    if drafter_class.needs and weights is None:
        missing = f"method {name} needs {drafter_class.needs}"
        if owner := _method_of_heads(model.name, sources):
            raise ModelError(f"{missing}; {sources.heads} is of {owner}", f"--method {owner}")
        weights = drafter_class.published(model.name)
        if weights is None:
            raise ModelError(missing, drafter_class.hint(model.name))
    names = drafting_methods(name, model.name, sources) if drafter_class.chooses else []
    others = {other: partial(build_drafter, other, {}, inputs, sources) for other in names}
    inputs = replace(inputs, weights=weights, others=others, strict=bool(sources.named))
    return drafter_class.build(inputs, parsed_options)


def _method_of_heads(model: str, sources: WeightSources) -> str | None:
    """Return the method of the heads that the person named; None where none were."""
    if sources.heads is None:
        return None
    located = {method_class(name).locate(model, sources): name for name in method_names()}
    return located.get(sources.heads)
