"""A training from beginning to end: model, data, heads, trainer, and the folder it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from nfox import checkpoint
from nfox.loading import LoadedModel
from nfox.templates import resolve
from nfox.train.base import ADAPTER, WHOLE
from nfox.train.callbacks import Estimate, Stop
from nfox.train.data import read
from nfox.train.joint_learner import JointLearner
from nfox.train.learner import Learner
from nfox.train.measure import Measured
from nfox.train.record import SAMPLE, Job, about
from nfox.train.rehearsal import rehearse
from nfox.train.resume import checkpoints, finished, full_disk_said, resume_point
from nfox.train.rows import Rows
from nfox.train.start import check_sizes, heads_class, load_base, make_heads, make_learner
from nfox.train.trainer import HeadsTrainer, size


@dataclass(frozen=True)
class Done:
    """What came of it.

    Args:
        folder: of the heads, or of the checkpoint if it was stopped.
        stopped: before the end.
        model: that the heads are for, with the adapter.
        adapter: of that model, if one was trained.
        measured: at the end; None if it was stopped.
    """

    folder: Path
    stopped: bool
    model: str
    adapter: Path | None = None
    measured: Measured | None = None


def train(
    job: Job,
    args: Any,
    *,
    tell: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
    callbacks: Sequence[TrainerCallback] = (),
) -> Done:
    """Train heads and write them to `args.output_dir`.

    Args:
        job: what.
        args: transformers' `TrainingArguments`.
        tell: takes lines for the person.
        stop: asked after every step; True ends the training with a checkpoint.
        callbacks: told of everything that happens.

    Raises:
        NfoxError: if anything is missing or does not fit, or the disk is full.
    """
    made, folder = heads_class(job.method), Path(args.output_dir)
    point = resume_point(args.resume_from_checkpoint, folder)
    check_sizes(made, job)
    loaded = load_base(job)
    rows, eval_rows = _rows(job, loaded, tell)
    set_seed(args.seed)
    heads = make_heads(made, job, loaded.target)
    learner = make_learner(job, heads, loaded.target)
    stopping, estimate = Stop(stop), Estimate(tell)
    beside = [estimate, stopping, *callbacks]
    trainer = HeadsTrainer(learner, args, rows, eval_rows, beside)
    stopping.agreed = trainer.agreed
    if not trainer.is_deepspeed_enabled:  # which may hold parts of weights only
        # Asked for late: --auto_find_batch_size tries smaller batches.
        estimate.rehearse = lambda: rehearse(learner, rows, trainer._train_batch_size)
    _announce(job, args, learner, rows, point, tell)
    with full_disk_said(folder):
        seconds = _run(trainer, point)
        if stopping.stopped:
            return Done(folder / f"checkpoint-{trainer.state.global_step}", True, job.model)
        measured = _finish(job, trainer, loaded.tokenizer, seconds)
    model = str(folder / WHOLE) if job.joint.base == "whole" else job.model
    adapter = folder / ADAPTER if job.joint.base == "lora" else None
    return Done(folder, False, model, adapter, measured)


def _run(trainer: HeadsTrainer, point: Path | None) -> float:
    """Train, from a checkpoint on if there is one; return the seconds."""
    if point and finished(point, trainer.args.max_steps, trainer.args.num_train_epochs):
        trainer.restore(point)
        return 0.0
    result = trainer.train(resume_from_checkpoint=str(point) if point else None)
    return float(result.metrics["train_runtime"])


def _finish(job: Job, trainer: HeadsTrainer, tokenizer: Any, seconds: float) -> Measured:
    """Measure the heads and write them, and what was trained of the base."""
    rows: Any = trainer.train_dataset
    sample = torch.utils.data.Subset(rows, range(min(len(rows), SAMPLE)))
    measured = trainer.measure(trainer.eval_dataset or sample)
    what, weights = about(job, trainer, measured, seconds), trainer.weights()
    if trainer.is_world_process_zero():
        folder, learner = Path(trainer.args.output_dir), trainer.learner
        if isinstance(learner, JointLearner):
            learner.trained.write(folder, tokenizer, learner.dtype)
        checkpoint.write(folder, what, weights)
    return measured


def _rows(job: Job, loaded: LoadedModel, tell: Callable[[str], None]) -> tuple[Rows, Rows | None]:
    """Read and tokenise the data, those to measure on at once."""
    template = resolve(loaded.tokenizer, job.template, model_name=job.model)
    length = min(job.max_length, loaded.target.max_context)

    def made(source: str, lazy: bool) -> Rows:
        found = read(source, job.loading.cache_dir)
        rows = Rows(found.kept, template, loaded.tokenizer, length, lazy=lazy)
        left = f", {rows.left_out} without a reply in {length} tokens" if rows.left_out else ""
        tell(f"{source}: {found.describe()}{left}")
        return rows

    return made(job.data, job.lazy), made(job.eval_data, False) if job.eval_data else None


def _announce(
    job: Job,
    args: Any,
    learner: Learner,
    rows: Rows,
    point: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Say what will be done, before it is."""
    count, megabytes = size(learner)
    tokens = "not counted (lazy)" if rows.tokens is None else f"{rows.tokens:,}"
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = args.max_steps if args.max_steps > 0 else args.num_train_epochs * len(rows) / batch
    tell(
        f"{job.method} heads: {count:,} parameters ({megabytes:.1f} MB on disk); {len(rows):,} "
        f"examples, tokens {tokens}; about {steps:,.0f} steps of {batch} examples"
    )
    if isinstance(learner, JointLearner):
        also = sum(weight.numel() for weight in learner.trained.weights)
        how = "whole" if job.joint.base == "whole" else f"by LoRA of rank {job.joint.rank}"
        tell(f"the base is trained with them, {how}: {also:,} parameters")
    if learner.heads.learns_choices and not job.own_labels:
        tell("the paper learns the base's own choices, which is --labels target; here: the data's")
    kept = checkpoints(Path(args.output_dir))
    if point:
        tell(f"goes on from {point}")
    elif kept:
        tell(f"begins anew; --resume_from_checkpoint true would go on from {kept[-1]}")
