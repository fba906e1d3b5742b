"""What `nfox serve` and `nfox worker` share: from options to a served model, and its server."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from nfox.drafters import plain_method, ready_methods
from nfox.errors import UsageError
from nfox.serve.metrics import Metrics
from nfox.serve.middleware import RequestGuard
from nfox.serve.origins import ANY, as_sent
from nfox.serve.served_model import ServedModel
from nfox.serve.server import is_loopback, serve, url
from nfox.serve.worker import Worker, WorkerLimits
from nfox.text.resolve import TOKENIZER_OR_NONE

from ..display.header import exactness, method_line
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.listening import ServerArguments, parse_bytes
from ..printing import tell

if TYPE_CHECKING:
    from nfox.engine import Engine

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def load_served(
    server_arguments: ServerArguments, engine_arguments: EngineArguments
) -> ServedModel:
    """Load the model that the options name, and start the worker that answers requests.

    Args:
        server_arguments: the name that requests give the model, which methods they may name, how
            many may wait and how long, and memory for caches.
        engine_arguments: which engine answers; its sampling is that of requests that name none.

    Raises:
        NfoxError: if anything is missing or does not fit.
    """
    model = usual_model(engine_arguments.model)
    if model.conv_template is None:  # a model without a template can still continue texts
        model = replace(model, conv_template=TOKENIZER_OR_NONE)
    engine = replace(engine_arguments, model=model).load()
    limits = server_arguments.limits
    if engine_arguments.generation.seed is None:  # or a server would say the same after every start
        sampling = replace(engine.settings.sampling, seed=secrets.randbits(32))
        engine.use_settings(replace(engine.settings, sampling=sampling))
    metrics, name = Metrics(), server_arguments.address.served_model_name or _served_name(engine)
    worker = Worker(
        engine,
        _methods(engine, server_arguments.access.allow_method),
        WorkerLimits(
            queue=limits.max_queue,
            seconds=limits.request_timeout,
            cache_bytes=parse_bytes("--cache-memory", limits.cache_memory),
        ),
        metrics.count_reply,
    )
    metrics.observe(worker)
    return ServedModel(name, worker, metrics, [engine.model.name])


def _methods(engine: Engine, allowed: list[str]) -> list[str]:
    """Return the methods that requests may name: the allowed ones, all of which must be ready."""
    if engine.model.target.proposals == "nothing":
        ready = [plain_method()]
    else:
        ready = sorted({*ready_methods(engine.model.name, engine.sources), engine.method})
    not_ready = sorted(set(allowed) - set(ready))
    if not_ready:
        raise UsageError(
            f"--allow-method {not_ready[0]} is not ready for this model",
            f"these are: {', '.join(ready)}",
        )
    return [name for name in ready if name in allowed or not allowed]


def _served_name(engine: Engine) -> str:
    """Return the name that requests give the model, without the folders around it."""
    from nfox.demo import NAME, TARGET

    name = engine.model.name
    if Path(name) == TARGET:
        return NAME
    return Path(name).resolve().name if Path(name).is_dir() else name


def serve_app(
    app: ASGIApp,
    served: ServedModel,
    listener: socket,
    server_arguments: ServerArguments,
) -> None:
    """Put the middleware around an application, and serve it until the process is stopped.

    Args:
        app: the application that answers requests.
        served: the model that it serves.
        listener: the socket that listens.
        server_arguments: the name of the host, whether every request is logged, which requests
            are let in, and how large one may be.
    """
    address, access, limits = (
        server_arguments.address,
        server_arguments.access,
        server_arguments.limits,
    )
    hosts = {*_LOOPBACK, address.host, *access.allow_host}
    origins = [*map(as_sent, access.cors)]
    protected: ASGIApp = RequestGuard(
        app,
        key=access.api_key,
        max_body_bytes=parse_bytes("--max-request-size", limits.max_request_size),
        hosts=hosts if is_loopback(listener) and access.api_key is None else None,
        origins=origins,
    )
    if origins:
        protected = _with_cors(protected, origins)
    logging.basicConfig(format="nfox: %(message)s")
    # Beside the access log: what was answered, or why it was not.
    logging.getLogger("nfox.serve").setLevel(logging.DEBUG if address.verbose else logging.INFO)
    serve(protected, listener, served.worker, verbose=address.verbose)


def _with_cors(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """Let pages of origins read answers, and answer what browsers ask before."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=ANY not in origins,  # who is let into a network was named
    )


def announce(served: ServedModel, listener: socket, path: str, warning: str) -> None:
    """Print to stderr where a model is served, by which method, and under which names.

    Args:
        served: the model that is served.
        listener: the socket that listens.
        path: what follows the address; a page to chat in stands where something does.
        warning: a line that is added where other machines reach the socket.
    """
    engine = served.worker.engine
    lines = [
        f"{served.name} at {url(listener)}{path}; {method_line(engine)}; {exactness(engine)}",
        *([f"a page to chat: {url(listener)}/"] if path else []),
        f"models: {', '.join(served.names)}",
    ]
    if warning and not is_loopback(listener):
        lines.append(warning)
    tell(*(f"nfox: {line}" for line in lines))
