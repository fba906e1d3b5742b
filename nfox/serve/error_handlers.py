"""Errors of an application as OpenAI's error objects, counted and logged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nfox.characters import decoding_complaint
from nfox.errors import NfoxError
from nfox.serve.errors import Json, error_body, error_response
from nfox.serve.fields import is_branch
from nfox.serve.metrics import Metrics

log = logging.getLogger(__name__)

_NOT_AN_OBJECT = ("model_attributes_type", "model_type")  # pydantic's error types
_NO_FIELDS = (*_NOT_AN_OBJECT, "missing")


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Let an application answer errors with OpenAI's error objects, and count them.

    Args:
        app: the application.
        metrics: where errors are counted by their status codes.
    """

    async def invalid_body(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        message, parameter = first_validation_error(error.errors(), skipped=1)
        body = error_body(message, code="invalid_request", parameter=parameter)
        return answer(request, 400, body)

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = str(error.detail)
        if isinstance(cause := error.__cause__, UnicodeDecodeError):
            message = f"the body is {decoding_complaint(cause)}"
        if error.status_code == 404:
            message = f"there is no {request.url.path}; /openapi.json lists what is here"
        return answer(request, error.status_code, error_body(message))

    async def other_error(request: Request, error: Exception) -> JSONResponse:
        return answer(request, *error_response(error))

    def answer(request: Request, status: int, body: Json) -> JSONResponse:
        metrics.count_error(status)
        log.debug("%s %s: %s", request.method, request.url.path, body["error"]["message"])
        return JSONResponse(body, status, {"Retry-After": "5"} if status in (429, 503) else None)

    app.add_exception_handler(RequestValidationError, invalid_body)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(NfoxError, other_error)
    app.add_exception_handler(Exception, other_error)  # which the log shows as well


def first_validation_error(errors: Sequence[Any], skipped: int = 0) -> tuple[str, str | None]:
    """Return one line for the first error that pydantic found in a body, and the field's path.

    Args:
        errors: the errors, as pydantic lists them.
        skipped: the number of names to leave out at the beginning of the path.
    """
    first = errors[0]
    names = [str(name) for name in first["loc"][skipped:] if not is_branch(name)]
    field, message = ".".join(names), str(first["msg"]).removeprefix("Value error, ")
    if first["type"] in _NOT_AN_OBJECT:
        message = "expected an object"
    if first["type"] == "json_invalid" or (not field and first["type"] in _NO_FIELDS):
        return "the body is not a JSON object", None
    parameter = field or first.get("ctx", {}).get("parameter")
    return f"{field}: {message}" if field else message, parameter
