"""What a server answers instead of a reply: OpenAI's error objects and their status codes."""

from __future__ import annotations

from typing import Any

from nfox.errors import ContextError, ModelError, NfoxError, UsageError

Body = dict[str, Any]


class Busy(NfoxError):
    """Too many are waiting; the same request may be answered later."""


class Late(NfoxError):
    """The time of a request passed before anything came of it."""


class OutOfMemory(NfoxError):
    """There is no memory for a request."""


class Stopping(NfoxError):
    """The server ends."""


class UnknownModel(UsageError):
    """A request names a model that is not served here."""


# What is wrong with a request, and what is wrong here.
_STATUS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (Busy, 429, "rate_limit_error", "queue_full"),
    (Late, 503, "server_error", "timeout"),
    (Stopping, 503, "server_error", "stopping"),
    (OutOfMemory, 503, "server_error", "out_of_memory"),
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (ContextError, 400, "invalid_request_error", "context_length_exceeded"),
    (UsageError, 400, "invalid_request_error", "invalid_value"),
    (ModelError, 503, "server_error", "model_error"),
    (NfoxError, 400, "invalid_request_error", "invalid_request"),
    (Exception, 500, "server_error", "internal_error"),
)


def describe(error: Exception) -> tuple[int, Body]:
    """Return the status code and the body for an error; of an unexpected one only that it was."""
    status, kind, code = next(row[1:] for row in _STATUS if isinstance(error, row[0]))
    said = "the server failed over this request; its log says how"
    if isinstance(error, NfoxError):
        said = f"{error.message} ({error.hint})" if error.hint else error.message
    return status, body(said, kind, code)


def body(message: str, kind: str = "invalid_request_error", code: str | None = None) -> Body:
    """Return an error object.

    Args:
        message: one line for the person.
        kind: OpenAI's `type`.
        code: for programs.
    """
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
