"""`nfox bench forwards`: what a forward over N tokens takes, and the memory's floor."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nfox.counting import counted
from nfox.errors import UsageError

from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..output_files import check_out, write_out
from ..printing import say, tell
from .report import check_report, write_plots

if TYPE_CHECKING:
    from nfox.eval.bench.forwards import ForwardsResult

_FORWARDS = "Forwards"


@dataclass(frozen=True)
class ForwardsArguments:
    """Which forwards are timed, and where the times go."""

    widths: Annotated[str, option(_FORWARDS, "Tokens that are scored at once.", "--widths")] = (
        "1,2,4,8,16,32,64"
    )
    contexts: Annotated[str, option(_FORWARDS, "Tokens that were read before.", "--contexts")] = (
        "128,512,1024,2048,4096,8000"
    )
    rounds: Annotated[int, option(_FORWARDS, "Times of each, in turn.", "--rounds", min=1)] = 7
    out: Annotated[Path | None, option(_FORWARDS, "All times, as JSON.", "--json", envvar=None)] = (
        None
    )
    plots: Annotated[
        Path | None, option(_FORWARDS, "Folder for the plot, PNG and SVG.", "--plots", envvar=None)
    ] = None


def forwards(arguments: ForwardsArguments, model: ModelArguments) -> None:
    """Time forwards over N tokens, by N and by the context, beside what reading the weights takes.

    Contexts that the model has no room for are left out.
    """
    widths = _counts("--widths", arguments.widths)
    contexts = _counts("--contexts", arguments.contexts)
    engine_arguments = EngineArguments.without_drafter(usual_model(model))
    engine_arguments.check()
    check_out(arguments.out)
    check_report(None, arguments.plots)
    with closing(engine_arguments.load()) as engine:
        from nfox.eval.bench.forwards import measure

        from ..display.header import model_name
        from ..facts import command_line

        fitting = [one for one in contexts if one + max(widths) <= engine.max_context]
        if not fitting:
            raise UsageError(
                f"--contexts {arguments.contexts}: with {max(widths)} tokens more, none fits into "
                f"a context of {engine.max_context}",
                "name shorter ones",
            )
        for left_out in contexts[len(fitting) :]:
            tell(f"nfox: the context of {engine.max_context} tokens has no room for {left_out}")
        name, rounds = model_name(engine), arguments.rounds
        result = measure(engine, name, command_line(), fitting, widths, rounds, _on_context)
    if arguments.out is not None:
        write_out(arguments.out, result.json_text())
    _print(result)
    if arguments.plots is not None:
        from nfox.eval.report.forward_plots import forward_plots

        write_plots(forward_plots(result), arguments.plots)


def _on_context(context: int) -> None:
    if sys.stderr.isatty():
        tell(f"after {context} tokens", end="\r")


def _counts(name: str, text: str) -> list[int]:
    """Return numbers of tokens that an option lists, the least first.

    Raises:
        UsageError: if it lists something else, or nothing.
    """
    from nfox.eval.bench.entrants import token_count

    counts = {token_count(name, part.strip()) for part in text.split(",") if part.strip()}
    if not counts:
        raise UsageError(f"{name} lists no numbers of tokens", f"for example {name} 1,8,64")
    return sorted(counts)


def _print(result: ForwardsResult) -> None:
    """Print the milliseconds of all forwards, and the floor."""
    from .table import console, table

    grid = table("context, t(N) in ms", *map(str, result.widths))
    for context in result.contexts:
        times = [1e3 * result.fastest(context, width) for width in result.widths]
        grid.add_row(str(context), *(f"{time:.2f}" for time in times))
    console().print(grid)
    speed, size = result.bytes_per_second / 1e9, result.weight_bytes / 1e6
    threads = counted(result.machine.threads or 0, "thread")
    say(
        "",
        f"{result.target}, {result.machine.dtype}, {threads}, {result.forward}",
        f"floor {1e3 * result.floor:.2f} ms: {size:.0f} MB of weights, memory read at {speed:.1f} "
        "GB/s",
    )
