"""From options to a server: what `nfox serve` and `nfox worker` have in common."""

from __future__ import annotations

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
from nfox.serve.engine import Engine, Limits
from nfox.serve.guard import Guard
from nfox.serve.metrics import Metrics
from nfox.serve.served import Served
from nfox.serve.server import is_loopback, serve, url

from .data import EMBEDDED
from .header import exactness, method_line
from .loading import load_chat
from .options import GenerationArguments, MethodArguments, ModelArguments
from .progress import loading_display
from .serve_options import AccessArguments, AddressArguments, LimitArguments, size

if TYPE_CHECKING:
    from nfox.chat import Chat

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
    with loading_display(sys.stderr.isatty()) as told:
        chat = load_chat(model, method, generation, told=told)
    if generation.seed is None:  # or a server would say the same after every start
        sampling = replace(chat.settings.sampling, seed=secrets.randbits(32))
        chat.settings = replace(chat.settings, sampling=sampling)
    metrics = Metrics()
    engine = Engine(
        chat,
        _methods(chat, access.allow_method),
        Limits(
            queue=limits.max_queue,
            seconds=limits.request_timeout,
            cache_bytes=size("--cache-memory", limits.cache_memory),
        ),
        metrics.add,
    )
    metrics.watch(engine)
    return Served(address.served_model_name or _name(chat), engine, metrics, [chat.model.name])


def _methods(chat: Chat, allowed: list[str]) -> list[str]:
    """Return the methods that requests may name: those whose weights are there."""
    if chat.model.target.proposals == "nothing":
        found = [plain()]
    else:
        found = sorted({*ready(chat.model.name, chat.places), chat.method})
    strange = sorted(set(allowed) - set(found))
    if strange:
        raise UsageError(
            f"--allow-method {strange[0]} is not ready for this model",
            f"these are: {', '.join(found)}",
        )
    return [name for name in found if name in allowed or not allowed]


def _name(chat: Chat) -> str:
    """Return what requests call the model, without the folders around it."""
    from nfox.demo import TARGET

    name = chat.model.name
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
    path: str = "",
) -> None:
    """Put the guard around an application, say where it is, and serve it to the end."""
    _introduce(served, taken, access, path)
    hosts = {*_LOOPBACK, address.host, *access.allow_host}
    guarded: ASGIApp = Guard(
        app,
        key=access.api_key,
        size=size("--max-request-size", limits.max_request_size),
        hosts=hosts if is_loopback(taken) and access.api_key is None else None,
        origins=access.cors,
    )
    if access.cors:
        guarded = CORSMiddleware(
            guarded, allow_origins=access.cors, allow_methods=["*"], allow_headers=["*"]
        )
    serve(guarded, taken, verbose=address.verbose)


def _introduce(served: Served, taken: socket, access: AccessArguments, path: str) -> None:
    chat = served.engine.chat
    _say(f"{served.name} at {url(taken)}{path}; {method_line(chat)}; {exactness(chat)}")
    _say(f"models: {', '.join(served.names)}")
    if not is_loopback(taken) and access.api_key is None:
        _say("other machines can ask without a key; --api-key KEY sets one")


def _say(text: str) -> None:
    print(f"nfox: {text}", file=sys.stderr, flush=True)
