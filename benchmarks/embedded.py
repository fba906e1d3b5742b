"""Every method and transformers' own `generate` on the embedded model, in one run.

    python benchmarks/embedded.py --sgd dev.json --gsm8k test.jsonl

Greedy, each prompt with an empty cache, methods in turn for every prompt, several rounds; ratios
are medians over rounds. A method may bring options: `medusa:tree=mc_sim_7b_63`. `wide` and `draft`
are what the target's forward and drafting take of a step, in steps of `none`: t(N)/t(1) and d;
`predicted` is tau / (t(N)/t(1) + d); `identical` the share of replies equal to those of `none`, and
`gap` by how much the logits of the two tokens differ, at most, where others part. The last line on
stdout is JSON. The files are the Schema-Guided Dialogue dataset as ShareGPT-style JSON and GSM8K's
test set as published; without them they come from the hub. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nfox import Chat, Message, ModelOptions, Settings, load
from nfox.cache import common_prefix
from nfox.stats import Stats
from nfox.tree import TokenTree

Row = dict[str, float]
SETS = ("sgd", "gsm8k")


def sgd_openings(path: Path | None, count: int) -> list[str]:
    """Return the first user turns of SGD dialogues."""
    if path is None:
        from datasets import load_dataset

        rows = load_dataset("google-research-datasets/schema_guided_dstc8", split="validation")
        return [row["turns"]["utterance"][0] for row in rows.select(range(count))]
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [row["conversations"][0]["value"] for row in rows[:count]]


def gsm8k_questions(path: Path | None, count: int) -> list[str]:
    """Return GSM8K test questions."""
    if path is None:
        from datasets import load_dataset

        return list(load_dataset("openai/gsm8k", "main", split="test")["question"][:count])
    lines = path.read_text(encoding="utf-8").strip().split("\n")[:count]
    return [json.loads(line)["question"] for line in lines]


def run_nfox(chat: Chat, prompt: str) -> tuple[list[int], Row]:
    """Answer one prompt with the chat's method and an empty cache."""
    chat.cache = chat.model.target.new_cache()
    for _ in chat.updates([Message("user", prompt)]):
        pass
    return chat.reply.ids, _row(chat.reply.stats)


def _row(stats: Stats) -> Row:
    return {
        "tokens": stats.tokens,
        "steps": stats.steps,
        "drafted": stats.drafted,
        "decode": stats.seconds,
        "host": stats.host_seconds,
        "draft": stats.draft_seconds,
        "target": stats.target_seconds,
        "wall": stats.prefill_seconds + stats.seconds,  # ids only, as `generate` gives them
    }


@torch.inference_mode()
def run_transformers(chat: Chat, prompt: str) -> tuple[list[int], Row]:
    """Answer one prompt with `model.generate`; prefill is part of its time."""
    ids = chat.template.encode(chat.model.tokenizer, [Message("user", prompt)])
    start = time.perf_counter()
    out = chat.model.target.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=chat.settings.max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(chat.stop_ids),
    )[0, len(ids) :].tolist()
    wall = time.perf_counter() - start
    kept = [token for token in out if token not in chat.stop_ids]
    return kept, {"tokens": len(out), "steps": len(out), "wall": wall}


def gap(chat: Chat, prompt: str, reply: Sequence[int], plain: Sequence[int]) -> float:
    """Return by how much a plain step likes its own token more, where two replies first differ.

    Rounded logits of a wide forward differ a little from those of a plain step: where two tokens
    are nearly as likely, either may be the first.
    """
    ids = chat.template.encode(chat.model.tokenizer, [Message("user", prompt)])
    target, cache, same = (
        chat.model.target,
        chat.model.target.new_cache(),
        common_prefix(reply, plain),
    )
    target.read(ids[:-1], cache)
    logits = torch.empty(0)
    for token in (ids[-1], *plain[:same]):
        logits, hidden = target.score(TokenTree.chain(token), cache)
        cache.commit(TokenTree.chain(token), [0], hidden)
    end = [max(chat.stop_ids, key=lambda token: float(logits[0, token]))]
    mine, theirs = ([*tokens[same : same + 1], *end][0] for tokens in (reply, plain))
    return float(logits[0, theirs] - logits[0, mine])


def measure(
    chat: Chat,
    runs: dict[str, Callable[[str], tuple[list[int], Row]]],
    sets: Sequence[Sequence[str]],
    rounds: int,
) -> tuple[dict[str, list[Row]], dict[str, float], dict[str, float]]:
    """Run everything in turn; return the sums of each round, the share of equal replies, and the
    largest gap where replies part (see `gap`).
    """
    sums: dict[str, list[Row]] = {name: [{} for _ in range(rounds)] for name in runs}
    same, gaps = dict.fromkeys(runs, 0), dict.fromkeys(runs, 0.0)
    for turn, (number, prompts) in product(range(rounds), enumerate(sets)):
        for prompt in prompts:
            replies = {}
            for name, run in runs.items():
                replies[name], row = run(prompt)
                total = sums[name][turn]
                row |= {f"{key}_{SETS[number]}": row[key] for key in ("tokens", "steps")}
                for key, value in row.items():
                    total[key] = total.get(key, 0) + value
            for name in runs:
                same[name] += replies[name] == replies["none"]
                if replies[name] != replies["none"]:
                    found = gap(chat, prompt, replies[name], replies["none"])
                    gaps[name] = max(gaps[name], found)
    count = rounds * sum(map(len, sets))
    return sums, {name: hits / count for name, hits in same.items()}, gaps


def report(
    sums: dict[str, list[Row]], same: dict[str, float], gaps: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Turn sums into the figures of the table; ratios are taken within a round."""

    def ratio(name: str, key: str) -> float:
        plain = sums["none"]
        pairs = zip(sums[name], plain, strict=True)
        return median((a["tokens"] / a[key]) / (b["tokens"] / b[key]) for a, b in pairs)

    table = {}
    for name, rows in sums.items():
        line = {
            "tokens": rows[0]["tokens"],
            "tau": rows[0]["tokens"] / rows[0]["steps"],
            "tokens_per_second_with_prefill": median(r["tokens"] / r["wall"] for r in rows),
            "speedup_with_prefill": ratio(name, "wall"),
            "identical": same[name],
            "gap": gaps[name],
        }
        for key in SETS:
            line[f"tau_{key}"] = rows[0][f"tokens_{key}"] / rows[0][f"steps_{key}"]
        if "decode" in rows[0]:
            line["tokens_per_second"] = median(r["tokens"] / r["decode"] for r in rows)
            line["speedup"] = ratio(name, "decode")
            line["host_share"] = median(r["host"] / r["decode"] for r in rows)
            line["nodes"] = rows[0]["drafted"] / rows[0]["steps"]
            one = [row["decode"] / row["steps"] for row in sums["none"]]  # seconds of a plain step
            for key, part in (("wide", "target"), ("draft", "draft")):
                shares = zip(rows, one, strict=True)
                line[key] = median(row[part] / row["steps"] / t for row, t in shares)
            line["predicted"] = line["tau"] / (line["wide"] + line["draft"])
        table[name] = {key: round(value, 4) for key, value in line.items()}
    return table


def main() -> None:
    """Parse the command line, measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sgd", type=Path)
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--model", help="the embedded one by default")
    parser.add_argument("--draft-model")
    parser.add_argument("--adapter", help="name or folder; `none` is then with it as well")
    parser.add_argument("--methods", default="none,jacobi,lookup,spec")
    parser.add_argument("--limit", type=int, default=50, help="prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = Settings(max_new_tokens=arguments.max_new_tokens)
    loading = ModelOptions(adapter=arguments.adapter)
    chat = load(
        arguments.model, draft_model=arguments.draft_model, settings=settings, loading=loading
    )

    drafters: dict[str, Any] = {}
    for name in arguments.methods.split(","):
        method, *options = name.split(":")
        chat.use(method, dict(option.split("=") for option in options))
        drafters[name] = chat.drafter

    def with_method(name: str) -> Callable[[str], tuple[list[int], Row]]:
        def run(prompt: str) -> tuple[list[int], Row]:
            chat.drafter = drafters[name]
            return run_nfox(chat, prompt)

        return run

    runs = {name: with_method(name) for name in drafters}
    runs["transformers"] = lambda prompt: run_transformers(chat, prompt)
    count = arguments.limit
    prompts = [sgd_openings(arguments.sgd, count), gsm8k_questions(arguments.gsm8k, count)]
    measure(chat, runs, [some[:2] for some in prompts], 1)  # warm up
    table = report(*measure(chat, runs, prompts, arguments.rounds))
    for name, line in table.items():
        print(f"{name:14}", *(f"{key} {value:<9g}" for key, value in line.items()))
    machine = {
        "threads": arguments.threads,
        "dtype": str(chat.model.target.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "adapter": arguments.adapter,
        "costs": str(chat.costs),
        "drafters": {name: drafter.describe() for name, drafter in drafters.items()},
    }
    print(json.dumps({"machine": machine, "methods": table}))


if __name__ == "__main__":
    main()
