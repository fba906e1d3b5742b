"""Make the embedded demo models: the target, and its draft model, heads and adapter."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from cllm import train_cllm
from data import Mix, Rows, Sources, load_gsm8k, load_sgd, training_mix
from distil import answers_file, train_draft
from heads import EXTRA, train_heads
from scratch import new_target, new_tokenizer
from train import Plan, fit, trim
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from nfox.models.decoding_model import load_to_decode
from nfox.models.options import LoadProgress, ModelOptions

MLP_WIDTH = 896
DRAFT = Path("target", "nfox", "spec")  # where nfox looks for a model's draft model


def publish(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    with_tokenizer: bool = True,
) -> None:
    """Write a model in bf16 to its published folder, in files below 15 MB.

    The folder is replaced when the new one is complete, also a draft model in it, which is for the
    old target. A draft model needs no tokenizer, since it is published beside its target's.
    """
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.config.use_cache = True
    model.to(torch.bfloat16).save_pretrained(fresh, max_shard_size="12MB")
    if with_tokenizer:
        for local in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(local, None)
        tokenizer.save_pretrained(fresh)
    for file in fresh.iterdir():
        file.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def base(
    args: argparse.Namespace, sources: Sources
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Return the model that --init names with its tokenizer; else train one on all tokens."""
    if args.init is not None:
        model = LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(args.init)
    finished = args.work / "base-finished"
    if args.resume and finished.is_dir():
        model = LlamaForCausalLM.from_pretrained(finished, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(finished)
    items = load_sgd(sources.sgd) + load_gsm8k(sources.gsm8k)
    tokenizer = new_tokenizer(items)
    model = new_target(len(tokenizer))
    rows = Rows(tokenizer, items, 512, supervise_all=True)
    plan = replace(plan_for(args, "base", args.base_minutes, 2e-3), batch=8)
    fit(model, rows, held_out(tokenizer, args), plan)
    model.save_pretrained(finished)
    tokenizer.save_pretrained(finished)
    return model, tokenizer


def held_out(tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace) -> dict[str, Rows]:
    """Return a few held-out conversations of each data set to measure on while training."""
    sgd = load_sgd(args.sgd_dev, "validation")[:60]
    gsm8k = load_gsm8k(args.gsm8k_test, "test")[:60]
    return {"sgd": Rows(tokenizer, sgd), "gsm8k": Rows(tokenizer, gsm8k)}


def plan_for(args: argparse.Namespace, name: str, minutes: float, rate: float) -> Plan:
    """Return how long and how fast to train a model, with its own folder of checkpoints."""
    return Plan(minutes, rate, args.work / name, resume=args.resume, seed=args.seed)


def target(args: argparse.Namespace, sources: Sources) -> None:
    """Trim the MLPs of the base, train it on the mix, and publish it as the target."""
    model, tokenizer = base(args, sources)
    mix = Mix(args.skills, args.dialogues, args.problems, args.interrupted)
    rows = Rows(tokenizer, training_mix(sources, mix, args.seed))
    model = trim(model, rows, MLP_WIDTH)
    plan = replace(plan_for(args, "target", args.minutes, args.rate), compile=args.compile)
    fit(model, rows, held_out(tokenizer, args), plan)
    publish(model, tokenizer, args.out / "target")


def answers(args: argparse.Namespace, sources: Sources) -> Path:
    """Return the file of the published target's own answers, made anew if it is older than it."""
    file = args.work / "own.jsonl"
    newest = max(weights.stat().st_mtime for weights in (args.out / "target").glob("*.safetensors"))
    if not (file.is_file() and file.stat().st_mtime > newest):
        args.work.mkdir(parents=True, exist_ok=True)
        target = load_to_decode(str(args.out / "target"), ModelOptions(), LoadProgress())
        answers_file(target, sources, args.own_answers + 50, file, args.seed)
    return file


def draft(args: argparse.Namespace, sources: Sources) -> None:
    """Distil the draft from the published target, and publish it."""
    mix = training_mix(sources, Mix(12_000), args.seed + 3)[: args.draft_conversations]
    settings = ["--learning_rate", str(args.draft_rate), "--seed", str(args.seed)]
    settings += ["--num_train_epochs", str(args.draft_epochs)]
    settings += ["--draft", str(args.draft_init)] if args.draft_init else []
    folder = args.out / "target"
    work = train_draft(folder, answers(args, sources), mix, settings, resume=args.resume)
    model = LlamaForCausalLM.from_pretrained(work)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    publish(model, tokenizer, args.out / DRAFT, with_tokenizer=False)


def heads(args: argparse.Namespace, sources: Sources, method: str) -> None:
    """Train the heads of a method for the published target, on its own answers."""
    train_heads(method, args.out / "target", answers(args, sources), resume=args.resume)


def cllm(args: argparse.Namespace, sources: Sources) -> None:
    """Train the adapter for Jacobi decoding, on the target's own answers."""
    train_cllm(args.out / "target", answers(args, sources), resume=args.resume)


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("nfox/demo"))
    parser.add_argument("--work", type=Path, default=Path("demo-work"), help="checkpoints")
    parser.add_argument("--sgd", type=Path, help="ShareGPT file instead of the hub's dialogues")
    parser.add_argument("--gsm8k", type=Path, help="JSON lines file instead of the hub's problems")
    parser.add_argument("--sgd-dev", type=Path, help="the same, held out")
    parser.add_argument("--gsm8k-test", type=Path, help="the same, held out")
    parser.add_argument("--init", type=Path, help="checkpoint to go on from")
    parser.add_argument("--minutes", type=float, default=70, help="for the target")
    parser.add_argument("--base-minutes", type=float, default=80, help="for a start from nothing")
    parser.add_argument("--draft-epochs", type=float, default=5)
    parser.add_argument("--rate", type=float, default=8e-4, help="the target's learning rate")
    parser.add_argument("--skills", type=int, default=40_000, help="skill conversations")
    parser.add_argument("--dialogues", type=float, default=0.5, help="the share that is learned")
    parser.add_argument("--problems", type=float, default=1.0, help="the share that is learned")
    parser.add_argument("--interrupted", type=int, default=0, help="more interrupted dialogues")
    parser.add_argument("--draft-rate", type=float, default=3e-3, help="its learning rate")
    parser.add_argument("--draft-init", type=Path, help="draft to go on from")
    parser.add_argument("--draft-conversations", type=int, default=5_000)
    parser.add_argument("--own-answers", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="the target: faster; needs a C++ compiler"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--only", choices=("target", "draft", *EXTRA, "cllm"))
    return parser.parse_args()


def main() -> None:
    """Make all models, or the one that --only names."""
    args = parse()
    sources = Sources(args.sgd, args.gsm8k)
    if args.only in (None, "target"):
        target(args, sources)
    if args.only in (None, "draft"):
        draft(args, sources)
    for method in EXTRA:
        if args.only in (None, method):
            heads(args, sources, method)
    if args.only in (None, "cllm"):
        cllm(args, sources)


if __name__ == "__main__":
    main()
