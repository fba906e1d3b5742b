"""A FastChat model worker: its controller sends requests of its API server and web page here.

The protocol is FastChat's, the code is not its `BaseModelWorker`: that one takes over stdout,
writes log files where it runs, guesses templates by model names, and dies with its controller.

FastChat renders conversations itself, by templates of its own. To give the model those it was
trained with, the worker hands out a template that only marks whose turn it is, and renders the
messages between the marks as the chat does. A text without marks is gone on with as it is.
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
from nfox.serve.app import Run, add_error_handlers, first_mistake, gone
from nfox.serve.errors import Busy, Late, describe
from nfox.serve.fastchat_controller import Controller
from nfox.serve.jobs import Delta, Question
from nfox.serve.requests import Served
from nfox.serve.responses import Json, TextAnswer
from nfox.serve.schemas import MOST_TURNS, Generating
from nfox.text.messages import Message

_MARK = "\x02{}\x03"
_MARKED = re.compile("\x02(system|user|assistant)\x03")


def template() -> Json:
    """Return the template that FastChat is to render conversations by."""
    fastchat = import_module("fastchat.conversation")
    marks = fastchat.Conversation(
        name="nfox",
        system_template=_MARK.format("system") + "{system_message}",
        roles=(_MARK.format("user"), _MARK.format("assistant")),
        sep_style=fastchat.SeparatorStyle.NO_COLON_SINGLE,
        sep="",
    )
    return dataclasses.asdict(marks)


def parse(prompt: str) -> Question:
    """Return what a prompt asks: the messages between its marks, or to go on with it.

    Raises:
        UsageError: if there are too many.
    """
    before, *marked = _MARKED.split(prompt)
    if before or not marked:
        return Question(text=prompt)
    if len(marked) > 2 * MOST_TURNS:
        raise UsageError(f"a conversation may have {MOST_TURNS} messages", "start a new one")
    turns = [Message(*turn) for turn in zip(marked[::2], marked[1::2], strict=True)]
    if turns[-1].role == "assistant" and not turns[-1].content:
        turns.pop()  # the mark for the reply
    return Question(tuple(turn for turn in turns if turn.content or turn.role != "system"))


def make_worker(served: Served, controller: str, own: str, seconds: float | None = None) -> FastAPI:
    """Return the application of a worker, which registers when it starts.

    Args:
        served: what answers.
        controller: its URL.
        own: this worker's URL, as the controller and the API server reach it.
        seconds: between two signs of life; FastChat's own by default.
    """
    interval = seconds or import_module("fastchat.constants").WORKER_HEART_BEAT_INTERVAL
    known = Controller(controller, own, served, interval)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        living = asyncio.create_task(known.live())
        yield
        living.cancel()

    app = FastAPI(title="nfox", lifespan=lifespan, openapi_url=None)
    add_error_handlers(app, served.metrics)
    _add_routes(app, served, known)
    return app


def _add_routes(app: FastAPI, served: Served, controller: Controller) -> None:
    @app.post("/worker_generate_stream")
    async def generate_stream(request: Request) -> StreamingResponse:
        body = await request.body()  # now: a stream reads nothing but that its client hangs up
        return StreamingResponse(_lines(_answers(request, body, served, controller)))

    @app.post("/worker_generate")
    async def generate(request: Request) -> Response:
        last, body = None, await request.body()
        async for last in _answers(request, body, served, controller):  # noqa: B007
            pass
        return gone() if last is None else JSONResponse(last)

    @app.post("/worker_get_status")
    async def status() -> Json:
        return controller.status()

    @app.post("/count_token")
    async def count(asked: Generating) -> Json:
        question = parse(asked.prompt)
        counted = await asyncio.to_thread(served.worker.count, question)
        return {"count": counted, "error_code": 0}

    @app.post("/worker_get_conv_template")
    async def conversation() -> Json:
        return {"conv": template()}

    @app.post("/model_details")
    async def details() -> Json:
        return {"context_length": served.worker.engine.max_context}

    @app.post("/worker_get_embeddings")
    async def embeddings() -> JSONResponse:
        code = _codes().PARAM_OUT_OF_RANGE
        return JSONResponse({"text": "this model gives no embeddings", "error_code": int(code)})


async def _answers(
    request: Request, body: bytes, served: Served, controller: Controller
) -> AsyncGenerator[Json]:
    """Yield a reply as FastChat wants it: all of its text so far, each time."""
    try:
        params = json.loads(body)
        echo = params.pop("echo", True) if isinstance(params, dict) else True
        asked = Generating.model_validate(params)
        question = parse(asked.prompt)
        run = Run(request, served.worker, served.generation(asked, question))
    except (NfoxError, ValueError, RecursionError) as error:
        yield _failure(error)
        return
    answer, text = TextAnswer(served.name), asked.prompt if echo and question.text else ""
    controller.tell()
    try:
        async with aclosing(run.events()) as events:
            async for event in events:
                answer.take(event)
                if isinstance(event, Delta):
                    text += "".join(piece.text for piece in event.pieces)
                    yield {"text": text, "error_code": 0, "finish_reason": None}
                else:
                    ended = "stop" if event.reply.finish == "stop" else "length"
                    done = {"text": text, "error_code": 0, "finish_reason": ended}
                    yield done | {"usage": answer.usage()}
    except Exception as error:
        yield _failure(error)
    finally:
        controller.tell()


async def _lines(answers: AsyncGenerator[Json]) -> AsyncGenerator[bytes]:
    async with aclosing(answers):
        async for answer in answers:
            yield json.dumps(answer).encode() + b"\0"


def _codes() -> Any:
    return import_module("fastchat.constants").ErrorCode


def _failure(error: Exception) -> Json:
    """Return an error as FastChat tells it."""
    codes = _codes()
    kinds: tuple[tuple[type[Exception], Any], ...] = (
        (ContextError, codes.CONTEXT_OVERFLOW),
        (Busy, codes.ENGINE_OVERLOADED),
        (Late, codes.ENGINE_OVERLOADED),
        (NfoxError, codes.PARAM_OUT_OF_RANGE),
        (ValueError, codes.VALIDATION_TYPE_ERROR),
        (RecursionError, codes.VALIDATION_TYPE_ERROR),
        (Exception, codes.INTERNAL_ERROR),
    )
    code = next(code for kind, code in kinds if isinstance(error, kind))
    said = describe(error)[1]["error"]["message"]
    if isinstance(error, ValidationError):
        said = first_mistake(error.errors())
    elif isinstance(error, ValueError | RecursionError):
        said = f"not JSON: {error}"
    return {"text": said, "error_code": int(code)}
