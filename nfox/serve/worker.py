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
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from nfox.conversation import Message
from nfox.errors import ContextError, NfoxError
from nfox.serve.app import Run, add_error_handlers
from nfox.serve.engine import Delta, Question
from nfox.serve.errors import Busy, Late, describe
from nfox.serve.openai import Json, TextAnswer
from nfox.serve.schemas import Generating
from nfox.serve.served import Served

log = logging.getLogger(__name__)

_MARK = "\x02{}\x03"
_MARKED = re.compile("\x02(system|user|assistant)\x03")
_SECONDS = 5.0  # the controller may take to answer


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
    """Return what a prompt asks: the messages between its marks, or to go on with it."""
    before, *marked = _MARKED.split(prompt)
    if before or not marked:
        return Question(text=prompt)
    turns = [Message(*turn) for turn in zip(marked[::2], marked[1::2], strict=True)]
    if turns[-1].role == "assistant" and not turns[-1].content:
        turns.pop()  # the mark for the reply
    return Question(tuple(turn for turn in turns if turn.content or turn.role != "system"))


class Controller:
    """FastChat's controller, as a worker knows it.

    Args:
        url: of the controller.
        own: this worker's, as the others reach it.
        served: what it answers with.
        seconds: between two signs of life.
    """

    def __init__(self, url: str, own: str, served: Served, seconds: float) -> None:
        self._url = url.rstrip("/")
        self._own = own.rstrip("/")
        self._served = served
        self._seconds = seconds
        self._changed = asyncio.Event()

    def status(self) -> Json:
        """Return what the controller chooses a worker by."""
        engine = self._served.engine
        waiting = engine.running + engine.waiting
        return {"model_names": self._served.names, "speed": 1, "queue_length": waiting}

    def tell(self) -> None:
        """Say at once how long the queue is now, or the controller would go on counting alone."""
        self._changed.set()

    async def live(self) -> None:
        """Register, then give signs of life for good; register again with a controller that has
        forgotten, and wait for one that is gone.
        """
        async with httpx.AsyncClient(base_url=self._url, timeout=_SECONDS) as http:
            known = False
            while True:
                try:
                    known = await (self._beat(http) if known else self._register(http))
                except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                    log.warning("no answer from the controller at %s: %r", self._url, error)
                try:
                    await asyncio.wait_for(self._changed.wait(), self._seconds if known else 1.0)
                    self._changed.clear()
                except TimeoutError:
                    pass

    async def _register(self, http: httpx.AsyncClient) -> bool:
        asked = {
            "worker_name": self._own,
            "check_heart_beat": True,
            "worker_status": self.status(),
            "multimodal": False,
        }
        (await http.post("/register_worker", json=asked)).raise_for_status()
        log.info("registered with the controller at %s", self._url)
        return True

    async def _beat(self, http: httpx.AsyncClient) -> bool:
        said = {"worker_name": self._own, "queue_length": self.status()["queue_length"]}
        answer = await http.post("/receive_heart_beat", json=said)
        return bool(answer.raise_for_status().json()["exist"])


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
    add_error_handlers(app)
    _add_routes(app, served, known)
    return app


def _add_routes(app: FastAPI, served: Served, controller: Controller) -> None:
    @app.post("/worker_generate_stream")
    async def generate_stream(request: Request) -> StreamingResponse:
        body = await request.body()  # now: a stream reads nothing but that its client hangs up
        return StreamingResponse(_lines(_answers(request, body, served, controller)))

    @app.post("/worker_generate")
    async def generate(request: Request) -> Json:
        body = await request.body()
        return [answer async for answer in _answers(request, body, served, controller)][-1]

    @app.post("/worker_get_status")
    async def status() -> Json:
        return controller.status()

    @app.post("/count_token")
    async def count(asked: Generating) -> Json:
        return {"count": served.engine.count(parse(asked.prompt)), "error_code": 0}

    @app.post("/worker_get_conv_template")
    async def conversation() -> Json:
        return {"conv": template()}

    @app.post("/model_details")
    async def details() -> Json:
        return {"context_length": served.engine.chat.max_context}

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
        run = Run(request, served.engine, served.generation(asked, question))
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
    return {"text": said, "error_code": int(code)}
