"""The program's own streams: there from the start, and whole in the end.

A stream may be closed, its disk full, or nobody may read it: that is one line, never a traceback.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import IO

from typing_extensions import override


class _Output(io.TextIOWrapper):
    """A stream that remembers why it took no more, since an error does not say whose it is."""

    refusal: OSError | None = None

    @override
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.refusal = error
            raise

    @override
    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.refusal = error
            raise


def prepare() -> None:
    """Open a stream that the program was started without, so that there is nothing to read in it,
    and what is written to it is lost; else a file that is opened later would take its number, and
    get what libraries print. What an encoding lacks is written as "?".
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            setattr(sys, name, open(nothing, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for name in ("stdout", "stderr"):
        stream: io.TextIOWrapper = getattr(sys, name)
        encoding, lines, at_once = stream.encoding, stream.line_buffering, stream.write_through
        bytes_alone = stream.detach()
        output = _Output(
            bytes_alone, encoding, "replace", line_buffering=lines, write_through=at_once
        )
        setattr(sys, name, output)
        setattr(sys, f"__{name}__", output)


def finish() -> OSError | None:
    """Write what waits to be written; return why stdout took no more, now or before.

    What takes no more leads nowhere from then on, or Python would complain of it once more at exit.
    """
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError:
            lead_nowhere(stream)
        except ValueError:  # a library has closed it
            continue
    return getattr(sys.stdout, "refusal", None)


def forget_hung_up() -> None:
    """Let streams of a terminal that is gone lead nowhere: what else there is to do must not fail
    at a farewell.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # closed, or no file
            number = stream.fileno()
            try:
                os.write(number, b"")
            except OSError:
                lead_nowhere(stream)


def lead_nowhere(stream: IO[str]) -> None:
    """Let a stream take all that is written to it, and lose it."""
    with suppress(OSError, ValueError, RuntimeError):  # the last in the middle of another write
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
        stream.flush()
