"""A server of the tiny model in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from nfox import Engine, ModelOptions, Settings, load
from nfox.drafters import ready
from nfox.serve.app import make_app
from nfox.serve.metrics import Metrics
from nfox.serve.middleware import Guard
from nfox.serve.requests import Served
from nfox.serve.worker import ServerLimits, Worker

NAME = "tiny"
QUESTION = [{"role": "user", "content": "hello there"}]


def chat(model: Path | None = None, **more: Any) -> Engine:
    """Load the tiny model with weights for every method; replies have 24 tokens at most."""
    return load(
        str(model or folder.equipped()),
        loading=ModelOptions(dtype="float32"),
        **{"settings": Settings(max_new_tokens=24)} | more,
    )


def serve(talk: Engine | None = None, **limits: Any) -> Served:
    """Start an engine."""
    talk, metrics = talk or chat(), Metrics()
    methods = [talk.method]
    if talk.model.target.proposals != "nothing":
        methods = ready(talk.model.name, talk.sources)
    worker = Worker(talk, methods, ServerLimits(**limits), metrics.add)
    metrics.watch(worker)
    return Served(NAME, worker, metrics)


def guarded(served: Served, **more: Any) -> ASGIApp:
    """Return the whole application."""
    return Guard(make_app(served), **{"key": None, "size": 1 << 20} | more)


def client(served: Served, **more: Any) -> TestClient:
    """Return what asks it."""
    return TestClient(guarded(served, **more), raise_server_exceptions=False)


def chunks(text: str) -> list[dict[str, Any]]:
    """Return the data of a stream of server-sent events, which must end as OpenAI's do."""
    *lines, end, rest = text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]
