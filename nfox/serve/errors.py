"""What a server answers instead of a reply: OpenAI's error objects and their status codes."""

from __future__ import annotations

from typing import Any

from nfox.errors import ContextError, ModelError, NfoxError, UsageError

Json = dict[str, Any]


class QueueFull(NfoxError):
    """Too many requests are waiting; the same request may be answered later."""


class DeadlineExceeded(NfoxError):
    """The time that a request may take passed before its first token."""


class OutOfMemory(NfoxError):
    """The device has no memory left for a request."""


class ServerStopping(NfoxError):
    """The server is about to end: it answers nothing any more."""

    def __init__(self) -> None:
        super().__init__("the server is stopping", "ask again when it is back")


class WrongParameter(UsageError):
    """A field of a request has a value that cannot be used.

    Args:
        parameter: the name of the field.
        message: what is wrong with it.
        hint: what to do.
    """

    def __init__(self, parameter: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.parameter = parameter


class UnknownModel(WrongParameter):
    """A request names a model that is not served here."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__("model", message, hint)


# The kind of error, its HTTP status code, OpenAI's `type` and OpenAI's `code`. The first row that
# an error is an instance of counts.
_RESPONSES: tuple[tuple[type[Exception], int, str, str], ...] = (
    (QueueFull, 429, "rate_limit_error", "queue_full"),
    (DeadlineExceeded, 503, "server_error", "timeout"),
    (ServerStopping, 503, "server_error", "stopping"),
    (OutOfMemory, 503, "server_error", "out_of_memory"),
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (ContextError, 400, "invalid_request_error", "context_length_exceeded"),
    (UsageError, 400, "invalid_request_error", "invalid_value"),
    (ModelError, 503, "server_error", "model_error"),
    (NfoxError, 400, "invalid_request_error", "invalid_request"),
    (Exception, 500, "server_error", "internal_error"),
)


def error_response(error: Exception) -> tuple[int, Json]:
    """Return the HTTP status code and the body for an error.

    An unexpected error's message stays in the log: it may tell what clients should not know.
    """
    status, kind, code = next(row[1:] for row in _RESPONSES if isinstance(error, row[0]))
    message = "the server failed over this request; its log says how"
    if isinstance(error, NfoxError):
        message = f"{error.message} ({error.hint})" if error.hint else error.message
    parameter = error.parameter if isinstance(error, WrongParameter) else None
    return status, error_body(message, kind, code, parameter)


def error_body(
    message: str,
    kind: str = "invalid_request_error",
    code: str | None = None,
    parameter: str | None = None,
) -> Json:
    """Return an error object as OpenAI's API has it.

    Args:
        message: one line for the person who reads it.
        kind: OpenAI's `type` of the error.
        code: a short name of the error for programs, or None.
        parameter: the field of the request that is wrong, or None.
    """
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}
