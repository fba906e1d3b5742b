"""What a person sees instead of a traceback: what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class NfoxError(Exception):
    """An error with a message for the person at the terminal.

    Args:
        message: one line: what was expected and what came.
        hint: one line: what to do about it.
        code: the exit code of the command line (1 runtime, 2 usage, 3 model, template or weights
            not found or not fitting, 4 the prompt does not fit into the context).
    """

    code = 1

    def __init__(self, message: str, hint: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(NfoxError):
    """An option or argument that cannot be used as given (exit code 2)."""

    code = 2


class ModelError(NfoxError):
    """A model, template or weights file that is missing or does not fit (exit code 3)."""

    code = 3


class ContextError(NfoxError):
    """A prompt that is longer than the model's context (exit code 4)."""

    code = 4


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint that names what was perhaps meant by a word that is not known.

    Args:
        word: as it was typed.
        known: what could stand in its place.
        otherwise: the hint where nothing of these is near.
    """
    import difflib  # which only a mistake needs

    close = difflib.get_close_matches(word, list(known), cutoff=0.7)
    *others, last = close or [""]
    before = f"{', '.join(others)} or " if others else ""
    return f"did you mean {before}{last}?" if close else otherwise
