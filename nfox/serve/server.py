"""Listening: an address is taken before anything is loaded, and given back when the server ends."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp

from nfox.errors import NfoxError, UsageError

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
        raise NfoxError(
            f"cannot listen on {host}, port {port}: {error.strerror}", "choose another --port"
        ) from error
    return taken


def url(taken: socket.socket) -> str:
    """Return the address of a socket as others on this machine write it."""
    host, port, *_ = taken.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(taken: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(taken.getsockname()[0]).is_loopback


def serve(app: ASGIApp, taken: socket.socket, *, verbose: bool = False) -> None:
    """Serve an application on a socket until the process is told to end.

    Args:
        app: the application.
        taken: see `bind`.
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
    uvicorn.Server(config).run(sockets=[taken])
