"""A command in two processes on this machine, and what a training logged.

Run as a program, it is `nfox` with accelerate made to take FSDP without GPUs, which it leaves out
there in silence. torch itself shards on a CPU as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def train(kind: str, *arguments: object, sharded: bool = False) -> str:
    """Run `nfox train KIND`; return what the first process said."""
    done = run("train", kind, *arguments, sharded=sharded)
    assert done.stdout.count("written to") == 1
    return done.stdout


def run(*arguments: object, sharded: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `nfox ARGUMENTS` to its end; return what both processes said."""
    program = [__file__] if sharded else ["-m", "nfox.cli"]
    # Without the dashes the launcher takes --n for a beginning of options of its own.
    command = [*LAUNCH, *program, "--", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def losses(checkpoint: Path) -> dict[int, float]:
    """Return the loss of every logged step of a training, by its last checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


def shard_on_cpus() -> None:
    """Make accelerate do on CPUs what it does on GPUs when FSDP is asked for."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    begin = AcceleratorState.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        known = "distributed_type" in AcceleratorState._shared_state
        begin(self, *arguments, **options)
        plugin = options.get("fsdp_plugin")
        if plugin is not None and not known:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    shard_on_cpus()
    from nfox.cli import main

    main()
