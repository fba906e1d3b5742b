"""docs/performance.md: what forwards take and where a step's time goes, of several models.

    python benchmarks/performance.py --model smollm2=FOLDER

It runs `nfox bench forwards` and `nfox bench` on the embedded model and on every other one that is
named, keeps the results and two plots of each in docs/performance/, and writes the part between the
marks in docs/performance.md. Leave the machine alone meanwhile. `--table` writes that part anew
from what was kept. Options that are not its own, such as --threads, go to both commands.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence

from readme import BUILD, ROOT, within

from nfox.eval.bench.figures import written
from nfox.eval.bench.forwards import ForwardsResult
from nfox.eval.bench.result import BenchResult, read

KEPT = ROOT / "docs" / "performance"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/performance.py -->\n", "<!-- end -->"
PARTS = {
    "draft": "drafting", "target": "forward", "verify": "judging", "cache": "cache", "host": "rest",
}  # fmt: skip
PLOTS = {
    "forwards": "t(N) over the number of tokens and over the context, and the memory's floor",
    "step-time": "Where the time of a step goes, by method",
}


def measure(name: str, model: str | None, more: Sequence[str]) -> None:
    """Measure a model, and keep its results and plots.

    Args:
        name: of its files.
        model: folder or hub id; None for the embedded one.
        more: options of both commands.
    """
    chosen = ["--model", within(model) if model else "embedded"]
    run(name, "forwards", ["bench", "forwards", *chosen, *more])
    asked = ["--methods", "all", "--replay", "7", "--max-new-tokens", "64", "--prompts", "demo"]
    run(name, "step-time", ["bench", *asked, *chosen, *more])


def run(name: str, plot: str, command: Sequence[str]) -> None:
    """Run a command of nfox from the project's folder, and keep its result and one plot.

    Args:
        name: of the model's files.
        plot: that is kept, which names the result too.
        command: without where it writes.
    """
    result = KEPT / f"{name}-{plot}.json"
    scratch = BUILD / "performance" / name
    scratch.mkdir(parents=True, exist_ok=True)
    KEPT.mkdir(exist_ok=True)
    places = ["--json", str(result.relative_to(ROOT)), "--plots", str(scratch.relative_to(ROOT))]
    subprocess.run([sys.executable, "-m", "nfox.cli", *command, *places], check=True, cwd=ROOT)
    shutil.copy(scratch / f"{plot}.svg", result.with_suffix(".svg"))


def section(name: str) -> str:
    """Return what a model's results say, as Markdown."""
    forwards = read(KEPT / f"{name}-forwards.json", ForwardsResult)
    steps = read(KEPT / f"{name}-step-time.json", BenchResult)
    speed, size = forwards.bytes_per_second / 1e9, forwards.weight_bytes / 1e6
    machine = forwards.machine
    lines = [
        f"### {name}",
        "",
        f"{machine.threads} threads of {machine.device}, {machine.dtype}, {forwards.forward}. "
        f"Reading {size:.0f} MB of weights at {speed:.1f} GB/s takes {1e3 * forwards.floor:.1f} "
        f"ms from memory, less out of the processor's cache. Milliseconds of a forward over N "
        "tokens:",
        "",
        *table(
            ["context", *map(str, forwards.widths)],
            [
                [f"{context:,}", *(f"{1e3 * forwards.fastest(context, n):.1f}" for n in
                                   forwards.widths)]
                for context in forwards.contexts
            ],
        ),
        "",
        "Milliseconds of a step, over the 16 questions of `demo`, 64 tokens each, in a run of its "
        "own:",
        "",
        *table(
            ["", "tau", *PARTS.values()],
            [
                [f"`{row.method}`", written(row.tau),
                 *(written(getattr(row.time, part)) for part in PARTS)]
                for row in steps.of_category()
                if row.time
            ],
        ),
        "",
    ]  # fmt: skip
    for plot, title in PLOTS.items():
        lines += [f"![{title}](performance/{name}-{plot}.svg)", ""]
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table of Markdown, line by line."""
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--table", action="store_true", help="of what was kept")
    arguments, more = parser.parse_known_args()
    named = [("embedded", None), *(text.partition("=")[::2] for text in arguments.model)]
    if any(model == "" for _, model in named):
        parser.error("--model takes NAME=FOLDER")
    if not arguments.table:
        for name, model in named:
            measure(name, model, more)
    kept = [file.name.removesuffix("-forwards.json") for file in KEPT.glob("*-forwards.json")]
    parts = "\n".join(section(name) for name in sorted(kept))
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{parts}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
