"""What stands before every request: who may ask, how much, and for how long it may take to say so.

A body is read whole before anybody looks at it, so that one that is too large, or never ends, costs
nothing but its connection.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nfox.serve.errors import body

OPEN = "/health"
"""Answers without a key, so that whoever watches over the process needs none."""

_SECONDS = 30.0  # for a body to arrive


class Guard:
    """An ASGI application around another one.

    Args:
        app: the other one.
        key: that requests must bring, or None.
        size: bytes of a body at most.
        hosts: names that the server may be called by, or None for any. A page on the web can make
            a browser ask a server on its own machine, but under the page's name, or telling the
            page's origin.
        origins: of pages that may ask all the same; * for all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        size: int,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._size = size
        self._hosts = None if hosts is None else {_plain(host) for host in hosts}
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the specification of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._host(headers) or (scope["path"] != OPEN and self._unknown(headers)) or None
        read = refused or await self._read(headers, receive)
        if read is None:  # gone
            return
        if isinstance(read, JSONResponse):
            await read(scope, receive, send)
            return
        await self._app(_as_json(scope), _again(read, receive), send)

    def _host(self, headers: Headers) -> JSONResponse | None:
        host, origin = _hostname(f"//{headers.get('host', '')}"), headers.get("origin")
        known = self._key is not None or not origin or bool(self._origins & {origin, "*"})
        if not known and _hostname(origin or "") != host:
            said = f"pages of {origin} may not ask; --cors {origin} lets them"
            return JSONResponse(body(said, code="foreign_origin"), 403)
        if self._hosts is None or host in self._hosts:
            return None
        said = f"this server is called {' or '.join(sorted(self._hosts))}; --allow-host adds names"
        return JSONResponse(body(said, code="unknown_host"), 421)

    def _unknown(self, headers: Headers) -> JSONResponse | None:
        if self._key is None:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), self._key):
            return None
        said = "this server needs its key: Authorization: Bearer KEY"
        return JSONResponse(
            body(said, "authentication_error", "invalid_api_key"),
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    async def _read(self, headers: Headers, receive: Receive) -> bytes | JSONResponse | None:
        """Return the body, what is answered instead, or None where nobody is there any more."""
        said = f"a request may have {self._size} bytes; --max-request-size sets it"
        large = JSONResponse(body(said, code="request_too_large"), 413)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._size:
            return large
        parts: list[bytes] = []
        read = 0
        try:
            async with asyncio.timeout(_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    read += len(parts[-1])
                    if read > self._size:
                        return large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            said = f"the body did not arrive within {_SECONDS:.0f} s"
            return JSONResponse(body(said, code="request_timeout"), 408)


def _hostname(url: str) -> str:
    try:
        return _plain(urlsplit(url).hostname or "")
    except ValueError:
        return ""


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _as_json(scope: Scope) -> Scope:
    """Read every body as JSON, which `curl -d` says of none. What a page of another origin can send
    without asking is refused by its origin.
    """
    others = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _again(data: bytes, receive: Receive) -> Receive:
    """Return what gives the body that was read, then what else there is to receive."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return once
