"""The HTTP side: OpenAI's routes, /predict of LLMSpeculativeSampling, a health check, metrics."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from nfox.serve.connected_reply import ConnectedReply, client_address, client_closed_request
from nfox.serve.error_handlers import add_error_handlers
from nfox.serve.errors import Json, error_response
from nfox.serve.pages import page_routes
from nfox.serve.pending_reply import Event
from nfox.serve.responses import ChatResponse, ResponseBuilder, TextResponse
from nfox.serve.schemas import ChatCompletion, Completion, CompletionBody, ModelName, Prediction
from nfox.serve.served_model import ServedModel
from nfox.version import __version__

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description}
    for status, description in {
        400: "The request cannot be answered as it is",
        401: "The key is missing or wrong",
        403: "A page of another origin asked",
        404: "There is no such model",
        408: "The body did not arrive in time",
        413: "The body is too large",
        415: "The body is not JSON by its type",
        421: "The server is not called by this name",
        429: "Too many requests are waiting",
        503: "Its time passed before anything came of it, or something here was missing",
    }.items()
}


def make_app(served: ServedModel) -> FastAPI:
    """Return the application; `nfox.serve.middleware.RequestGuard` goes around it.

    Args:
        served: the model that answers.
    """
    # FastAPI's own page of the API takes its scripts from elsewhere.
    app = FastAPI(title="nfox", version=__version__, docs_url=None, redoc_url=None)
    add_error_handlers(app, served.metrics)
    for router in (_completion_routes(served), _model_routes(served), _process_routes(served)):
        app.include_router(router, responses=_ERROR_RESPONSES)
    app.include_router(page_routes(app, served.worker.engine.model.name))
    return app


async def _collect(reply: ConnectedReply, builder: ResponseBuilder) -> bool:
    """Add all events to a response; return whether it is complete, else the client has gone."""
    async with aclosing(reply.events()) as events:
        async for event in events:
            builder.add(event)
    return builder.complete


async def _chunks(
    events: AsyncGenerator[Event], first: Event, builder: ResponseBuilder, *, include_usage: bool
) -> AsyncGenerator[Json]:
    """Yield the chunks of a stream.

    Args:
        events: the events after the first one.
        first: the first event.
        builder: of the response.
        include_usage: whether the last chunk has the usage.
    """
    async with aclosing(events):
        for chunk in builder.opening_chunks():
            yield chunk
        yield builder.add(first)
        try:
            async for event in events:
                yield builder.add(event)
        except Exception as error:  # the status is sent already
            yield error_response(error)[1]
            return
        if include_usage:
            yield builder.usage_chunk()


async def _respond(
    reply: ConnectedReply, builder: ResponseBuilder, body: CompletionBody
) -> Response:
    """Return the response to a completion, whole or as a stream."""
    if not body.stream:
        complete = await _collect(reply, builder)
        return JSONResponse(builder.response()) if complete else client_closed_request()
    events = reply.events()
    first = await anext(events, None)  # an error before it gets a status code
    if first is None:
        return client_closed_request()
    return _event_stream(_chunks(events, first, builder, include_usage=body.include_usage))


def _event_stream(chunks: AsyncGenerator[Json]) -> StreamingResponse:
    """Return chunks as server-sent events, with OpenAI's mark at their end."""

    async def lines() -> AsyncGenerator[str]:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers=_STREAM_HEADERS)


def _completion_routes(served: ServedModel) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions", summary="Answer a conversation")
    async def chat_completions(http: Request, body: ChatCompletion) -> Response:
        request = served.chat_request(body, client_address(http))
        builder = ChatResponse(request, body.model or served.name, body.n)
        return await _respond(ConnectedReply(http, served.worker, request), builder, body)

    @router.post("/v1/completions", summary="Go on with a text")
    async def completions(http: Request, body: Completion) -> Response:
        request = served.completion_request(body, client_address(http))
        builder = TextResponse(request, body.model or served.name, body.n)
        return await _respond(ConnectedReply(http, served.worker, request), builder, body)

    @router.post("/predict", summary="A text and what follows it, as one string")
    async def predict(http: Request, body: Prediction) -> Response:
        request = served.prediction_request(body, client_address(http))
        builder = TextResponse(request, served.name)
        if not await _collect(ConnectedReply(http, served.worker, request), builder):
            return client_closed_request()
        return JSONResponse(body.prompt + builder.texts[0])

    return router


def _model_routes(served: ServedModel) -> APIRouter:
    router, created = APIRouter(), int(time.time())

    def model_object(name: str) -> Json:
        served.check(name)
        context = served.worker.engine.max_context
        known = {
            "id": name or served.name,
            "object": "model",
            "created": created,
            "owned_by": "nfox",
        }
        return known | {"max_model_len": context, "method": served.method_of(name)}

    @router.get("/v1/models", summary="The model, and the model with each method")
    async def models() -> Json:
        return {"object": "list", "data": [model_object(name) for name in served.names]}

    @router.get("/v1/models/{name:path}", summary="One of them")
    async def one_model(name: str) -> Json:
        return model_object(name)

    @router.post("/load_model", summary="Asked by `transformers chat` before it begins")
    async def load_model(body: ModelName) -> Response:
        model_object(body.model)  # refuses unknown ones
        line = json.dumps({"status": "ready", "cached": True})
        return Response(f"data: {line}\n\n", media_type="text/event-stream")

    return router


def _process_routes(served: ServedModel) -> APIRouter:
    router = APIRouter()

    @router.get("/health", summary="Whether it is there, and what it does")
    async def health() -> Json:
        worker = served.worker
        return {"status": "ok", "running": worker.running, "waiting": worker.waiting}

    @router.get("/metrics", summary="For Prometheus")
    async def prometheus() -> Response:
        return Response(served.metrics.text(), media_type="text/plain; version=0.0.4")

    return router
