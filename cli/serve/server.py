"""From options to a server: what `nfox serve` and `nfox worker` have in common."""

from __future__ import annotations

import logging
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from nfox.drafters import plain, ready
from nfox.errors import UsageError
from nfox.serve.metrics import Metrics
from nfox.serve.middleware import Guard
from nfox.serve.requests import Served
from nfox.serve.server import is_loopback, serve, url
from nfox.serve.worker import Limits, Worker

from ..display.header import exactness, method_line
from ..display.progress import loading_display
from ..facts import EMBEDDED
from ..load import load_engine
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments
from ..options.listening import AccessArguments, AddressArguments, LimitArguments, parse_bytes

if TYPE_CHECKING:
    from nfox.engine import Engine

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def load_served(
    address: AddressArguments,
    access: AccessArguments,
    limits: LimitArguments,
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
) -> Served:
    """Load what the options say, and start the engine.

    Raises:
        NfoxError: if anything is missing or does not fit.
    """
    with loading_display(sys.stderr.isatty()) as progress:
        engine = load_engine(model, method, generation, progress=progress)
    if generation.seed is None:  # or a server would say the same after every start
        sampling = replace(engine.settings.sampling, seed=secrets.randbits(32))
        engine.settings = replace(engine.settings, sampling=sampling)
    metrics, name = Metrics(), address.served_model_name or _name(engine)
    worker = Worker(
        engine,
        _methods(engine, access.allow_method),
        Limits(
            queue=limits.max_queue,
            seconds=limits.request_timeout,
            cache_bytes=parse_bytes("--cache-memory", limits.cache_memory),
        ),
        metrics.add,
    )
    metrics.watch(worker)
    return Served(name, worker, metrics, [engine.model.name])


def _methods(engine: Engine, allowed: list[str]) -> list[str]:
    """Return the methods that requests may name: those whose weights are there."""
    if engine.model.target.proposals == "nothing":
        found = [plain()]
    else:
        found = sorted({*ready(engine.model.name, engine.places), engine.method})
    strange = sorted(set(allowed) - set(found))
    if strange:
        raise UsageError(
            f"--allow-method {strange[0]} is not ready for this model",
            f"these are: {', '.join(found)}",
        )
    return [name for name in found if name in allowed or not allowed]


def _name(engine: Engine) -> str:
    """Return what requests call the model, without the folders around it."""
    from nfox.demo import TARGET

    name = engine.model.name
    if Path(name) == TARGET:
        return EMBEDDED
    return Path(name).resolve().name if Path(name).is_dir() else name


def run(
    app: ASGIApp,
    served: Served,
    taken: socket,
    address: AddressArguments,
    access: AccessArguments,
    limits: LimitArguments,
) -> None:
    """Put the guard around an application and serve it to the end."""
    hosts = {*_LOOPBACK, address.host, *access.allow_host}
    guarded: ASGIApp = Guard(
        app,
        key=access.api_key,
        size=parse_bytes("--max-request-size", limits.max_request_size),
        hosts=hosts if is_loopback(taken) and access.api_key is None else None,
        origins=access.cors,
    )
    if access.cors:
        guarded = CORSMiddleware(
            guarded, allow_origins=access.cors, allow_methods=["*"], allow_headers=["*"]
        )
    logging.basicConfig(format="nfox: %(message)s")
    # Beside the access log: what was answered, or why it was not.
    logging.getLogger("nfox.serve").setLevel(logging.DEBUG if address.verbose else logging.INFO)
    serve(guarded, taken, served.worker, verbose=address.verbose)


def introduce(served: Served, taken: socket, path: str, warning: str) -> None:
    """Say where a model is served, and how.

    Args:
        served: the model.
        taken: where.
        path: behind the address.
        warning: for when others than this machine reach it.
    """
    engine = served.worker.engine
    say(f"{served.name} at {url(taken)}{path}; {method_line(engine)}; {exactness(engine)}")
    say(f"models: {', '.join(served.names)}")
    if not is_loopback(taken) and warning:
        say(warning)


def say(text: str) -> None:
    """Write a line to stderr."""
    print(f"nfox: {text}", file=sys.stderr, flush=True)
