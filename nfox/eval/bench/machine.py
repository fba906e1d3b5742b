"""What a benchmark ran on: without it, figures of two machines cannot be compared."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

import nfox
from nfox.engine import Engine
from nfox.eval.bench.result import Machine
from nfox.models.native.processor import processor_name
from nfox.version import __version__

_PACKAGES = ("torch", "transformers", "bitsandbytes", "peft", "llama-cpp-python")


def this_machine(engine: Engine, command: str) -> Machine:
    """Return the machine, the versions, the model's dtype, its costs, and the command.

    Args:
        engine: with the model.
        command: that was typed.
    """
    target = engine.model.target
    gpu = target.device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(target.device) if gpu else processor_name(),
        cores=psutil.cpu_count(logical=False),
        threads=torch.get_num_threads(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.machine()}",
        dtype=engine.summary().dtype,
        costs=str(engine.costs) if engine.costs else None,
        nfox=__version__,
        commit=_commit(),
        python=sys.version.split()[0],
        versions={name: installed for name in _PACKAGES if (installed := _version(name))},
        command=command,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree that this runs from, if it is one."""
    folder = Path(nfox.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip()
