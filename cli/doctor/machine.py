"""The machine: its processor, memory and GPUs, and what the native forward needs of it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.filesize import decimal

from nfox.counting import counted
from nfox.models.native.library import NativeLibraryError, compiler_version, native_library
from nfox.models.native.processor import BUSY, processor_flags, processor_name

from .findings import Advice, Finding
from .subject import Subject

if TYPE_CHECKING:
    import torch

_SECTION = "machine"
_USED_FLAGS = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "asimd", "bf16")
"""What the native forward uses where it is there, by the names that Linux gives them."""
_INSTALLERS = {
    "apt-get": "sudo apt-get install g++",
    "dnf": "sudo dnf install gcc-c++",
    "pacman": "sudo pacman -S gcc",
    "zypper": "sudo zypper install gcc-c++",
    "apk": "sudo apk add g++",
    "xcode-select": "xcode-select --install",
}
"""The commands that install a C++ compiler, by the programs that they take."""
_NVIDIA = Path("/proc/driver/nvidia/version")
_CGROUP = Path("/sys/fs/cgroup")


def of_processor(threads: int, subject: Subject) -> Iterator[Finding]:
    """Yield findings about the processor and the memory.

    Args:
        threads: that torch is to use.
        subject: what the commands are about.
    """
    cores, logical = usable_cores(), os.cpu_count() or 1
    shared = f", of {logical} logical ones" if logical != cores else ""
    words = (
        f"{processor_name()}, {counted(cores, 'core')}{shared}; {counted(threads, 'thread')} in use"
    )
    facts = {"processor": processor_name(), "cores": cores, "threads": threads}
    if (quota := _quota()) is not None and quota < threads:
        command = subject.command("doctor", threads=max(int(quota), 1))
        advice = Advice("no more threads than this container has time for", command)
        words += f"; this container has the time of {quota:.1f}"
        yield Finding(_SECTION, "processor", words, "warn", advice, facts)
    else:
        yield Finding(_SECTION, "processor", words, facts=facts)
    load = psutil.getloadavg()[0]
    words, facts = f"{load:.1f} on {counted(cores, 'core')}", {"load": round(load, 2)}
    if load > BUSY * cores:
        words += ": other programs run, and what is measured below is slower for it"
        yield Finding(_SECTION, "load", words, "warn", facts=facts)
    else:
        yield Finding(_SECTION, "load", words, facts=facts)
    memory = psutil.virtual_memory()
    words = f"{decimal(memory.available)} of {decimal(memory.total)} are free"
    facts = {"free_bytes": memory.available, "total_bytes": memory.total}
    limit = _number(_CGROUP / "memory.max")
    if limit is not None and limit < memory.total:
        words += f"; this container ends where it takes more than {decimal(int(limit))}"
        yield Finding(_SECTION, "memory", words, "warn", facts=facts | {"limit_bytes": int(limit)})
    else:
        yield Finding(_SECTION, "memory", words, facts=facts)


def is_busy(finding: Finding) -> bool:
    """Return whether a finding says that other programs keep the machine busy."""
    return (finding.section, finding.name, finding.mark) == (_SECTION, "load", "warn")


def usable_cores() -> int:
    """Return how many physical cores this process may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(psutil.cpu_count(logical=False) or 1, allowed or 1)


def of_forwards(device: torch.device) -> Iterator[Finding]:
    """Yield findings about what forwards on the CPU take: instructions, and a compiler.

    Args:
        device: the one that models run on.
    """
    from nfox.models.devices import BFLOAT16_FLAGS, choose_dtype

    flags = processor_flags()
    used = [name for name in _USED_FLAGS if name in flags]
    words, facts = " ".join(used) or "not known on this system", {"instructions": used}
    if device.type != "cpu":
        yield Finding(_SECTION, "compiler", "not needed: models run on the GPU")
        return
    if flags and not flags & BFLOAT16_FLAGS:
        words += "; no arithmetic in bfloat16, so that models that the native forward does not run "
        words += "are loaded in float32"
        yield Finding(_SECTION, "instructions", words, facts=facts)
    else:
        dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
        words += f"; models are loaded in {dtype}"
        yield Finding(_SECTION, "instructions", words, facts=facts)
    yield _compiler()


def _compiler() -> Finding:
    """Return whether there is the native library, which is compiled if it is not there yet."""
    version, facts = "", {"native": False}
    try:
        version = compiler_version()
        native_library()
    except NativeLibraryError as error:
        words = f"{error}; forwards run by torch's operators, which is slower"
        if version:  # it is there, and does not do
            return Finding(_SECTION, "compiler", words, "wrong", facts=facts)
        command = next((text for tool, text in _INSTALLERS.items() if shutil.which(tool)), "")
        advice = Advice("a C++ compiler such as g++, for the native forward", command)
        return Finding(_SECTION, "compiler", words, "warn", advice, facts)
    words = f"{version}; the native forward is compiled for this processor"
    return Finding(_SECTION, "compiler", words, facts={"native": True, "compiler": version})


def of_gpus() -> Iterator[Finding]:
    """Yield findings about the GPUs, each of which has to compute something."""
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _gpu(index)
    if torch.cuda.is_available():
        return
    if torch.backends.mps.is_available():
        yield Finding(_SECTION, "gpu", f"Apple's, by mps ({platform.machine()})")
    elif not _NVIDIA.exists():
        yield Finding(_SECTION, "gpu", "none: models run on the CPU")
    elif torch.version.cuda is None:
        words = f"one of NVIDIA is here, and torch {torch.__version__} was built without CUDA"
        advice = Advice("torch with CUDA", "pip install --force-reinstall torch")
        yield Finding(_SECTION, "gpu", words, "wrong", advice)
    else:
        words = f"one of NVIDIA is here, and torch cannot use it: {_why_no_gpu()}"
        advice = Advice(f"a driver for CUDA {torch.version.cuda}", "nvidia-smi  # says which it is")
        yield Finding(_SECTION, "gpu", words, "wrong", advice)


def _gpu(index: int) -> Finding:
    import torch

    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    try:
        square = torch.ones(16, 16, device=f"cuda:{index}")
        float((square @ square).sum())
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        words = f"{name} does not compute: {str(error).splitlines()[0]}"
        advice = Advice(f"torch for compute capability {capability}", "pip install -U torch")
        return Finding(_SECTION, f"gpu {index}", words, "wrong", advice)
    dtypes = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    words = f"{name}, {decimal(free)} of {decimal(total)} are free, computes in {dtypes}"
    facts = {"gpu": name, "capability": capability, "free_bytes": free, "total_bytes": total}
    return Finding(_SECTION, f"gpu {index}", words, facts=facts)


def _why_no_gpu() -> str:
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return "it finds no device"


def _quota() -> float | None:
    """Return how many cores' time the container may take; None where it may take all."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # no container, or "max"
        return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
