"""A FastChat model worker: its controller sends requests of its API server and web page here.

The protocol is FastChat's, the code is not its `BaseModelWorker`: that one takes over stdout,
writes log files where it runs, guesses templates by model names, and dies with its controller.

FastChat renders conversations itself, by templates of its own. To give the model those it was
trained with, the worker hands out a template that only marks whose turn it is, and renders the
messages between the marks as the chat does. A text without marks is continued as it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError

from nfox.errors import ContextError, NfoxError, UsageError
from nfox.serve.connected_reply import ConnectedReply, client_closed_request
from nfox.serve.error_handlers import add_error_handlers, first_validation_error
from nfox.serve.errors import DeadlineExceeded, Json, QueueFull, error_response
from nfox.serve.fastchat_controller import ControllerClient
from nfox.serve.pending_reply import Delta, Question
from nfox.serve.responses import TextResponse
from nfox.serve.schemas import WorkerGenerateBody
from nfox.serve.served_model import ServedModel
from nfox.serve.turns import MAX_MESSAGES
from nfox.text.messages import Message

_MARK = "\x02{}\x03"
_MARKS = re.compile("\x02(system|user|assistant)\x03")


def marked_template() -> Json:
    """Return the template by which FastChat marks whose turn every message is, as its fields."""
    fastchat = import_module("fastchat.conversation")
    conversation = fastchat.Conversation(
        name="nfox",
        system_template=_MARK.format("system") + "{system_message}",
        roles=(_MARK.format("user"), _MARK.format("assistant")),
        sep_style=fastchat.SeparatorStyle.NO_COLON_SINGLE,
        sep="",
    )
    return dataclasses.asdict(conversation)


def parse_prompt(prompt: str) -> Question:
    """Return what a prompt asks: to answer the messages between its marks, or, if it does not begin
    with a mark, to continue it as a text.

    Raises:
        UsageError: if there are too many messages.
    """
    before, *marked = _MARKS.split(prompt)
    if before or not marked:
        return Question(text=prompt)
    if len(marked) > 2 * MAX_MESSAGES:
        raise UsageError(f"a conversation may have {MAX_MESSAGES} messages", "start a new one")
    messages = [Message(*turn) for turn in zip(marked[::2], marked[1::2], strict=True)]
    if messages[-1].role == "assistant" and not messages[-1].content:
        messages.pop()  # the mark for the reply
    return Question(
        tuple(message for message in messages if message.content or message.role != "system")
    )


def make_worker_app(
    served: ServedModel,
    controller_url: str,
    worker_url: str,
    heartbeat_seconds: float | None = None,
) -> FastAPI:
    """Return the application of a worker, which registers with its controller when it starts.

    Args:
        served: the model that answers.
        controller_url: the controller's URL.
        worker_url: this worker's URL, as the controller and the API server reach it.
        heartbeat_seconds: the time between two heartbeats; None for FastChat's own.
    """
    if heartbeat_seconds is None:
        heartbeat_seconds = import_module("fastchat.constants").WORKER_HEART_BEAT_INTERVAL
    controller = ControllerClient(controller_url, worker_url, served, heartbeat_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        heartbeats = asyncio.create_task(controller.run())
        yield
        heartbeats.cancel()

    app = FastAPI(title="nfox", lifespan=lifespan, openapi_url=None)
    add_error_handlers(app, served.metrics)
    _add_routes(app, served, controller)
    return app


def _add_routes(app: FastAPI, served: ServedModel, controller: ControllerClient) -> None:
    @app.post("/worker_generate_stream")
    async def generate_stream(http: Request) -> StreamingResponse:
        body = await http.body()  # now: while a stream is sent, only the client's end is received
        return StreamingResponse(_stream_lines(_growing_replies(http, body, served, controller)))

    @app.post("/worker_generate")
    async def generate(http: Request) -> Response:
        last, body = None, await http.body()
        async for last in _growing_replies(http, body, served, controller):  # noqa: B007
            pass
        return client_closed_request() if last is None else JSONResponse(last)

    @app.post("/worker_get_status")
    async def status() -> Json:
        return controller.status()

    @app.post("/count_token")
    async def count_tokens(body: WorkerGenerateBody) -> Json:
        question = parse_prompt(body.prompt)
        count = await asyncio.to_thread(served.worker.count_tokens, question)
        return {"count": count, "error_code": 0}

    @app.post("/worker_get_conv_template")
    async def conversation_template() -> Json:
        return {"conv": marked_template()}

    @app.post("/model_details")
    async def model_details() -> Json:
        return {"context_length": served.worker.engine.max_context}

    @app.post("/worker_get_embeddings")
    async def embeddings() -> JSONResponse:
        code = _error_codes().PARAM_OUT_OF_RANGE
        return JSONResponse({"text": "this model gives no embeddings", "error_code": int(code)})


async def _growing_replies(
    http: Request, body: bytes, served: ServedModel, controller: ControllerClient
) -> AsyncGenerator[Json]:
    """Yield a reply as FastChat's protocol has it: with all of its text so far, each time. An error
    is the last thing that is yielded.
    """
    try:
        params = json.loads(body)
        echo = params.pop("echo", True) if isinstance(params, dict) else True
        fields = WorkerGenerateBody.model_validate(params)
        question = parse_prompt(fields.prompt)
        request = served.worker_request(fields, question)
        reply = ConnectedReply(http, served.worker, request)
    except (NfoxError, ValueError, RecursionError) as error:
        yield _error_reply(error)
        return
    controller.report_queue()
    builder = TextResponse(request, served.name)
    text = fields.prompt if echo and question.text else ""
    try:
        async with aclosing(reply.events()) as events:
            async for event in events:
                builder.add(event)
                if isinstance(event, Delta):
                    text += "".join(piece.text for piece in event.pieces)
                    yield {"text": text, "error_code": 0, "finish_reason": None}
                else:
                    reason = "stop" if event.reply.finish == "stop" else "length"
                    last = {"text": text, "error_code": 0, "finish_reason": reason}
                    yield last | {"usage": builder.usage()}
    except Exception as error:
        yield _error_reply(error)
    finally:
        controller.report_queue()


async def _stream_lines(replies: AsyncGenerator[Json]) -> AsyncGenerator[bytes]:
    """Yield JSON objects with a zero byte behind each, as FastChat divides its streams."""
    async with aclosing(replies):
        async for reply in replies:
            yield json.dumps(reply).encode() + b"\0"


def _error_codes() -> Any:
    return import_module("fastchat.constants").ErrorCode


def _error_reply(error: Exception) -> Json:
    """Return an error as FastChat's protocol has it."""
    codes = _error_codes()
    rows: tuple[tuple[type[Exception], Any], ...] = (
        (ContextError, codes.CONTEXT_OVERFLOW),
        (QueueFull, codes.ENGINE_OVERLOADED),
        (DeadlineExceeded, codes.ENGINE_OVERLOADED),
        (NfoxError, codes.PARAM_OUT_OF_RANGE),
        (ValueError, codes.VALIDATION_TYPE_ERROR),
        (RecursionError, codes.VALIDATION_TYPE_ERROR),
        (Exception, codes.INTERNAL_ERROR),
    )
    code = next(code for kind, code in rows if isinstance(error, kind))
    message = error_response(error)[1]["error"]["message"]
    if isinstance(error, ValidationError):
        message, _ = first_validation_error(error.errors())
    elif isinstance(error, ValueError | RecursionError):
        message = f"not JSON: {error}"
    return {"text": message, "error_code": int(code)}
