"""`nfox serve`: the model behind an OpenAI-compatible API."""

from __future__ import annotations

from socket import socket

import typer

from .. import unused
from ..engine_arguments import EngineArguments
from ..options.listening import ServerArguments


def serve(
    context: typer.Context, server_arguments: ServerArguments, engine_arguments: EngineArguments
) -> None:
    """Serve the model: OpenAI's /v1/chat/completions, /v1/completions and /v1/models.

    Also a page to chat in at /, the API as a page at /docs, /health, /metrics for Prometheus, and
    /predict. Where a request is silent, the options of sampling count. A request chooses a method
    by the model's name, NAME:METHOD, or by `method`.
    """
    engine_arguments.check()
    from nfox.serve.server import bind

    address, access = server_arguments.address, server_arguments.access
    # The address is taken before the minutes that loading may take.
    with bind(address.host, address.port_or(5000)) as listener:
        from .server import announce, load_served, serve_app

        served = load_served(server_arguments, engine_arguments)
        idle = _idle(access.api_key, listener)
        unused.report_typed(context, unused.of_loading(served.worker.engine) | idle)
        unused.report_idle_method(served.worker.engine.drafter)
        from nfox.serve.app import make_app

        warning = "other machines can ask without a key; --api-key KEY sets one"
        announce(served, listener, "/v1", "" if access.api_key else warning)
        serve_app(make_app(served), served, listener, server_arguments)


def _idle(api_key: str | None, listener: socket) -> dict[str, str]:
    """Return the options of access that change nothing, with the reason."""
    from nfox.serve.server import is_loopback

    if api_key:
        return {"allow_host": "a key lets requests in, whatever the name they come by"}
    if not is_loopback(listener):
        address = listener.getsockname()[0]
        return {"allow_host": f"names are asked for on loopback alone, and this is {address}"}
    return {}
