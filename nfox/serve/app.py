"""The HTTP side: OpenAI's routes, /predict of LLMSpeculativeSampling, a health check, metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, closing
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from nfox.errors import NfoxError
from nfox.serve.errors import UnknownModel, body, describe
from nfox.serve.jobs import Asked, Event
from nfox.serve.metrics import Metrics
from nfox.serve.requests import Served
from nfox.serve.responses import Answer, ChatAnswer, Json, TextAnswer
from nfox.serve.schemas import ChatCompletion, Completing, Completion, ModelName, Prediction
from nfox.serve.worker import Worker
from nfox.version import __version__

log = logging.getLogger(__name__)

_NO_OBJECT = ("json_invalid", "model_attributes_type", "model_type")  # in pydantic's words
_STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": said}
    for code, said in {
        400: "The request cannot be answered as it is",
        401: "The key is missing or wrong",
        403: "A page of another origin asked",
        404: "There is no such model",
        408: "The body did not arrive in time",
        413: "The body is too large",
        421: "The server is not called by this name",
        429: "Too many requests are waiting",
        503: "Its time passed before anything came of it, or something here was missing",
    }.items()
}


def make_app(served: Served) -> FastAPI:
    """Return the application; `nfox.serve.middleware` goes around it.

    Args:
        served: what answers.
    """
    app = FastAPI(title="nfox", version=__version__, docs_url=None, redoc_url=None)
    add_error_handlers(app, served.metrics)
    for router in (_completions(served), _about(served)):
        app.include_router(router, responses=_ERRORS)
    return app


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Answer errors with OpenAI's objects, and count them."""

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        said = first_mistake(error.errors(), within=1)
        return answered(request, 400, body(said, code="invalid_request"))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        lost = error.status_code == 404
        said = f"there is no {request.url.path}; /openapi.json lists what is here"
        return answered(request, error.status_code, body(said if lost else str(error.detail)))

    async def told(request: Request, error: Exception) -> JSONResponse:
        return answered(request, *describe(error))

    def answered(request: Request, status: int, said: Json) -> JSONResponse:
        metrics.refused(status)
        log.debug("%s %s: %s", request.method, request.url.path, said["error"]["message"])
        return JSONResponse(said, status, {"Retry-After": "5"} if status in (429, 503) else None)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(NfoxError, told)
    app.add_exception_handler(Exception, told)  # which the log shows as well


def first_mistake(errors: Sequence[Any], within: int = 0) -> str:
    """Say what pydantic found first.

    Args:
        errors: as it lists them.
        within: parts of a place to leave out.
    """
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"][within:])
    if first["type"] in _NO_OBJECT or (first["type"] == "missing" and not place):
        return "the body is not a JSON object"
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else str(said)


def client_of(request: Request) -> str:
    """Return who asks, as far as the connection tells."""
    return request.client.host if request.client else ""


class Run:
    """A request that is answered while its client listens: who hangs up stops the decoding."""

    def __init__(self, request: Request, worker: Worker, asked: Asked) -> None:
        self.job = worker.ask(asked)
        self._watcher = asyncio.create_task(self._watch(request))

    async def _watch(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.job.cancel()

    async def events(self) -> AsyncGenerator[Event]:
        """Yield what is added to the replies; see `Job`."""
        with closing(self):
            async for event in self.job:
                yield event

    def close(self) -> None:
        """Stop whatever is still going on."""
        self.job.cancel()
        self._watcher.cancel()


async def _collect(run: Run, answer: Answer) -> bool:
    """Give an answer all events; return whether there was anybody to the end."""
    async with aclosing(run.events()) as events:
        async for event in events:
            answer.take(event)
    return answer.complete(len(run.job.asked.questions))


async def _chunks(
    run: Run, events: AsyncGenerator[Event], first: Event, answer: Answer, *, usage: bool
) -> AsyncGenerator[Json]:
    """Yield the chunks of a stream."""
    async with aclosing(events):
        for chunk in answer.opening(len(run.job.asked.questions)):
            yield chunk
        yield answer.take(first)
        try:
            async for event in events:
                yield answer.take(event)
        except Exception as error:  # the status is sent already
            yield describe(error)[1]
            return
        if usage:
            yield answer.usage_chunk()


async def _respond(run: Run, answer: Answer, asked: Completing) -> Response:
    """Answer a completion, whole or as a stream."""
    if not asked.stream:
        return JSONResponse(answer.whole()) if await _collect(run, answer) else gone()
    events = run.events()
    first = await anext(events, None)  # errors before it have a status code
    if first is None:
        return gone()
    return _sent(_chunks(run, events, first, answer, usage=asked.tells_usage))


def gone() -> Response:
    """Return what is answered to a client that has hung up; only the log sees it."""
    return Response(status_code=499)


def _sent(chunks: AsyncGenerator[Json]) -> StreamingResponse:
    """Return server-sent events, with OpenAI's mark at their end."""

    async def lines() -> AsyncGenerator[str]:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers=_STREAM)


def _completions(served: Served) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions", summary="Answer a conversation")
    async def chat_completions(request: Request, asked: ChatCompletion) -> Response:
        answer = ChatAnswer(asked.model or served.name, each=asked.n, scored=bool(asked.logprobs))
        question = served.chat(asked, client_of(request))
        return await _respond(Run(request, served.worker, question), answer, asked)

    @router.post("/v1/completions", summary="Go on with a text")
    async def completions(request: Request, asked: Completion) -> Response:
        answer = TextAnswer(
            asked.model or served.name, each=asked.n, scored=asked.logprobs is not None
        )
        question = served.completion(asked, client_of(request))
        return await _respond(Run(request, served.worker, question), answer, asked)

    @router.post("/predict", summary="A text and what follows it, as one string")
    async def predict(request: Request, asked: Prediction) -> Response:
        answer = TextAnswer(served.name)
        question = served.prediction(asked, client_of(request))
        if not await _collect(Run(request, served.worker, question), answer):
            return gone()
        return JSONResponse(asked.prompt + answer.texts[0])

    return router


def _about(served: Served) -> APIRouter:
    router, created = APIRouter(), int(time.time())

    def model(name: str) -> Json:
        context = served.worker.engine.max_context
        known = {"id": name, "object": "model", "created": created, "owned_by": "nfox"}
        return known | {"max_model_len": context}

    @router.get("/v1/models", summary="The model, and the model with each method")
    async def models() -> Json:
        return {"object": "list", "data": [model(name) for name in served.names]}

    @router.get("/v1/models/{name:path}", summary="One of them")
    async def one_model(name: str) -> Json:
        if name not in served.names:
            raise UnknownModel(f"there is no model {name} here")
        return model(name)

    @router.post("/load_model", summary="Asked by `transformers chat` before it begins")
    async def load_model(asked: ModelName) -> Response:
        if asked.model not in served.names:
            raise UnknownModel(f"there is no model {asked.model} here")
        line = json.dumps({"status": "ready", "cached": True})
        return Response(f"data: {line}\n\n", media_type="text/event-stream")

    @router.get("/health", summary="Whether it is there, and what it does")
    async def health() -> Json:
        worker = served.worker
        return {"status": "ok", "running": worker.running, "waiting": worker.waiting}

    @router.get("/metrics", summary="For Prometheus")
    async def prometheus() -> Response:
        return Response(served.metrics.text(), media_type="text/plain; version=0.0.4")

    return router
