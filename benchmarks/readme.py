"""The README's table: every method and every peer on the embedded model, in one run.

    python benchmarks/readme.py --sgd sgd/dev.json --gsm8k gsm8k/test.jsonl

It runs `nfox bench`, keeps its result in docs/benchmark/ with the plot that the README shows, and
writes the table between the marks in the README; then it runs once more over lengths of the
context, for the plot that docs/benchmark.md shows. The pages and all other plots lie in
build/benchmark/. The files are named from the project's folder; without them prompts are fetched
from where they were published. Leave the machine alone meanwhile. `--table` makes the table anew
from the kept result.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from nfox.eval.bench.figures import written
from nfox.eval.bench.result import BenchResult, read

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "benchmark" / "embedded.json"
SCRATCH = ROOT / "build" / "benchmark"
BEGIN, END = "<!-- benchmarks/readme.py -->\n", "<!-- end -->"
METHODS = "none,spec,ctc,chimera,medusa,lookup,jacobi,jacobi:pool=0"
SETS = ("sgd", "gsm8k")


def run(prompts: str, limit: int, rounds: int) -> None:
    """Run the benchmark; keep its result and the plot of its speed-ups."""
    asked = ["--methods", METHODS, "--peers", "all", "--prompts", prompts, "--turns", "1"]
    sized = ["--limit", str(limit), "--rounds", str(rounds), "--max-new-tokens", "128"]
    bench(KEPT, SCRATCH / "methods", "speedup.svg", *asked, *sized)


def run_contexts(prompts: str) -> None:
    """Run it over lengths of the context; keep the plot over them."""
    asked = ["--methods", "none,spec,ctc,lookup,jacobi", "--peers", "hf,llama.cpp"]
    asked += ["--prompts", prompts, "--turns", "1", "--limit", "2", "--rounds", "1"]
    asked += ["--sweep", "context=128,256,512,limit", "--max-new-tokens", "64"]
    scratch = SCRATCH / "contexts"
    bench(scratch / "result.json", scratch, "context.svg", *asked)


def bench(result: Path, scratch: Path, plot: str, *options: str) -> None:
    """Run `nfox bench`, from the project's folder, so that no place of this machine is kept.

    Args:
        result: the JSON file for everything that is measured.
        scratch: the folder for the page and all plots.
        plot: the file name of the plot that the documents show.
        options: of `nfox bench`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    places = {"--json": result, "--html": scratch / "index.html", "--plots": scratch}
    command = [sys.executable, "-m", "nfox.cli", "bench", *options]
    for option, place in places.items():
        command += [option, str(place.relative_to(ROOT))]
    subprocess.run(command, check=True, cwd=ROOT)
    shutil.copy(scratch / plot, KEPT.parent)


def table(result: BenchResult) -> str:
    """Return the result as Markdown."""
    rows = {(row.method, row.category): row for row in result.rows}
    columns = ("tau", "SGD / GSM8K", "nodes", "t(N)/t(1)", "d", "tokens/s", "speed-up", "95 %")
    columns += ("SGD / GSM8K", "predicted", "efficiency", "with prefill", "identical")
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, entrant in result.entrants.items():
        row = rows[name, "all"]
        sets = [rows[name, kind] for kind in SETS]
        label = f"`{name}`" if entrant.kind == "method" else f"*{name}*"
        cells = [label, written(row.tau), " / ".join(written(each.tau) for each in sets)]
        cells += [written(row.nodes, ".1f"), written(row.wide), written(row.drafting)]
        cells += [written(row.tokens_per_second, ".0f"), written(row.speedup)]
        cells += [f"{written(row.speedup_low)} - {written(row.speedup_high)}"]
        cells += [" / ".join(written(each.speedup) for each in sets), written(row.predicted)]
        cells += [written(row.efficiency), written(row.speedup_total)]
        cells += [written(row.identical, ".0%")]
        lines.append("| " + " | ".join(cells) + " |")
    for name, why in result.missing.items():
        lines.append(f"| *{name}* | {why} " + "| " * len(columns) + "|")
    return "\n".join([*lines, "", *notes(result), ""])


def notes(result: BenchResult) -> list[str]:
    """Return what is to be known beside the table."""
    machine = result.machine
    gap = max((row.gap or 0.0 for row in result.divergences), default=0.0)
    lines = [
        f"- {machine.threads} threads of {machine.device}, {machine.dtype}, torch "
        f"{machine.versions['torch']}; measured, and corrected by the steps: {machine.costs}.",
        "- Where replies part from those of `none`, the two tokens' logits differ by "
        f"{gap:.2f} at most in a plain step.",
    ]
    peers = {name: entrant for name, entrant in result.entrants.items() if entrant.kind == "peer"}
    return lines + [f"- *{name}*: {entrant.settings}." for name, entrant in peers.items()]


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sgd", help="of the Schema-Guided Dialogue dataset's development split")
    parser.add_argument("--gsm8k", help="GSM8K's test.jsonl")
    parser.add_argument("--limit", type=int, default=25, help="prompts of each set")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="of what was kept")
    arguments = parser.parse_args()
    if not arguments.table:
        files = {"sgd": arguments.sgd, "gsm8k": arguments.gsm8k}
        prompts = ",".join(f"{name}={file}" if file else name for name, file in files.items())
        run(prompts, arguments.limit, arguments.rounds)
        run_contexts(prompts)
    markdown = table(read(KEPT, BenchResult))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{markdown}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
