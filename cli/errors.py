"""How a command ends: with its result, or with one line on stderr that says what went wrong.

Exit codes: 0 done, 1 runtime error, or something that `nfox doctor` found wrong, 2 usage, 3 model,
template or weights not found or not fitting, 4 the prompt does not fit into the context (of several
prompts, each that was not answered), 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import typer

from nfox.errors import NfoxError

from .ending import ending_well
from .printing import tell, traceback_lines
from .streams import finish, lead_nowhere

INTERRUPTED = 130
BROKEN_PIPE = 141
_debugging: ContextVar[bool] = ContextVar("debugging", default=False)


def print_error(message: str, hint: str = "") -> None:
    """Print an error, and a hint what to do about it, to stderr."""
    with suppress(OSError):  # where stderr takes nothing, the exit code has to do
        tell(f"nfox: error: {message}", *([f"hint: {hint}"] if hint else []))


def print_traceback(error: Exception) -> None:
    """Print the traceback of an error to stderr."""
    with suppress(OSError):
        tell(*traceback_lines(error), whole=True)


def report(error: Exception) -> None:
    """Print what went wrong in one line, after which the program goes on; with --debug, print the
    traceback.
    """
    if _debugging.get():
        print_traceback(error)
    elif isinstance(error, NfoxError):
        print_error(error.message, error.hint)
    else:
        print_error(in_one_line(error), "--debug shows the traceback")


def in_one_line(error: Exception) -> str:
    """Return the type and the message of an unexpected error in one line."""
    text, kind = str(error), type(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif len(error.args) == 2 and isinstance(error.args[0], int):  # as of termios: number and words
        text = str(error.args[1])
    text = " ".join(text.split())
    # Some modules call theirs `error`, which says nothing without the module's name.
    name = f"{kind.__module__}.{kind.__name__}" if kind.__name__.islower() else kind.__name__
    return f"{name}: {text[:300]}" if text else name


def output_failed(error: OSError) -> int:
    """Say that stdout takes no more; return the exit code for it."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    print_error(
        f"stdout: {error.strerror}",
        "what was not written is lost: send the output to another place",
    )
    return NfoxError.code


@contextmanager
def error_boundary(*, debug: bool) -> Iterator[None]:
    """Turn any error inside the `with` block into a line on stderr and an exit code.

    Args:
        debug: let errors through instead, so that their traceback is printed.

    Raises:
        typer.Exit: with the exit code of the error.
    """
    token = _debugging.set(debug)
    try:
        with ending_well():
            yield
    except BrokenPipeError:
        lead_nowhere(sys.stdout)
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and (refusal := finish()):
            raise typer.Exit(output_failed(refusal)) from None
        report(error)
        raise typer.Exit(error.code if isinstance(error, NfoxError) else 1) from None
    finally:
        _debugging.reset(token)
