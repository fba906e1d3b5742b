"""What a step of a large model costs, and its parts, on random weights of a real shape.

    python benchmarks/steps.py --shape 7b --dtypes bfloat16,nf4 --contexts 2048,8192

Plain steps, and steps with Medusa heads and a published tree of 64 nodes. Random weights accept
nothing, so a step is a forward; what speculation gains on top is tau, which real heads decide. The
last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nfox.decoding.drafter import Drafter
from nfox.decoding.generate import Limits, Prompt, Step, generate
from nfox.decoding.rules import make_rule
from nfox.drafters.common import published_trees
from nfox.drafters.medusa import Medusa, MedusaConfig, MedusaHeads
from nfox.drafters.none import Autoregressive
from nfox.models.devices import best_device
from nfox.models.transformers_target import TransformersTarget

SHAPES: dict[str, dict[str, int]] = {
    "7b": {},  # what LlamaConfig is by default
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}
PARTS = ("draft", "target", "verify", "cache", "other")


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
    return TransformersTarget(model.eval().requires_grad_(False))


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


def steps(target: TransformersTarget, drafter: Drafter, context: int, count: int) -> list[Step]:
    """Return steps of decoding after a random prompt, without the first ones, which warm up."""
    prompt = torch.randint(3, target.vocabulary_size, (context,)).tolist()
    decoding = generate(
        target,
        drafter,
        Prompt(tuple(prompt)),
        cache=target.new_cache(),
        rule=make_rule(),
        limits=Limits(8 * count),
    )
    return list(islice(decoding, 5, count + 5))


def measure(
    target: TransformersTarget, drafter: Drafter, context: int, count: int
) -> dict[str, Any]:
    """Return milliseconds of a step and of its parts, and the peak of memory in GB."""
    cuda = target.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    measured = steps(target, drafter, context, count)
    line: dict[str, Any] = {"step": 1e3 * median(step.times.total for step in measured)}
    for part in PARTS:
        line[part] = 1e3 * median(getattr(step.times, part) for step in measured)
    line["nodes"] = len(measured[-1].tree)
    line["wall"] = time.perf_counter() - start
    line["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    return {key: round(value, 3) if value is not None else None for key, value in line.items()}


def main() -> None:
    """Parse the command line, measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--dtypes", default="bfloat16,nf4")
    parser.add_argument("--contexts", default="2048,8192")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    device, rows = best_device(), []
    for dtype in arguments.dtypes.split(","):
        target = make_target(arguments.shape, dtype, device)
        drafters = {"none": Autoregressive(), "medusa": medusa(target)}
        for context in map(int, arguments.contexts.split(",")):
            for name, drafter in drafters.items():
                line = measure(target, drafter, context, arguments.steps)
                rows.append({"dtype": dtype, "context": context, "method": name, **line})
                print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ", flush=True)
        del target, drafters, drafter
        if device.type == "cuda":
            torch.cuda.empty_cache()
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    versions = {"torch": torch.__version__, "device": name, "shape": arguments.shape}
    print(json.dumps({"machine": versions, "rows": rows}))


if __name__ == "__main__":
    main()
