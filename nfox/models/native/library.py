"""The native library: compiled once by the machine's own C++ compiler, then kept.

It is compiled for the very processor that it will run on, which no package of Python can be; that
takes a few seconds. What is kept is named by all that it depends on: another source, compiler or
processor makes another file.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock

from nfox.models.native.processor import flags_line

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent  # of the sources
# C++20 by the name that GCC knows from version 9 on, and that libraries without its waits take too.
_FLAGS = ("-O3", "-march=native", "-std=c++2a", "-fopenmp", "-fPIC")
_COMPILERS = ("c++", "g++", "clang++")
_TIME_LIMIT = 120.0  # seconds of compilation


class NativeLibraryError(Exception):
    """Why there is no native forward."""


def native_library() -> ctypes.CDLL:
    """Return the native library, which is compiled if it is not yet there.

    Raises:
        NativeLibraryError: if there is no compiler, or if it fails; tried once in a process.
    """
    found = _library_or_error()
    if isinstance(found, NativeLibraryError):
        raise found.with_traceback(None)  # it is raised again and again
    return found


def thread_count() -> int:
    """Return by how many threads the library computes: as many as torch has; one in a process that
    was forked after the library was loaded, where OpenMP would wait for threads that did not come
    along.
    """
    return torch.get_num_threads() if os.getpid() == _first_process() else 1


@lru_cache(maxsize=1)
def _first_process() -> int:
    """Return the id of the process that called this first, also in those that it forked later."""
    return os.getpid()


@lru_cache(maxsize=1)
def _library_or_error() -> ctypes.CDLL | NativeLibraryError:
    _first_process()
    try:
        return _made_library()
    except NativeLibraryError as error:
        return error


def _made_library() -> ctypes.CDLL:
    compiler = _compiler()
    try:
        path = _path(compiler)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_suffix(".lock")):  # several processes need it at once
            library = _loaded(path)
            if library is None:
                _compile(compiler, path)
                library = _loaded(path)
    except OSError as error:
        raise NativeLibraryError(f"{error.filename} cannot be used: {error.strerror}") from error
    if library is None:
        raise NativeLibraryError(f"what {compiler} compiled cannot be loaded")
    return library


def must_compile() -> bool:
    """Return whether the native library will be compiled when it is first used."""
    if _library_or_error.cache_info().currsize:  # it was, or cannot be
        return False
    try:
        return not _path(_compiler()).exists()
    except (NativeLibraryError, OSError):
        return False


def compiler_version() -> str:
    """Return the first line that the C++ compiler says of itself.

    Raises:
        NativeLibraryError: if there is none.
    """
    return _version_of(_compiler()).partition("\n")[0]


def _version_of(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, check=False)
    return done.stdout.decode(errors="replace")


def _loaded(path: Path) -> ctypes.CDLL | None:
    """Return the library in a file; None if there is none, or not all of it."""
    try:
        # To load a library that was cut, by a full disk, would end the process.
        if _checksum(path) != path.with_suffix(".sha256").read_text(encoding="utf-8"):
            return None
        return ctypes.CDLL(str(path))
    except (OSError, UnicodeDecodeError) as error:
        log.debug("compiled again: %s", error)
        return None


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compiler() -> str:
    names = [name for name in (os.environ.get("CXX"), *_COMPILERS) if name]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise NativeLibraryError("no C++ compiler")
    return found


def _path(compiler: str) -> Path:
    """Return the file of the compiled library."""
    folder = Path(platformdirs.user_cache_dir("nfox", appauthor=False))
    return folder / f"decoder-{_fingerprint(compiler)}.so"


def _fingerprint(compiler: str) -> str:
    """Return a short hash of all that the compiled library depends on."""
    sources = [file.read_bytes() for file in sorted(_FOLDER.glob("*.[hc]*"))]
    processor = platform.processor() + platform.machine() + flags_line()
    parts = [
        *sources,
        _version_of(compiler).encode(),
        processor.encode(),
        " ".join(_FLAGS).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    """Compile the library into a file that is complete or not there, its sources side by side."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, ThreadPoolExecutor() as threads:
        part = Path(folder) / path.name
        sources = sorted(_FOLDER.glob("*.cpp"))
        objects = [part.with_name(f"{source.stem}.o") for source in sources]

        def compile_one(source: Path, compiled: Path) -> None:
            _run(compiler, "-c", str(source), "-o", str(compiled))

        list(threads.map(compile_one, sources, objects))
        _run(compiler, "-shared", *map(str, objects), "-o", str(part))
        path.with_suffix(".sha256").write_text(_checksum(part), encoding="utf-8")
        part.replace(path)


def _run(compiler: str, *arguments: str) -> None:
    """Run the compiler.

    Raises:
        NativeLibraryError: if it fails or takes too long.
    """
    command = [compiler, *_FLAGS, *arguments]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=_TIME_LIMIT)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        why = lines[0] if lines else f"exit code {error.returncode}"
        raise NativeLibraryError(f"{compiler} failed: {why}") from error
    except subprocess.TimeoutExpired as error:
        raise NativeLibraryError(f"{compiler} took over {_TIME_LIMIT:.0f} seconds") from error
