"""What a step of a large model costs, and what speculation makes of it, on random weights.

    python benchmarks/steps.py

makes a Llama of 7B on the GPU, in bf16 and in nf4, and asks of each: at what share of the memory's
bandwidth it decodes plainly, what the published tree of 64 nodes costs beside one node, and whether
guesses that are right at a given rate give the tau and the speed that theory promises. Random
weights accept nothing, so the tree is drafted by random Medusa heads, and the rates are simulated.
It takes minutes, and starts nothing new after --minutes. The last line on stdout is JSON.

Without a GPU it says so; `--shape tiny --dtypes bfloat16 --contexts 64` shows that it works.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Drafter
from nfox.decoding.generate import Limits, Prompt, Step, generate
from nfox.decoding.rules import make_rule
from nfox.decoding.verify import Rule
from nfox.drafters.common import published_trees
from nfox.drafters.medusa import Medusa, MedusaConfig, MedusaHeads
from nfox.drafters.none import Autoregressive
from nfox.eval.bench.forwards import bytes_per_second, time_forwards, weight_bytes
from nfox.eval.bench.simulated_drafter import ForcedRule, SimulatedDrafter
from nfox.eval.bench.simulation import expected_steps
from nfox.models.devices import best_device
from nfox.models.memory import cache_bytes
from nfox.models.transformers_target import TransformersTarget

SHAPES: dict[str, dict[str, int]] = {
    "7b": {},  # what LlamaConfig is by default
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}
PARTS = ("draft", "target", "verify", "cache", "other")
RATES = (0.6, 0.8, 0.9)
GAMMA = 4
SHARE, TREE, THEORY = 0.8, 1.2, 0.05
"""What is asked for: the least share of the bandwidth, the most that 64 nodes cost beside one, and
the most by which simulated rates may miss theory."""


def make_target(shape: str, dtype: str, device: torch.device) -> TransformersTarget:
    """Return a Llama of random weights, in nf4 if asked for."""
    sizes = {"max_position_embeddings": 16384, **SHAPES[shape]}
    if shape != "7b":
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 4}
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = LlamaForCausalLM(LlamaConfig(**sizes))
    finally:
        torch.set_default_dtype(before)
    if dtype == "nf4":
        in_nf4(model)
    target = TransformersTarget(model.eval().requires_grad_(False))
    target.fuse()
    return target


def in_nf4(model: torch.nn.Module) -> None:
    """Put the linear layers in 4 bit, all but the LM head, as loading a checkpoint does."""
    import bitsandbytes as bnb

    modules = dict(model.named_modules())
    for name, layer in modules.items():
        if not isinstance(layer, torch.nn.Linear) or name == "lm_head":
            continue
        quantised = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=False,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
        )
        device = layer.weight.device
        weight = bnb.nn.Params4bit(layer.weight.data.cpu(), quant_type="nf4")
        quantised.weight = weight.to(device)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, quantised)


def medusa(target: TransformersTarget) -> Medusa:
    """Return 4 random heads with vocabulary matrices, and the default published tree."""
    config = MedusaConfig(
        hidden_size=target.hidden_size, vocab_size=target.vocabulary_size, own_vocabulary=True
    )
    heads = MedusaHeads(config).to(target.output_device, target.dtype)
    return Medusa(
        target, heads.eval().requires_grad_(False), published_trees.published_shape("mc_sim_7b_63")
    )


def steps(
    target: TransformersTarget,
    drafter: Drafter,
    prompt: list[int],
    tokens: int,
    rule: Rule | None = None,
) -> Iterator[Step]:
    """Yield the steps of decoding so many tokens after a prompt."""
    return generate(
        target,
        drafter,
        Prompt(tuple(prompt)),
        cache=target.new_cache(),
        rule=rule or make_rule(),
        limits=Limits(tokens),
    )


@dataclass(frozen=True)
class Trial:
    """What is measured of one target after one context.

    Args:
        target: of random weights.
        bandwidth: bytes of memory read in a second.
        context: tokens of the prompt.
        count: steps that are measured.
    """

    target: TransformersTarget
    bandwidth: float
    context: int
    count: int

    @property
    def prompt(self) -> list[int]:
        """Random tokens, the same ones every time."""
        generator = torch.Generator().manual_seed(0)
        high = self.target.vocabulary_size
        return torch.randint(3, high, (self.context,), generator=generator).tolist()

    def parts(self, drafter: Drafter) -> dict[str, float]:
        """Return the milliseconds of a step and of its parts, without the first steps, which warm
        up.
        """
        decoding = steps(self.target, drafter, self.prompt, 8 * self.count)
        times = [step.times for step in islice(decoding, 5, self.count + 5)]
        line = {"step": 1e3 * median(each.total for each in times)}
        return line | {part: 1e3 * median(getattr(each, part) for each in times) for part in PARTS}

    def plain_and_tree(self) -> dict[str, Any]:
        """Return a plain step's share of the bandwidth, and what 64 nodes cost beside one."""
        config = self.target.config.to_dict()
        read = weight_bytes(self.target) + cache_bytes(
            config, self.context, self.target.dtype.itemsize
        )
        plain, tree = self.parts(Autoregressive()), self.parts(medusa(self.target))
        return {
            "plain": plain,
            "tree of 64": tree,
            "share of bandwidth": read / self.bandwidth / (plain["step"] / 1e3),
            "64 nodes beside one": tree["target"] / plain["target"],
        }

    def simulated(self, tokens: int) -> list[dict[str, float]]:
        """Return tau and speed-up of every rate of acceptance, beside what theory promises.

        Tau is held against that of a reply of so many tokens, which ends inside of a step; the
        speed-up against what tau gives by the times of forwards and of drafting: what it lacks is
        the loop's own.
        """
        plain = list(steps(self.target, Autoregressive(), self.prompt, tokens))
        text = self.prompt + [token for step in plain for token in step.tokens]
        forwards = time_forwards(self.target, [self.context], [1, GAMMA + 1], 15)
        costs = Costs({forward.width: forward.seconds for forward in forwards})
        return [self._simulated(rate, text, plain, costs) for rate in RATES]

    def _simulated(
        self, rate: float, text: list[int], plain: list[Step], costs: Costs
    ) -> dict[str, float]:
        drafter = SimulatedDrafter(rate, GAMMA, self.target.vocabulary_size)
        drafter.know(text)
        rule = ForcedRule(make_rule(), drafter)
        made = list(steps(self.target, drafter, self.prompt, len(plain), rule))
        tau = len(plain) / len(made)
        before, after = (median(step.times.total for step in each) for each in (plain, made))
        draft = median(step.times.draft for step in made)
        return {
            "rate": rate,
            "tau": tau,
            "tau in theory": len(plain) / expected_steps(rate, GAMMA, len(plain)),
            "speedup": tau * before / after,
            "speedup in theory": tau
            * costs.forward_seconds(1)
            / (costs.forward_seconds(GAMMA + 1) + draft),
        }


def verdicts(row: dict[str, Any]) -> list[str]:
    """Return what of a row is not as asked for."""
    found = []
    if row["share of bandwidth"] < SHARE:
        found.append(f"plain decoding at {row['share of bandwidth']:.0%} of the bandwidth")
    if row["64 nodes beside one"] > TREE:
        found.append(f"64 nodes cost {row['64 nodes beside one']:.2f} times one")
    for rate in row.get("simulated", ()):
        for figure in ("tau", "speedup"):
            miss = rate[figure] / rate[f"{figure} in theory"] - 1
            if abs(miss) > THEORY:
                found.append(f"{figure} at {rate['rate']} misses theory by {miss:+.0%}")
    return found


def rounded(value: Any) -> Any:
    """Return a value of JSON with floats of 4 decimals."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def measure(arguments: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield a row for every dtype and context, as long as there is time."""
    begin = time.perf_counter()
    bandwidth = bytes_per_second(device)
    for dtype in arguments.dtypes.split(","):
        target = make_target(arguments.shape, dtype, device)
        for number, context in enumerate(map(int, arguments.contexts.split(","))):
            if time.perf_counter() - begin > 60 * arguments.minutes:
                print(f"steps.py: no time left for {dtype} after {context} tokens", file=sys.stderr)
                continue
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            trial = Trial(target, bandwidth, context, arguments.steps)
            row = {"dtype": dtype, "context": context, "forward": target.forward_description}
            row |= trial.plain_and_tree()
            if not number:  # once for each dtype: it takes the longest
                row["simulated"] = trial.simulated(arguments.tokens)
            if device.type == "cuda":
                row["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            yield row | {"missed": verdicts(row), "seconds": time.perf_counter() - begin}
        del target
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    """Parse the command line, measure, print a line for every row and one of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--dtypes", default="bfloat16,nf4")
    parser.add_argument("--contexts", default="2048,8192")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=1000, help="of the simulated replies")
    parser.add_argument("--minutes", type=float, default=6)
    arguments = parser.parse_args()
    device, rows = best_device(), []
    if device.type != "cuda" and arguments.shape == "7b":
        parser.exit(
            2, "steps.py: there is no GPU for a 7B here; --shape tiny shows that it works\n"
        )
    for row in measure(arguments, device):
        rows.append(rounded(row))
        print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    versions = {"torch": torch.__version__, "device": name, "shape": arguments.shape}
    print(json.dumps({"machine": versions, "rows": rows}))


if __name__ == "__main__":
    main()
