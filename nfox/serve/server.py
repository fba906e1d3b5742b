"""Listening: an address is taken before anything is loaded, and given back when the server ends."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from nfox.errors import NfoxError, UsageError
from nfox.serve.worker import Worker

_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where that which listens everywhere is found
_GRACE = 3  # seconds for what is being answered when the server is told to end
_KEEP_ALIVE = 75  # seconds; clients that keep connections for less never find one just closed


def bind(host: str, port: int) -> socket.socket:
    """Take an address; who asks there before `serve` waits.

    Args:
        host: a name or an address of this machine.
        port: 0 takes any that is free.

    Raises:
        NfoxError: if it cannot be had.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: {error.strerror}") from error
    taken = socket.socket(family, kind)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
        taken.listen()  # or on Linux another process could take it, too
    except OSError as error:
        taken.close()
        other = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
        said = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise NfoxError(said, f"choose another {other}") from error
    return taken


def url(taken: socket.socket) -> str:
    """Return the address of a socket as others on this machine write it."""
    host, port, *_ = taken.getsockname()
    host = _HERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(taken: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(taken.getsockname()[0]).is_loopback


class _Server(uvicorn.Server):
    """Ends what is being answered before it waits for connections to end."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._engine = worker

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.stop()
        await super().shutdown(sockets)
        await asyncio.to_thread(self._engine.join, _GRACE)


def serve(app: ASGIApp, taken: socket.socket, worker: Worker, *, verbose: bool = False) -> None:
    """Serve an application on a socket until the process is told to end.

    Args:
        app: the application.
        taken: see `bind`.
        worker: that answers; it ends with the server.
        verbose: log every request.
    """
    config = uvicorn.Config(
        app,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    _Server(config, worker).run(sockets=[taken])
