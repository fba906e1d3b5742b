"""Training data made by the base itself, where none are named: its conversations with itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nfox.errors import ModelError
from nfox.files.atomic import write_text
from nfox.files.jsonl import WorkShare
from nfox.models.decoding_model import load_to_decode
from nfox.models.options import LoadProgress
from nfox.text.resolve import resolve
from nfox.train.job import Job, full_name
from nfox.train.output_folder import check_output_folder

from ..data.own_conversations import check_own, write_own
from .kinds import TrainingKind

FILE = "own.jsonl"
"""The name of the file of conversations in the output folder."""

_HELD_OUT = 50
"""Of so many conversations one is measured on."""


def with_own_data(job: Job, kind: TrainingKind, args: Any, log: Callable[[str], None]) -> Job:
    """Return a job with data: it lets its model write them, where it has none.

    What an earlier run of the same command wrote is gone on with.

    Args:
        job: the job.
        kind: its kind, which makes what it learns from of the conversations.
        args: transformers' `TrainingArguments`.
        log: takes a line of text for the user.

    Raises:
        NfoxError: if the model asks or answers nothing, or cannot be loaded.
    """
    if job.data:
        return job
    out = Path(args.output_dir, FILE)
    check_output_folder(out.parent, job.method)
    job.check()
    as_in_chat = replace(job.loading, dtype="auto")  # what is fast to decode in, on a CPU
    loading = as_in_chat if args.device.type == "cpu" else job.loading
    facts = _facts(job)
    check_own(out, job.synthesis, facts)
    share = WorkShare(args.process_index, args.world_size)
    loaded = load_to_decode(job.model, loading, LoadProgress(stage=log))
    if loaded.tokenizer is None:
        raise ModelError(f"{job.model} has no tokenizer", "copy its files into the folder")
    template = resolve(loaded.tokenizer, job.template, model_name=job.model)
    out.parent.mkdir(parents=True, exist_ok=True)
    if forecast := kind.forecast(job):
        log(forecast)
    write_own(out, job.synthesis, loaded, template, {**facts, "command": job.command}, share)
    data = kind.data_of(job, out, loaded, template, share)
    _wait_for_all()  # nobody reads before all have written
    if args.process_index == 0:
        _split(data)
    _wait_for_all()
    learned, held_out = (str(file) for file in _parts(data))
    measured = job.eval_data or (held_out if Path(held_out).stat().st_size else None)
    return replace(job, data=learned, eval_data=measured)


def _facts(job: Job) -> dict[str, Any]:
    """Return what the conversations of a job's model depend on, to go on with them."""
    quantisation = job.loading.quantisation
    return {"model": full_name(job.model), "template": job.template, "quantisation": quantisation}


def _parts(data: Path) -> tuple[Path, Path]:
    """Return the files of the lines to learn from and of those to measure on."""
    return data.with_stem(f"{data.stem}-learned"), data.with_stem(f"{data.stem}-held-out")


def _split(data: Path) -> None:
    """Hold every so many lines of a file out, to measure on what was not learned."""
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    for part, held_out in zip(_parts(data), (False, True), strict=True):
        chosen = [line for i, line in enumerate(lines, 1) if (i % _HELD_OUT == 0) is held_out]
        write_text(part, "".join(chosen))


def _wait_for_all() -> None:
    """Wait until all processes of this training are here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
