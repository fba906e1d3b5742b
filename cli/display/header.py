"""What is said once, when the chat starts: what was loaded, how, and how to read the marks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from nfox.drafters import method
from nfox.models.adapters import available
from nfox.version import __version__

from .theme import Screen

if TYPE_CHECKING:
    from nfox.decoding.tree import Source
    from nfox.engine import Engine

_DIM = Style(dim=True)


def model_name(engine: Engine) -> str:
    """Return the model's name without the folders around it."""
    from nfox.demo import TARGET

    name = engine.model.name
    if Path(name) == TARGET:
        return "the embedded model"
    return Path(name).name if Path(name).is_dir() else name


def exactness(engine: Engine) -> str:
    """Say whether replies follow the target's own distribution."""
    from nfox.decoding.rules import make_rule

    settings = engine.settings
    rule = make_rule(settings.accept, settings.sampling, lenience=settings.lenience)
    return "lossless" if rule.lossless else f"{settings.accept}: not lossless"


def print_header(engine: Engine, screen: Screen, loaded: float, *, verbose: bool) -> None:
    """Print two or three lines about what was loaded.

    Args:
        engine: the model and the method.
        screen: where.
        loaded: seconds it took.
        verbose: add what forwards cost.
    """
    target, dot = engine.model.target, screen.symbols.dot
    size, adapter = target.model.num_parameters(), engine.model.adapter
    parts = (
        f"nfox {__version__}",
        engine.method,
        exactness(engine),
        f"{model_name(engine)}{f' with {adapter}' if adapter else ''}, {_count(size)} parameters",
        f"{str(target.dtype).removeprefix('torch.')} {', '.join(target.devices)}",
        f"takes {target.proposals}",
        f"template {engine.template.name}",
        f"loaded in {loaded:.1f} s",
    )
    line = Text(dot.join(parts))
    line.stylize("bold", 0, len(parts[0]))
    screen.console.print(line)
    screen.console.print(Text(method_line(engine), _DIM))
    if said := hint(engine):
        screen.console.print(Text(said, _DIM))
    if engine.costs is not None:
        if target.proposals != "nothing" and not engine.costs.pays:
            said = "scoring more than one token takes too long here for drafting to pay"
            screen.console.print(Text(said, _DIM))
        if verbose:
            screen.console.print(Text(str(engine.costs), _DIM))


def print_legend(engine: Engine, screen: Screen) -> None:
    """Print how to read the marks, in the marks."""
    rule = "" if exactness(engine) == "lossless" else f" ({engine.settings.accept})"
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
    """Say why this method, and what it drafts with, without the model's whole path."""
    said = f"{engine.method}: {engine.why}"
    if described := engine.drafter.describe():
        said += f"; {described}"
    return said.replace(f"{engine.model.name}/", "").replace(engine.model.name, model_name(engine))


def hint(engine: Engine) -> str:
    """Say that an adapter would make the method faster; "" where nothing is to be said."""
    made_for = method(engine.method).adapter
    if engine.model.adapter or made_for not in available(engine.model.name):
        return ""
    return f"for {engine.method} there is an adapter of this model: --adapter {made_for} (/adapter)"


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number / 1e3:.0f}K"
