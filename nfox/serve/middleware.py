"""The checks before every request: host, origin, key, the body's size and its time of arrival.

A body is read whole before the application sees its request, so that one that is too large, or
never ends, costs nothing but its connection.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nfox.serve.errors import error_body

OPEN_PATH = "/health"
"""The path that answers without a key, so that programs that watch the process need none."""

_BODY_SECONDS = 30.0  # for a body to arrive


class RequestGuard:
    """An ASGI middleware that refuses requests before the application sees them.

    Args:
        app: the application behind it.
        key: the API key that requests must bring as a bearer token, or None.
        max_body_bytes: the largest body that is accepted, in bytes.
        hosts: the host names that requests may call the server by, or None for any. A page on the
            web can make a browser ask a server on its own machine, but only under the page's host
            name, or with the page's origin in the headers.
        origins: the web origins whose pages may ask all the same; "*" stands for all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        max_body_bytes: int,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._max_body_bytes = max_body_bytes
        self._hosts = None if hosts is None else {_normalised(host) for host in hosts}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on with its body; ASGI's specification has the arguments.

        Requests that are refused get their error here, clients that have gone get nothing.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._check_origin(headers) or self._check_host(headers)
        if refusal is None and scope["path"] != OPEN_PATH:
            refusal = self._check_key(headers)
        body = refusal or await self._read_body(headers, receive)
        if isinstance(body, JSONResponse):
            await body(scope, receive, send)
        elif body is not None:
            await self._app(_with_json_type(scope), _replay(body, receive), send)

    def _check_origin(self, headers: Headers) -> JSONResponse | None:
        """Return the error for a page of another origin, which a key would let in."""
        origin = headers.get("origin")
        if self._key is not None or not origin or self._origins & {origin, "*"}:
            return None
        if _hostname(origin) == _requested_host(headers):
            return None
        message = f"pages of {origin} may not ask; --cors {origin} lets them"
        return JSONResponse(error_body(message, code="foreign_origin"), 403)

    def _check_host(self, headers: Headers) -> JSONResponse | None:
        """Return the error for a host name that is not the server's."""
        if self._hosts is None or _requested_host(headers) in self._hosts:
            return None
        names = " or ".join(sorted(self._hosts))
        message = f"this server is called {names}; --allow-host adds names"
        return JSONResponse(error_body(message, code="unknown_host"), 421)

    def _check_key(self, headers: Headers) -> JSONResponse | None:
        """Return the error for a request without the key; compare in constant time."""
        if self._key is None:
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.encode("latin-1"), self._key):
            return None
        message = "this server needs its key: Authorization: Bearer KEY"
        return JSONResponse(
            error_body(message, "authentication_error", "invalid_api_key"),
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    async def _read_body(self, headers: Headers, receive: Receive) -> bytes | JSONResponse | None:
        """Return the body, the error to answer instead, or None if the client has gone."""
        declared_length = headers.get("content-length", "")
        if declared_length.isdecimal() and int(declared_length) > self._max_body_bytes:
            return self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._max_body_bytes:
                        return self._too_large()
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            text = f"the body did not arrive within {_BODY_SECONDS:.0f} s"
            return JSONResponse(error_body(text, code="request_timeout"), 408)

    def _too_large(self) -> JSONResponse:
        message = f"a request may have {self._max_body_bytes} bytes; --max-request-size sets it"
        return JSONResponse(error_body(message, code="request_too_large"), 413)


def _requested_host(headers: Headers) -> str:
    """Return the host name that a request calls the server by, without its port."""
    return _hostname(f"//{headers.get('host', '')}")


def _hostname(url: str) -> str:
    """Return the host name in a URL; the empty string if there is none."""
    try:
        return _normalised(urlsplit(url).hostname or "")
    except ValueError:
        return ""


def _normalised(host: str) -> str:
    return host.lower().rstrip(".")


def _with_json_type(scope: Scope) -> Scope:
    """Return the scope with JSON as the body's type: `curl -d` calls JSON a form. A page of another
    origin can send a form without asking first; `RequestGuard` refuses it by its origin.
    """
    others = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI `receive` that gives the body that was read, then what else comes."""
    replayed = False

    async def receive_again() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
