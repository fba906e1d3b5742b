"""The checks before every request: host, origin, key, the body's size, type and time of arrival.

A body is read whole before the application sees its request, so that one that is too large, or
never ends, costs nothing but its connection.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nfox.serve.errors import error_body
from nfox.serve.origins import ANY, normalised_host, parse_origin, requested_origin

PAGES = frozenset({"/", "/docs"})
"""Pages that say nothing of the model: a browser cannot bring a key with an address, and follows
links from other sites."""

OPEN_PATHS = PAGES | {"/health"}
"""What answers without a key: pages, and what programs that watch the process ask."""

_BODY_SECONDS = 30.0  # for a body to arrive
_LINGER_SECONDS = 2.0  # for the rest of a refused body, so that its sender reads why


class _Refused(Exception):
    """A request is answered here.

    Args:
        response: the answer.
        unread: whether there may be more of the body. Nobody reads it, so the connection ends.
    """

    def __init__(self, response: JSONResponse, *, unread: bool) -> None:
        super().__init__()
        self.response = response
        self.unread = unread

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and end the connection behind what is left of the body."""
        if not self.unread:
            await self.response(scope, receive, send)
            return
        headers = [*self.response.raw_headers, (b"connection", b"close")]
        status, body = self.response.status_code, self.response.body
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        # Where a connection is closed over unread bytes, its peer may lose the answer with it.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})


class RequestGuard:
    """An ASGI middleware that refuses requests before the application sees them.

    Args:
        app: the application behind it.
        key: the API key that requests must bring as a bearer token, or None.
        max_body_bytes: the largest body that is accepted, in bytes.
        hosts: the host names that requests may call the server by, or None for any. A page on the
            web can make a browser ask a server on its own machine, but only under the page's host
            name, or with the page's origin or a mark of another site in the headers.
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
        self._hosts = None if hosts is None else {normalised_host(host) for host in hosts}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on with its body; ASGI's specification has the arguments.

        Requests that are refused get their error here, clients that have gone get nothing.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
            body = await self._read_body(headers, receive)
        except _Refused as refused:
            await refused.answer(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse a request by its headers alone."""
        path = scope["path"]
        refusal = None
        if path not in PAGES:
            refusal = self._check_origin(scope.get("scheme", "http"), headers)
        refusal = refusal or self._check_host(headers)
        if refusal is None and path not in OPEN_PATHS:
            refusal = self._check_key(headers)
        if refusal is not None:
            empty = headers.get("content-length", "0") == "0"
            raise _Refused(refusal, unread=not empty or "transfer-encoding" in headers)

    def _check_origin(self, scheme: str, headers: Headers) -> JSONResponse | None:
        """Return the error for a page of another origin, which a key would let in."""
        origin = headers.get("origin")
        if self._key is not None or self._origins & {origin, ANY}:
            return None
        own = requested_origin(scheme, headers.get("host", ""))
        if origin and (own is None or parse_origin(origin) != own):
            message = f"pages of {origin} may not ask; --cors {origin} lets them"
        elif headers.get("sec-fetch-site", "").lower() == "cross-site":  # also without an origin
            message = "pages of other sites may not ask; --cors ORIGIN lets those of one"
        else:
            return None
        return JSONResponse(error_body(message, code="foreign_origin"), 403)

    def _check_host(self, headers: Headers) -> JSONResponse | None:
        """Return the error for a host name that is not the server's."""
        own = requested_origin("http", headers.get("host", ""))
        if self._hosts is None or (own is not None and own.host in self._hosts):
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

    async def _read_body(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the body, or None if the client has gone.

        Raises:
            _Refused: if it is too large, too slow or not JSON.
        """
        declared_length = headers.get("content-length", "")
        if declared_length.isdecimal() and int(declared_length) > self._max_body_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            text = f"the body did not arrive within {_BODY_SECONDS:.0f} s"
            response = JSONResponse(error_body(text, code="request_timeout"), 408)
            response.headers["connection"] = "close"
            raise _Refused(response, unread=False) from None
        if body and not _is_json(headers.get("content-type", "")):
            raise self._wrong_type(headers.get("content-type"))
        return bytes(body)

    def _too_large(self) -> _Refused:
        message = f"a request may have {self._max_body_bytes} bytes; --max-request-size sets it"
        response = JSONResponse(error_body(message, code="request_too_large"), 413)
        return _Refused(response, unread=True)

    def _wrong_type(self, kind: str | None) -> _Refused:
        message = (
            "a body needs the header Content-Type: application/json "
            f"(curl: -H 'Content-Type: application/json'), not {kind or 'none'}"
        )
        response = JSONResponse(error_body(message, code="unsupported_media_type"), 415)
        return _Refused(response, unread=False)


def _is_json(content_type: str) -> bool:
    """Whether a body's type says that it is JSON. Pages of another origin send texts and forms
    without asking first.
    """
    kind = content_type.partition(";")[0].strip().lower()
    main, _, sub = kind.partition("/")
    return main == "application" and (sub == "json" or sub.endswith("+json"))


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
