"""How a command ends: with its result, or with one line on stderr that says what went wrong.

Exit codes: 0 done, 1 runtime error, 2 usage, 3 model, template or weights not found or not fitting,
4 the prompt does not fit into the context, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from nfox.errors import NfoxError

INTERRUPTED = 130
BROKEN_PIPE = 141


def print_error(message: str, hint: str = "") -> None:
    """Print an error, and a hint what to do about it, to stderr."""
    print(f"nfox: error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """Return the type and the message of an unexpected error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


@contextmanager
def error_boundary(*, debug: bool) -> Iterator[None]:
    """Turn any error inside the `with` block into a line on stderr and an exit code.

    Args:
        debug: let errors through instead, so that Python prints the traceback.

    Raises:
        typer.Exit: with the exit code of the error.
    """
    try:
        yield
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except NfoxError as error:
        if debug:
            raise
        print_error(error.message, error.hint)
        raise typer.Exit(error.code) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        print_error(_one_line(error), "--debug shows the traceback")
        raise typer.Exit(1) from None
