"""Run a training from its job to the folder that it writes, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, set_seed

from nfox.counting import counted
from nfox.models.options import LoadedModel
from nfox.train.callbacks import StopOnRequest, TimeEstimate
from nfox.train.checkpoints import checkpoints, is_finished, resume_point, training_disk_full
from nfox.train.dry_run import dry_run
from nfox.train.job import Job, Log, TrainingResult
from nfox.train.output_folder import check_output_folder
from nfox.train.sharding import check_fsdp, refuse_fsdp, refuse_zero3
from nfox.train.trainer import LearnerTrainer


def train(
    job: Job,
    args: Any,
    *,
    log: Log = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train, and write what was trained to `args.output_dir`.

    Args:
        job: what is trained, on which data.
        args: transformers' `TrainingArguments`.
        log: takes lines of text for the user.
        stop: is called after every step; True ends the training with a checkpoint.
        callbacks: callbacks of transformers' `Trainer`.

    Raises:
        NfoxError: if anything is missing or does not fit, or the disk is full.
    """
    folder = Path(args.output_dir)
    check_output_folder(folder, job.method)
    checkpoint = resume_point(args.resume_from_checkpoint, folder)
    job.check()
    refuse_zero3()
    loaded = job.load()
    stopping = StopOnRequest(stop)
    trainer = _make_trainer(job, args, loaded, log, [stopping, *callbacks])
    stopping.any_process = trainer.any_process
    _log_plan(job.describe(trainer.learner), args, trainer.train_dataset, checkpoint, log)
    with training_disk_full(folder):
        seconds = _run(trainer, checkpoint)
        if stopping.stopped:
            last = folder / f"checkpoint-{trainer.state.global_step}"
            return TrainingResult(last, True, job.model)
        result = job.finish(trainer, loaded, seconds)
    trainer.accelerator.wait_for_everyone()  # whoever leaves early may end those who still write
    return result


def _make_trainer(
    job: Job, args: Any, loaded: LoadedModel, log: Log, callbacks: Sequence[TrainerCallback]
) -> LearnerTrainer:
    """Read the data, make the learner, and return their trainer, which estimates its time first."""
    rows: Any = job.rows(job.data, loaded, log, lazy=job.lazy)
    eval_rows = job.rows(job.eval_data, loaded, log, lazy=False) if job.eval_data else None
    set_seed(args.seed)
    learner = job.learner(loaded)
    refuse_fsdp(learner, args)
    estimate = TimeEstimate(log)
    trainer = LearnerTrainer(learner, args, rows, eval_rows, [estimate, *callbacks])
    check_fsdp(trainer)
    if not trainer.is_deepspeed_enabled:  # which may hold shards of weights only
        # The batch size is read late: --auto_find_batch_size tries smaller ones.
        estimate.dry_run = lambda: dry_run(learner, rows, trainer._train_batch_size)
    return trainer


def _run(trainer: LearnerTrainer, checkpoint: Path | None) -> float:
    """Train, from a checkpoint on if there is one; return the seconds that it took."""
    args = trainer.args
    if checkpoint and is_finished(checkpoint, args.max_steps, args.num_train_epochs):
        trainer.restore(checkpoint)
        return 0.0
    output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return float(output.metrics["train_runtime"])


def _log_plan(
    lines: Iterable[str], args: Any, rows: Any, checkpoint: Path | None, log: Log
) -> None:
    """Log what will be trained on how much data, and whether it goes on from a checkpoint."""
    first, *others = lines
    tokens = "not counted (lazy)" if rows.tokens is None else f"{rows.tokens:,}"
    at_once = args.per_device_train_batch_size * args.world_size
    batch = at_once * args.gradient_accumulation_steps
    # As the Trainer counts: the last step of an epoch may have fewer examples.
    of_an_epoch = ceil(ceil(len(rows) / at_once) / args.gradient_accumulation_steps)
    steps = args.max_steps if args.max_steps > 0 else ceil(args.num_train_epochs * of_an_epoch)
    examples, of_each = counted(len(rows), "example"), counted(batch, "example")
    about = f"about {counted(steps, 'step')} of {of_each}"
    log(f"{first}; {examples}, tokens {tokens}; {about}")
    for line in others:
        log(line)
    available = checkpoints(Path(args.output_dir))
    if checkpoint:
        log(f"goes on from {checkpoint}")
    elif available:
        log(f"begins anew; --resume_from_checkpoint true would go on from {available[-1]}")
