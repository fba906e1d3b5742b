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

_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where what listens everywhere is reached from here
_GRACE_SECONDS = 3  # for replies and connections to end when the server is told to end
_KEEP_ALIVE_SECONDS = 75  # clients that keep connections for less never find one just closed


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; clients that connect before `serve` runs wait for it.

    Args:
        host: a host name or an IP address of this machine.
        port: the TCP port; 0 takes any that is free.

    Raises:
        UsageError: if the host is unknown.
        NfoxError: if the address is in use or not this machine's.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: {error.strerror}") from error
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()  # or on Linux another process could take it, too
    except OSError as error:
        listener.close()
        option = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
        message = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise NfoxError(message, f"choose another {option}") from error
    return listener


def url(listener: socket.socket) -> str:
    """Return the URL at which programs on this machine reach a listening socket."""
    host, port, *_ = listener.getsockname()
    host = _LOCAL.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches a listening socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class _Server(uvicorn.Server):
    """Uvicorn's server, which ends the worker's replies before it waits for connections to end."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.stop()
        await super().shutdown(sockets)
        await asyncio.to_thread(self._worker.join, _GRACE_SECONDS)


def serve(app: ASGIApp, listener: socket.socket, worker: Worker, *, verbose: bool = False) -> None:
    """Serve an application until the process is told to end.

    Args:
        app: the ASGI application.
        listener: the listening socket that `bind` returned.
        worker: the worker that answers; it ends with the server.
        verbose: whether every request is logged.
    """
    config = uvicorn.Config(
        app,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    _Server(config, worker).run(sockets=[listener])
