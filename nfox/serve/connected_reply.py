"""Replies that are bound to their client's connection: who hangs up is not answered any further."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import closing

from fastapi import Request
from fastapi.responses import Response

from nfox.serve.pending_reply import Event, ServeRequest
from nfox.serve.worker import Worker


def client_address(request: Request) -> str:
    """Return the address that a request comes from; the empty string if it is not known."""
    return request.client.host if request.client else ""


class ConnectedReply:
    """The replies to a request while its client listens: a client that hangs up stops the decoding.

    Args:
        http: the HTTP request, on whose connection is watched whether the client is there.
        worker: the worker that answers.
        request: what is asked of the worker.

    Raises:
        NfoxError: if the worker does not take the request.
    """

    def __init__(self, http: Request, worker: Worker, request: ServeRequest) -> None:
        self._pending = worker.submit(request)
        self._watcher = asyncio.create_task(self._watch(http))

    async def _watch(self, http: Request) -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        self._pending.cancel()

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the events of the replies. They end early if the client has hung up.

        Raises:
            NfoxError: if the request cannot be answered.
        """
        with closing(self):
            async for event in self._pending:
                yield event

    def close(self) -> None:
        """Stop the decoding, if it is not at its end, and watch the connection no more."""
        self._pending.cancel()
        self._watcher.cancel()


def client_closed_request() -> Response:
    """Return the response to a client that has hung up, which only the access log sees."""
    return Response(status_code=499)
