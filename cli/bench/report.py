"""A benchmark to look at: its page and its plots, made from its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.errors import UsageError

from ..options.dataclass_options import option
from ..output_files import check_folder, check_out, make_folder, write_out
from ..printing import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nfox.eval.bench.result import BenchResult

_REPORT = "Report"
_SHOWN = "what was measured stands above"


@dataclass(frozen=True)
class ReportArguments:
    """What is shown, and where."""

    result: Annotated[Path, typer.Argument(metavar="RESULT", help="What nfox bench --json wrote.")]
    html: Annotated[
        Path | None, option(_REPORT, "Write a page of it to this file.", "--html", envvar=None)
    ] = None
    plots: Annotated[
        Path | None,
        option(_REPORT, "Write its plots to this folder, as SVG and PNG.", "--plots", envvar=None),
    ] = None


def report(arguments: ReportArguments) -> None:
    """Show what a benchmark found: as a page, as plots, or both."""
    from nfox.eval.bench.result import BenchResult, read

    if arguments.html is None and arguments.plots is None:
        raise UsageError(
            "there is nothing to write", "nfox bench report RESULT.json --html FILE --plots FOLDER"
        )
    check_report(arguments.html, arguments.plots)
    result = read(arguments.result, BenchResult)
    write_report(result, arguments.html, arguments.plots, f"{arguments.result} is whole")


def check_report(html: Path | None, plots: Path | None) -> None:
    """Check that a report can be written, before there is anything to report.

    Args:
        html: where the page goes, if anywhere.
        plots: the folder of the plots, if they are wanted; it may have to be made.

    Raises:
        UsageError: if it cannot be written there, or plots cannot be drawn.
    """
    check_out(html, "page")
    check_folder(plots, "plots")
    if plots is not None:
        from nfox.eval.report.plot_style import check

        check()


def write_report(
    result: BenchResult, html: Path | None, plots: Path | None, not_lost: str = _SHOWN
) -> None:
    """Write a page and plots, and print where they are.

    Args:
        result: of a benchmark.
        html: where the page goes, if anywhere.
        plots: the folder of the plots, if they are wanted.
        not_lost: what is not lost if that fails, for the error.

    Raises:
        NfoxError: if something cannot be written, as on a full disk.
    """
    if html is not None:
        from nfox.eval.report.page import page

        write_out(html, page(result), not_lost)
        say(f"page written to {html}")
    if plots is not None:
        from nfox.eval.report.plots import plots as draw

        write_plots(draw(result), plots, not_lost)


def write_plots(figures: Mapping[str, Figure], folder: Path, not_lost: str = _SHOWN) -> None:
    """Write plots as SVG and PNG, and print where they are.

    Args:
        figures: the plots, by name.
        folder: where they go.
        not_lost: what is not lost if that fails, for the error.

    Raises:
        NfoxError: if they cannot be written, as on a full disk.
    """
    from nfox.eval.report.plot_style import image

    if not figures:
        say("no plots: there is nothing to compare")
        return
    make_folder(folder, not_lost)
    for name, figure in figures.items():
        write_out(folder / f"{name}.svg", image(figure, "svg"), not_lost)
        write_out(folder / f"{name}.png", image(figure, "png"), not_lost)
    say(f"plots written to {folder}, each as .svg and .png: {', '.join(figures)}")
