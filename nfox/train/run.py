"""A training from beginning to end, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, set_seed

from nfox.train.callbacks import Estimate, Stop
from nfox.train.checkpoints import checkpoints, finished, resume_point, training_disk_full
from nfox.train.dry_run import rehearse
from nfox.train.job import Done, Job, Tell
from nfox.train.sharding import check_spread, refuse_spread_base, refuse_spread_model
from nfox.train.trainer import LearnerTrainer


def train(
    job: Job,
    args: Any,
    *,
    tell: Tell = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
    callbacks: Sequence[TrainerCallback] = (),
) -> Done:
    """Train and write what came of it to `args.output_dir`.

    Args:
        job: what.
        args: transformers' `TrainingArguments`.
        tell: takes lines for the person.
        stop: asked after every step; True ends the training with a checkpoint.
        callbacks: told of everything that happens.

    Raises:
        NfoxError: if anything is missing or does not fit, or the disk is full.
    """
    folder = Path(args.output_dir)
    point = resume_point(args.resume_from_checkpoint, folder)
    job.check()
    refuse_spread_base()
    loaded = job.load()
    rows: Any = job.rows(job.data, loaded, tell, lazy=job.lazy)
    eval_rows = job.rows(job.eval_data, loaded, tell, lazy=False) if job.eval_data else None
    set_seed(args.seed)
    learner = job.learner(loaded)
    refuse_spread_model(learner, args)
    stopping, estimate = Stop(stop), Estimate(tell)
    trainer = LearnerTrainer(learner, args, rows, eval_rows, [estimate, stopping, *callbacks])
    check_spread(trainer)
    stopping.agreed = trainer.agreed
    if not trainer.is_deepspeed_enabled:  # which may hold parts of weights only
        # Asked for late: --auto_find_batch_size tries smaller batches.
        estimate.rehearse = lambda: rehearse(learner, rows, trainer._train_batch_size)
    _announce(job.describe(learner), args, rows, point, tell)
    with training_disk_full(folder):
        seconds = _run(trainer, point)
        if stopping.stopped:
            return Done(folder / f"checkpoint-{trainer.state.global_step}", True, job.model)
        done = job.finish(trainer, loaded, seconds)
    trainer.accelerator.wait_for_everyone()  # whoever leaves early may end those who still write
    return done


def _run(trainer: LearnerTrainer, point: Path | None) -> float:
    """Train, from a checkpoint on if there is one; return the seconds."""
    if point and finished(point, trainer.args.max_steps, trainer.args.num_train_epochs):
        trainer.restore(point)
        return 0.0
    result = trainer.train(resume_from_checkpoint=str(point) if point else None)
    return float(result.metrics["train_runtime"])


def _announce(lines: Iterable[str], args: Any, rows: Any, point: Path | None, tell: Tell) -> None:
    """Say what will be done, before it is."""
    what, *more = lines
    tokens = "not counted (lazy)" if rows.tokens is None else f"{rows.tokens:,}"
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = args.max_steps if args.max_steps > 0 else args.num_train_epochs * len(rows) / batch
    tell(
        f"{what}; {len(rows):,} examples, tokens {tokens}; about {steps:,.0f} steps of {batch} "
        "examples"
    )
    for line in more:
        tell(line)
    kept = checkpoints(Path(args.output_dir))
    if point:
        tell(f"goes on from {point}")
    elif kept:
        tell(f"begins anew; --resume_from_checkpoint true would go on from {kept[-1]}")
