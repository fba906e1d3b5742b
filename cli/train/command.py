"""`nfox train METHOD`: heads, a model for Jacobi decoding, or a draft model, by the flags of the
published training scripts.
"""

from __future__ import annotations

import atexit
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from ..errors import INTERRUPTED, error_boundary

_HELP = ("-h", "--help")


def train(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="Whose heads; or cllm, or draft.")] = "",
) -> None:
    """Train: nfox train METHOD [CONFIG.yaml] [--name value ...].

    METHOD is one with heads; cllm makes the model itself fast for Jacobi decoding, from
    trajectories (nfox data trajectories); draft distils a draft model for it.
    --model_name_or_path, --data_path and --output_dir are needed; --eval_data_path measures on
    other data. `nfox train METHOD --help` lists all settings: those of nfox, of the method
    (--METHOD_num_heads), and all of transformers' TrainingArguments. A YAML or JSON file may hold
    the same names. Several processes: torchrun --nproc_per_node=N -m nfox.cli train ...
    """
    if method in ("", *_HELP):
        print(context.get_help())
        return
    given = [argument for argument in context.args if argument != "--debug"]
    with error_boundary(debug=len(given) < len(context.args)):
        run(method, given)


def run(method: str, given: Sequence[str]) -> None:
    """Train as the arguments say.

    Raises:
        NfoxError: if something is missing or wrong.
        typer.Exit: with 130, if it was stopped.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from nfox.files.progress import quiet

    quiet()  # before bitsandbytes is imported: it warns while it is
    from .arguments import help_text, kind, parse

    if set(given) & set(_HELP):
        print(help_text(method))
        return
    command = shlex.join(["nfox", "train", method, *given])
    job, args, notes = parse(method, given, command)
    first = args.process_index == 0

    import torch

    from nfox.train.run import train as begin

    from .display import Display
    from .interrupt import Interrupt

    with Display(first) as display, Interrupt(display.tell) as keys:
        for note in notes:
            display.tell(note)
        beside = [display, keys]
        done = begin(job, args, tell=display.tell, stop=keys.pressed, callbacks=beside)
    if done.stopped:
        display.tell(f"stopped; {done.folder} is written. Go on with:")
        display.tell(f"  {command} --resume_from_checkpoint true")
    for line in kind(method).report(job, done) if first and not done.stopped else ():
        print(line)
    if torch.distributed.is_initialized():
        _leave(INTERRUPTED if done.stopped else 0)
    if done.stopped:
        raise typer.Exit(INTERRUPTED)


def _leave(code: int) -> NoReturn:
    """End one of several processes, without the destructors of C++: in these, threads of torch's
    that are still there abort it now and then, which torchrun takes for a failure of all.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
