"""`nfox train METHOD`: train heads, a model for Jacobi decoding, or a draft model, by the flags of
the published training scripts.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ..errors import INTERRUPTED, error_boundary
from ..facts import command_line
from ..help import HELP_NAMES, asks_for_everything
from ..options.completion import trained
from ..printing import say, tell
from .help import check_name

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from nfox.train.job import Job, TrainingResult


def train(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(help="Whose heads; or cllm, or draft.", autocompletion=trained)
    ] = "",
) -> None:
    """Train heads, the model itself for Jacobi decoding, or a draft model.

    nfox train METHOD [CONFIG.yaml] [--name value ...]

    METHOD is one with heads; cllm makes the model itself fast for Jacobi decoding, from
    trajectories (nfox data trajectories); draft distils a draft model for it.
    --model_name_or_path (or --model) and --output_dir are needed. Without --data_path the model
    has conversations with itself first (nfox data synthesise); --eval_data_path measures on other
    data. A YAML or JSON file may hold the same names.

    `nfox train METHOD --help` lists the settings of nfox and of the method, `--help all` those of
    transformers' TrainingArguments too. Several processes: torchrun --nproc_per_node=N -m nfox.cli
    train ...
    """
    if method in ("", *HELP_NAMES):
        typer.echo(context.get_help())
        return
    words = [word for word in context.args if word != "--debug"]
    with error_boundary(debug=len(words) < len(context.args)):
        run(method, words)


def run(method: str, words: Sequence[str]) -> None:
    """Train as the arguments of the command say.

    Args:
        method: the name after `nfox train`.
        words: the words after it.

    Raises:
        NfoxError: if something is missing or wrong.
        typer.Exit: with 130, if the training was stopped.
    """
    if set(words) & set(HELP_NAMES):
        show_settings(method, everything=asks_for_everything(words))
        return
    check_name(method)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from nfox.files.progress import quiet

    quiet()  # before bitsandbytes is imported: it warns while it is
    from .arguments import kind, parse

    command = command_line(["train", method, *words])
    job, args, notes = parse(method, words, command)
    result = _train(job, args, notes, command)
    if args.process_index == 0 and not result.stopped:
        say(*kind(method).report(job, result))

    import torch

    if torch.distributed.is_initialized():
        _exit_process(INTERRUPTED if result.stopped else 0)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)


def show_settings(method: str, *, everything: bool) -> None:
    """Print the help of a method's training.

    Args:
        method: the name after `nfox train`.
        everything: whether it has all settings of transformers' `TrainingArguments`.

    Raises:
        UsageError: if there is no such method, or it has nothing to train.
    """
    from .help import help_lines, listed

    groups = None if everything else listed(method)
    if groups is None:
        from .arguments import help_rows

        groups = help_rows(method, everything=everything)
    typer.echo("\n".join(help_lines(method, groups, everything=everything)))


def _train(job: Job, args: TrainingArguments, notes: Sequence[str], command: str) -> TrainingResult:
    """Train under a display that Ctrl-C stops, and return the result.

    Args:
        job: what is trained.
        args: transformers' settings.
        notes: lines to display first.
        command: the command line, which is displayed with the flag that resumes a stopped training.
    """
    from nfox.train.run import train as run_training

    from .arguments import kind
    from .display import Display
    from .interrupt import Interrupt
    from .own_data import with_own_data

    job = with_own_data(job, kind(job.method), args, lambda line: tell(f"nfox: {line}"))
    with Display(args.process_index == 0) as display, Interrupt(display.log) as interrupt:
        for note in notes:
            display.log(note)
        callbacks = [display, interrupt]
        stop = interrupt.requested
        result = run_training(job, args, log=display.log, stop=stop, callbacks=callbacks)
    if result.stopped:
        for line in _how_to_go_on(result.folder, command, args.world_size):
            display.log(line)
    return result


def _how_to_go_on(folder: Path, command: str, processes: int) -> Iterator[str]:
    """Yield lines that say how a training that was stopped is gone on with.

    Args:
        folder: the checkpoint.
        command: the command line.
        processes: how many there are; the command of their launcher is not known here.
    """
    resume = "--resume_from_checkpoint true"
    if processes == 1:
        yield f"stopped; {folder} is written. Go on with:"
        yield f"  {command} {resume}"
        return
    yield f"stopped; {folder} is written. Go on by the launcher of these {processes} processes:"
    yield f"  the same command with {resume} at its end"


def _exit_process(code: int) -> NoReturn:
    """End one of several processes without running the destructors of C++.

    In these, remaining threads of torch abort the process now and then, which torchrun takes for a
    failure of all processes.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
