"""The tables of docs/benchmark.md and of the README: every method and every peer, in one run.

    python benchmarks/readme.py --sgd sgd/dev.json --gsm8k gsm8k/test.jsonl

It runs `nfox bench` on the embedded model, keeps its result in docs/benchmark/ with the plot of
speed-ups, and writes the table between its marks in docs/benchmark.md; then it runs once more over
lengths of the context, for the plot over them. The pages and all other plots lie in
build/benchmark/. Without files prompts are fetched from where they were published. Leave the
machine alone meanwhile. `--table` makes the table anew from the kept result.

    python benchmarks/readme.py --model FOLDER --name smollm2 --mt-bench question.jsonl --limit 20

measures any other model, on first turns of MT-bench and on GSM8K, with all methods whose needs are
met, the plain text's replay, transformers' `generate` and everything of llama.cpp; it keeps
docs/benchmark/NAME.json and its plot, and writes the table, where there are marks for one of this
name; in the README the few rows that a reader compares first. Options that are not its own, such as
--draft-model or --threads, go to `nfox bench`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from nfox.eval import peers
from nfox.eval.bench.divergence import near_ties
from nfox.eval.bench.figures import written
from nfox.eval.bench.result import BenchResult, read

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "benchmark" / "embedded.json"
BUILD = ROOT / "build"
SCRATCH = BUILD / "benchmark"
BEGIN, END = "<!-- benchmarks/readme.py {} -->\n", "<!-- end -->"
FIRST = ("auto", "lookup", "none", "llama.cpp", "llama.cpp lookup", "hf")
"""The rows that the README shows."""
METHODS = "none,auto,spec,ctc,chimera,medusa,lookup,jacobi,jacobi:pool=0"


def within(place: str) -> str:
    """Return a file or folder as named from the project's: one that lies elsewhere by a link in
    build/, so that no place of this machine is kept. What there is not, as a hub id, stays.
    """
    path = Path(place).expanduser()
    if not path.is_absolute() or not path.exists():
        return place
    link = BUILD / "links" / (path.name if path.is_file() else f"{path.parent.name}-{path.name}")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return str(link.relative_to(ROOT))


def run(prompts: str, limit: int, rounds: int) -> None:
    """Run the benchmark; keep its result and the plot of its speed-ups."""
    asked = ["--model", "embedded", "--methods", METHODS, "--replay", "7", "--peers", "all"]
    asked += ["--prompts", prompts, "--turns", "1"]
    sized = ["--limit", str(limit), "--rounds", str(rounds), "--max-new-tokens", "128"]
    bench(KEPT, SCRATCH / "methods", "speedup.svg", *asked, *sized)


def run_contexts(prompts: str) -> None:
    """Run it over lengths of the context; keep the plot over them."""
    asked = [
        "--model",
        "embedded",
        "--methods",
        "none,spec,ctc,lookup,jacobi",
        "--peers",
        "hf,llama.cpp",
    ]
    asked += ["--prompts", prompts, "--turns", "1", "--limit", "2", "--rounds", "1"]
    asked += ["--sweep", "context=128,256,512,limit", "--max-new-tokens", "64"]
    scratch = SCRATCH / "contexts"
    bench(scratch / "result.json", scratch, "context.svg", *asked)


def run_model(model: str, prompts: str, options: argparse.Namespace, more: list[str]) -> Path:
    """Run the benchmark on another model; keep its result and the plot of its speed-ups.

    Args:
        model: folder or hub id.
        prompts: of two sets.
        options: the name of its files, the prompts of each set, and the rounds.
        more: other options of `nfox bench`.

    Returns:
        The file of the result.
    """
    others = ",".join(name for name in peers.names() if name == "hf" or "llama.cpp" in name)
    asked = ["--model", within(model), "--methods", "all", "--replay", "7", "--peers", others]
    asked += ["--prompts", prompts, "--turns", "1", "--limit", str(options.limit)]
    asked += ["--rounds", str(options.rounds), "--max-new-tokens", "128"]
    result, scratch = KEPT.with_name(f"{options.name}.json"), SCRATCH / options.name
    bench(result, scratch, "speedup.svg", *asked, *more, kept_as=f"{options.name}-speedup.svg")
    return result


def bench(result: Path, scratch: Path, plot: str, *options: str, kept_as: str = "") -> None:
    """Run `nfox bench`, from the project's folder, so that no place of this machine is kept.

    Args:
        result: the JSON file for everything that is measured.
        scratch: the folder for the page and all plots.
        plot: the file name of the plot that the documents show.
        options: of `nfox bench`.
        kept_as: the plot's file name beside the results, if it is another one.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    places = {"--json": result, "--html": scratch / "index.html", "--plots": scratch}
    command = [sys.executable, "-m", "nfox.cli", "bench", *options]
    for option, place in places.items():
        command += [option, str(place.relative_to(ROOT))]
    subprocess.run(command, check=True, cwd=ROOT)
    shutil.copy(scratch / plot, KEPT.with_name(kept_as or plot))


def table(result: BenchResult) -> str:
    """Return the result as Markdown, with figures of the two sets if it is of two."""
    rows = {(row.method, row.category): row for row in result.rows}
    kinds = result.categories if len(result.categories) == 2 else []
    of_sets = [" / ".join(kinds).upper()] if kinds else []
    columns = ["tau", *of_sets, "nodes", "t(N)/t(1)", "d", "tokens/s", "speed-up", "95 %"]
    columns += [*of_sets, "predicted", "efficiency", "with prefill", "identical"]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, entrant in result.entrants.items():
        row = rows[name, "all"]
        sets = [rows[name, kind] for kind in kinds]
        label = f"`{name}`" if entrant.kind == "method" else f"*{name}*"
        cells = [label, written(row.tau)]
        cells += [" / ".join(written(each.tau) for each in sets)] if sets else []
        cells += [written(row.nodes, ".1f"), written(row.wide), written(row.drafting)]
        cells += [written(row.tokens_per_second, ".0f"), written(row.speedup)]
        cells += [f"{written(row.speedup_low)} - {written(row.speedup_high)}"]
        cells += [" / ".join(written(each.speedup) for each in sets)] if sets else []
        cells += [written(row.predicted), written(row.efficiency), written(row.speedup_total)]
        cells += [written(row.identical, ".0%")]
        lines.append("| " + " | ".join(cells) + " |")
    for name, why in result.missing.items():
        lines.append(f"| *{name}* | {why} " + "| " * len(columns) + "|")
    return "\n".join([*lines, "", *notes(result), ""])


def notes(result: BenchResult) -> list[str]:
    """Return what is to be known beside the table."""
    machine = result.machine
    gap = max((row.gap or 0.0 for row in near_ties(result)), default=0.0)
    lines = [
        f"- {machine.threads} threads of {machine.device}, {machine.dtype}, torch "
        f"{machine.versions['torch']}; measured, and corrected by the steps: {machine.costs}.",
        "- Where replies part from those of `none` (but for quantised peers, whose weights "
        "differ), the two tokens' logits differ by "
        f"{gap:.2f} at most in a plain step.",
    ]
    peers = {name: entrant for name, entrant in result.entrants.items() if entrant.kind == "peer"}
    return lines + [f"- *{name}*: {entrant.settings}." for name, entrant in peers.items()]


def short_table(result: BenchResult) -> str:
    """Return the rows that a reader compares first, as Markdown."""
    rows = {row.method: row for row in result.rows if row.category == "all"}
    lines = ["| | tokens/s | of plain | 95 % | tau | same text |", "|---" * 6 + "|"]
    for name in FIRST:
        row, is_method = rows[name], result.entrants[name].kind == "method"
        cells = [f"`{name}`" if is_method else f"*{name}*", written(row.tokens_per_second, ".0f")]
        cells += [written(row.speedup), f"{written(row.speedup_low)} - {written(row.speedup_high)}"]
        cells += [written(row.tau), written(row.identical, ".0%")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def write_tables(kept: Path) -> None:
    """Write the tables of a kept result wherever there are marks for its name."""
    result = read(kept, BenchResult)
    for place, markdown in (
        ("docs/benchmark.md", table(result)),
        ("README.md", short_table(result)),
    ):
        begin = BEGIN.format(kept.stem)
        before, mark, rest = (ROOT / place).read_text(encoding="utf-8").partition(begin)
        if mark:
            _, _, after = rest.partition(END)
            text = f"{before}{begin}\n{markdown}\n{END}{after}"
            (ROOT / place).write_text(text, encoding="utf-8")


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sgd", help="of the Schema-Guided Dialogue dataset's development split")
    parser.add_argument("--gsm8k", help="GSM8K's test.jsonl")
    parser.add_argument("--mt-bench", help="MT-bench's question.jsonl, in place of --sgd")
    parser.add_argument("--model", help="another model than the embedded one")
    parser.add_argument("--name", help="of its files in docs/benchmark/; the folder's by default")
    parser.add_argument("--limit", type=int, default=25, help="prompts of each set")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="of what was kept")
    arguments, more = parser.parse_known_args()
    files = {"mt-bench" if arguments.model else "sgd": arguments.sgd, "gsm8k": arguments.gsm8k}
    if arguments.model:
        files["mt-bench"] = arguments.mt_bench
        arguments.name = arguments.name or Path(arguments.model).name
    named = {name: file and within(file) for name, file in files.items()}
    prompts = ",".join(f"{name}={file}" if file else name for name, file in named.items())
    if arguments.model:
        kept = KEPT.with_name(f"{arguments.name}.json")
        if not arguments.table:
            run_model(arguments.model, prompts, arguments, more)
        write_tables(kept)
        return
    if more:
        parser.error(f"unrecognised without --model: {' '.join(more)}")
    if not arguments.table:
        run(prompts, arguments.limit, arguments.rounds)
        run_contexts(prompts)
    write_tables(KEPT)


if __name__ == "__main__":
    main()
