"""Measure the demo models: the held-out loss, the skills, and how often the draft model is right.

With an adapter, also how often the adapted target chooses the token of the target without it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from data import IGNORE, Conversation, as_messages, encode, load_gsm8k, load_sgd
from generate import greedy
from skills import SKILLS, exam
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from nfox.models.loading import load_model
from nfox.models.options import LoadedModel, ModelOptions

MEASURES = ("loss", "skills", "alpha", "agreement")


@torch.inference_mode()
def held_out_loss(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Conversation],
    supervise_all: bool,
) -> float:
    """Return the mean loss per token in nats, over the assistant's tokens or over all of them."""
    total, tokens = 0.0, 0
    for item in items:
        ids, labels = encode(tokenizer, item, supervise_all)
        count = sum(label != IGNORE for label in labels[1:])
        loss = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss
        total += loss.item() * count
        tokens += count
    return round(total / tokens, 3)


def skill_scores(target: LoadedModel, count: int, seed: int) -> dict[str, float]:
    """Return the exact match of the last answer for each skill, asked in ways never trained on."""
    scores = {}
    for name in SKILLS:
        items = [as_messages(turns) for turns in exam(name, count, seed)]
        replies = greedy(target, [item[:-1] for item in items])
        right = sum(
            target.tokenizer.decode(reply, skip_special_tokens=True).strip() == item[-1]["content"]
            for item, (_, reply) in zip(items, replies, strict=True)
        )
        scores[name] = round(right / count, 3)
    scores["mean"] = round(sum(scores.values()) / len(scores), 3)
    return scores


@torch.inference_mode()
def agreement(
    target: LoadedModel, other: LlamaForCausalLM, openings: Sequence[Conversation]
) -> float:
    """Return the share of the target's greedy reply tokens that another model would choose too."""
    right, tokens = 0, 0
    for prompt, reply in greedy(target, openings):
        logits = other(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        right += int((logits.argmax(-1) == torch.tensor(reply)).sum())
        tokens += len(reply)
    return round(right / tokens, 3)


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("nfox/demo"))
    parser.add_argument("--adapter", help="measure the target with it")
    parser.add_argument("--sgd", type=Path, help="ShareGPT file of held-out dialogues")
    parser.add_argument("--gsm8k", type=Path, help="JSON lines of held-out problems")
    parser.add_argument("--count", type=int, default=100, help="items for each measure")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES)
    return parser.parse_args()


def load(folder: Path, adapter: str | None = None) -> LoadedModel:
    """Load the model of a folder in float32, with an adapter if one is named."""
    options = ModelOptions(dtype="float32", device="cpu", adapter=adapter)
    return load_model(str(folder), options)


def main() -> None:
    """Print the measures, the last line as JSON."""
    args = parse()
    target = load(args.model / "target", args.adapter)
    model: LlamaForCausalLM = target.target.model
    held_out = {
        "sgd": load_sgd(args.sgd, "validation")[: args.count],
        "gsm8k": load_gsm8k(args.gsm8k, "test")[: args.count],
    }
    report: dict[str, object] = {"parameters": model.num_parameters(), "count": args.count}
    if "loss" in args.only:
        for name, items in held_out.items():
            report[f"loss_{name}"] = held_out_loss(model, target.tokenizer, items, False)
            report[f"loss_{name}_all_tokens"] = held_out_loss(model, target.tokenizer, items, True)
    if "skills" in args.only:
        report["skills"] = skill_scores(target, args.count, args.seed)
    openings = {name: [item[:1] for item in items] for name, items in held_out.items()}
    if "alpha" in args.only:
        draft = LlamaForCausalLM.from_pretrained(
            args.model / "target" / "nfox" / "spec", dtype=torch.float32
        )
        report["draft_parameters"] = draft.num_parameters()
        for name, prompts in openings.items():
            report[f"alpha_{name}"] = agreement(target, draft, prompts)
    if "agreement" in args.only and args.adapter:
        plain = load(args.model / "target")
        for name, prompts in openings.items():
            report[f"agreement_{name}"] = agreement(plain, model, prompts)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
