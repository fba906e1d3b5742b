"""A server of the tiny model in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from nfox import Engine, ModelOptions, Settings, load
from nfox.drafters import ready_methods
from nfox.serve.app import make_app
from nfox.serve.metrics import Metrics
from nfox.serve.middleware import RequestGuard
from nfox.serve.served_model import ServedModel
from nfox.serve.worker import Worker, WorkerLimits

NAME = "tiny"
QUESTION = [{"role": "user", "content": "hello there"}]


def load_tiny(model: Path | None = None, **more: Any) -> Engine:
    """Load the tiny model with weights for every method; replies have 24 tokens at most."""
    return load(
        str(model or folder.equipped()),
        loading=ModelOptions(dtype="float32"),
        **{"settings": Settings(max_new_tokens=24)} | more,
    )


def serve(engine: Engine | None = None, **limits: Any) -> ServedModel:
    """Start a worker with the fields of `WorkerLimits`; return the model that it answers with."""
    engine, metrics = engine or load_tiny(), Metrics()
    methods = [engine.method]
    if engine.model.target.proposals != "nothing":
        methods = ready_methods(engine.model.name, engine.sources)
    worker = Worker(engine, methods, WorkerLimits(**limits), metrics.count_reply)
    metrics.observe(worker)
    return ServedModel(NAME, worker, metrics)


def guarded(served: ServedModel, **guard: Any) -> ASGIApp:
    """Return the application behind a `RequestGuard` with these arguments."""
    return RequestGuard(make_app(served), **{"key": None, "max_body_bytes": 1 << 20} | guard)


def client(served: ServedModel, **guard: Any) -> TestClient:
    """Return a client of the application behind a `RequestGuard` with these arguments."""
    return TestClient(guarded(served, **guard), raise_server_exceptions=False)


def chunks(text: str) -> list[dict[str, Any]]:
    """Return the data of a stream of server-sent events, which must end as OpenAI's do."""
    *lines, end, rest = text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]
