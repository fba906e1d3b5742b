"""A command in two processes on this machine, and what a training logged."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import programs
import servers


def train(kind: str, *arguments: object, sharded: bool = False) -> str:
    """Run `nfox train KIND`; return what the first process said."""
    done = run("train", kind, *arguments, sharded=sharded)
    assert done.stdout.count("written to") == 1
    return done.stdout


def run(*arguments: object, sharded: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `nfox ARGUMENTS` to its end; return what both processes said."""
    with ExitStack() as stack:
        said, told = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        both = start(*arguments, sharded=sharded, stdout=said, stderr=told)
        codes = [process.wait(120) for process in both]
        for file in (said, told):
            file.seek(0)
        output = said.read(), told.read()
    assert codes == [0, 0], output[1][-2000:]
    return subprocess.CompletedProcess([*map(str, arguments)], 0, *output)


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `nfox ARGUMENTS` to its end by the real launcher, with its own imports."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    # Without the dashes the launcher takes --n for a beginning of options of its own.
    command = [sys.executable, "-m", *launcher, "-m", "nfox.cli", "--", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=programs.ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def start(*arguments: object, sharded: bool = False, **files: Any) -> list[programs.Program]:
    """Start `nfox ARGUMENTS` twice, as a launcher does.

    Args:
        arguments: of both.
        sharded: whether accelerate is made to take FSDP without GPUs, which it leaves out there
            in silence. torch itself shards on a CPU as well.
        files: of both.
    """
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(servers.free_port())}
    sizes = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    prepare = "two_processes:shard_on_cpus" if sharded else ""
    return [
        programs.start(
            *arguments,
            env=programs.ENVIRONMENT | place | sizes | {"RANK": rank, "LOCAL_RANK": rank},
            prepare=prepare,
            **files,
        )
        for rank in ("0", "1")
    ]


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
