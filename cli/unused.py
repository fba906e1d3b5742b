"""Options that change nothing in a command are said, each with the reason: what a person typed is
never dropped in silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nfox.drafters import drafting_methods, method_class

from .display.gain import guesses_nothing
from .printing import tell

if TYPE_CHECKING:
    import typer

    from nfox.drafters.common.method import Method
    from nfox.engine import Engine


def reasons(unused: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each reason why options are not used, with their names.

    Args:
        unused: the reasons by name of the option, with its dashes or without.
    """
    for reason in dict.fromkeys(unused.values()):
        names = ", ".join(_dashed(name) for name in unused if unused[name] == reason)
        yield f"not used: {names} ({reason})"


def is_first_process() -> bool:
    """Return whether this is the first of several processes, or the only one: it speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def report(unused: Mapping[str, str]) -> None:
    """Print these lines on stderr, of several processes in the first."""
    if not is_first_process():
        return
    tell(*(f"nfox: {line}" for line in reasons(unused)))


def report_idle_method(drafter: Method) -> None:
    """Print on stderr, of several processes in the first, why a method guesses nothing as it
    stands, and what to do; nothing where it guesses.
    """
    if is_first_process() and (line := guesses_nothing(drafter)):
        tell(f"nfox: {line}")


def report_typed(context: typer.Context, unused: Mapping[str, str]) -> None:
    """Print these lines for options that stand on the command line; the environment may say what
    is of other commands.

    Args:
        context: of the command.
        unused: the reasons by the options' names in Python.
    """
    report({name: unused[key] for key, name in _typed(context).items() if key in unused})


def _typed(context: typer.Context) -> dict[str, str]:
    """Return the options on the command line: their names as they are typed, by those in Python."""
    return {
        str(parameter.name): parameter.opts[0]
        for parameter in context.command.params
        if (source := context.get_parameter_source(str(parameter.name))) is not None
        and source.name == "COMMANDLINE"
    }


DRAFTING = (
    *("heads", "draft_model"),
    *("draft_load_in_4bit", "draft_load_in_8bit", "draft_quantize"),
)
"""The options, by their names in Python, of what a method drafts with."""


def for_one_reply(engine: Engine) -> dict[str, str]:
    """Return the options that change no reply of an engine as it is, with the reasons."""
    return of_drafting(engine, [engine.method]) | of_sampling(engine)


def of_sampling(engine: Engine) -> dict[str, str]:
    """Return the options of sampling and of acceptance that change nothing, with the reason."""
    if engine.settings.sampling.temperature:
        return {}
    names = ("top_p", "top_k", "min_p", "seed", "accept", "lenience", "epsilon", "delta")
    return dict.fromkeys(names, "at temperature 0 the likeliest token is taken; --temperature")


def without_drafter(engine: Engine) -> dict[str, str]:
    """Return the options that change nothing where nothing is drafted, with the reasons."""
    return of_loading(engine) | dict.fromkeys(DRAFTING, "nothing is drafted here")


def of_loading(engine: Engine) -> dict[str, str]:
    """Return the options that changed nothing when an engine was loaded, with the reasons."""
    unused, target = dict[str, str](), engine.model.target
    if Path(engine.model.name).expanduser().is_dir():
        unused["revision"] = f"{engine.model.name} is a folder"
    if engine.max_context == target.max_context:
        unused["max_context"] = f"the model has no more than {target.max_context} positions"
    if engine.template.switch is None:
        unused["think"] = f"{engine.template.in_words} has no switch for thinking"
    if target.is_encoder_decoder:
        question = "an encoder reads the question alone"
        unused |= dict.fromkeys(("system", "conv_template", "cllm_type"), question)
    return unused


def of_drafting(engine: Engine, methods: Sequence[str]) -> dict[str, str]:
    """Return the options of what is drafted with that some methods do without, with the reason."""
    from nfox.export.formats import DraftModel

    model, sources = engine.model.name, engine.sources
    drafting = [name for method in methods for name in drafting_methods(method, model, sources)]
    classes = [method_class(name) for name in drafting]
    weights = {method.locate(model, sources) for method in classes}
    named = {"heads": sources.heads, "draft_model": sources.draft_model}
    found = " and ".join(sorted(filter(None, weights)))
    reason = f"the method is {', '.join(methods)}{f', with {found}' if found else ''}"
    unused = {name: reason for name, location in named.items() if location not in weights}
    if all(method.exchange_type is not DraftModel for method in classes):
        unused |= dict.fromkeys(DRAFTING[2:], reason)
    return unused


def _dashed(name: str) -> str:
    return name if name.startswith("-") else f"--{name}"
