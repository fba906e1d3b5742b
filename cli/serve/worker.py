"""`nfox worker`: the model as one of the workers of a FastChat controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import typer

from nfox.errors import UsageError

from .. import unused
from ..engine_arguments import EngineArguments
from ..options.dataclass_options import option
from ..options.listening import (
    AccessArguments,
    AddressArguments,
    LimitArguments,
    ServerArguments,
)

_EVERYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class WorkerArguments:
    """The addresses by which a FastChat controller and this worker reach each other."""

    controller: Annotated[
        str, option("Server", "URL of FastChat's controller.", "--controller")
    ] = "http://localhost:21001"
    worker_address: Annotated[
        str | None,
        option(
            "Server",
            "URL of this worker, as the others reach it. [default: where it listens]",
            "--worker-address",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, url in (("controller", self.controller), ("worker-address", self.worker_address)):
            if url is not None and not _is_url(url):
                raise UsageError(f"--{name} {url}: expected http://HOST:PORT")


def _is_url(text: str) -> bool:
    """Whether a text is an http URL with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def worker(
    context: typer.Context,
    worker: WorkerArguments,
    address: AddressArguments,
    limits: LimitArguments,
    engine_arguments: EngineArguments,
) -> None:
    """Answer for a FastChat controller, whose API server and web page spread requests over workers.

    Start python -m fastchat.serve.controller first, and python -m fastchat.serve.openai_api_server.
    """
    engine_arguments.check()
    if worker.worker_address is None and address.host in _EVERYWHERE:
        raise UsageError(
            f"--host {address.host} does not say where this worker is reached",
            "add --worker-address http://THIS_MACHINE:PORT",
        )
    from nfox.serve.server import bind, url

    with bind(address.host, address.port_or(21002)) as listener:
        worker_url = worker.worker_address or url(listener)
        access = AccessArguments(allow_host=[urlsplit(worker_url).hostname or ""])
        server_arguments = ServerArguments(address, access, limits)
        from .server import announce, load_served, serve_app

        served = load_served(server_arguments, engine_arguments)
        unused.report_typed(context, unused.of_loading(served.worker.engine))
        unused.report_idle_method(served.worker.engine.drafter)
        from nfox.serve.fastchat_worker import make_worker_app

        app = make_worker_app(served, worker.controller, worker_url)
        announce(served, listener, "", "workers know no keys: let only the controller's network in")
        serve_app(app, served, listener, server_arguments)
