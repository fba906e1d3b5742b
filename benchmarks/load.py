"""Many clients at once: every reply must be the one that plain decoding gives, to the last token.

    python benchmarks/load.py --clients 64 --minutes 10 --out load.json

Starts `nfox serve` with the embedded model in float32 and asks it for as long as it was told: whole
replies and streams, greedy and sampled, by every method, one turn or two, clients that hang up and
requests that are wrong. The expected replies are decoded here before, plainly. The server's memory
is measured every second, or more often in a run of less than a minute; after warm-up (a fifth of
the time) it must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import httpx
import psutil

from nfox import Conversation, Engine, ModelOptions, Sampling, Settings, __version__, load
from nfox.drafters import plain_method

Messages = tuple[dict[str, str], ...]
_TOKENS = 24
_MEASUREMENTS = 50  # of the memory, at the least
_QUESTIONS = (
    "Hello, who are you?",
    "Tell me a joke.",
    "I want to find a restaurant in San Jose.",
    "What is 12 plus 30?",
    "Count to seven.",
    "Is it going to rain tomorrow?",
)
_WRONG: tuple[bytes, ...] = (
    b"{",
    b'{"messages": []}',
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": -1}',
    b'{"messages": [{"role": "user", "content": "x"}], "model": "another"}',
)


@dataclass(frozen=True)
class Ask:
    """A request and the reply that it must have.

    Args:
        messages: of the request.
        sampling: fields of the request.
        text: of the reply.
        before: the turn before, whose reply is asked for first: a server that has not given it
            itself can only tokenise its text anew.
    """

    messages: Messages
    sampling: dict[str, float]
    text: str
    before: Ask | None = None


@dataclass
class Report:
    """What clients and the server's memory showed.

    Args:
        counts: of requests, by kind.
        wrong: a line for each answer that was not as it must be.
        tokens: that the server wrote.
        waits: seconds until the first token of each stream.
        memory: bytes that the server used, one measurement after the other.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    waits: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """Return the share by which the server's memory grew after warm-up: from the median of the
        second fifth of the measurements to that of the last.
        """
        size = max(1, len(self.memory) // 5)
        after, last = self.memory[size : 2 * size], self.memory[-size:]
        return statistics.median(last) / statistics.median(after) - 1


def expectations(engine: Engine, questions: Sequence[str] = _QUESTIONS) -> list[Ask]:
    """Return requests with their replies: each question, sampled too, and a second turn."""
    asks: list[Ask] = []
    for number, question in enumerate(questions):
        conversation, messages = Conversation(engine), list[dict[str, str]]()
        engine.use_settings(Settings(max_new_tokens=_TOKENS))
        before = None
        for turn in (question, "And then?"):
            for _ in conversation.send(turn):
                pass
            messages.append({"role": "user", "content": turn})
            text = conversation.messages[-1].content
            before = Ask(tuple(messages), {"temperature": 0}, text, before)
            asks.append(before)
            messages.append({"role": "assistant", "content": text})
        sampling = Sampling(temperature=0.8, seed=number)
        settings = Settings(sampling=sampling, max_new_tokens=_TOKENS)
        reply = engine.answer(engine.request(question, settings, number=0))
        first = ({"role": "user", "content": question},)
        asks.append(Ask(first, {"temperature": 0.8, "seed": number}, reply.text))
    return asks


class Client:
    """One of many clients: sends one request after the other, and compares the replies.

    Args:
        http: the connection of all clients.
        asks: the requests that it chooses from.
        methods: that it chooses from.
        report: of all clients.
        seed: of its choices.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        asks: Sequence[Ask],
        methods: Sequence[str],
        report: Report,
        seed: int,
    ) -> None:
        self._http, self._asks, self._methods, self._report = http, asks, methods, report
        self._random = random.Random(seed)
        self._name = str(seed)

    async def ask_until(self, end: float) -> None:
        """Send requests until a time of the event loop."""
        kinds = {"whole": 40, "stream": 50, "hang up": 5, "wrong": 5}
        while asyncio.get_running_loop().time() < end:
            (kind,) = self._random.choices([*kinds], [*kinds.values()])
            ask = self._random.choice(self._asks)
            try:
                if ask.before:
                    await self._do("whole", ask.before)
                await self._do(kind, ask)
            except httpx.HTTPError as error:
                self._report.wrong.append(f"{kind}: {error!r}")

    async def _do(self, kind: str, ask: Ask) -> None:
        self._report.counts[kind] += 1
        body = {
            "messages": ask.messages,
            "max_tokens": _TOKENS,
            "user": self._name,
            "method": self._random.choice(self._methods),
            **ask.sampling,
        }
        if kind == "wrong":
            await self._ask_wrongly()
        elif kind == "whole":
            answer = await self._http.post("/chat/completions", json=body)
            if self._status(answer.status_code, answer.text):
                data = answer.json()
                text = data["choices"][0]["message"]["content"]
                self._compare(ask, text, data["usage"]["speculation"]["runs"], body)
                self._report.tokens += data["usage"]["completion_tokens"]
        else:
            await self._stream(ask, body, hang_up=kind == "hang up")

    async def _ask_wrongly(self) -> None:
        answer = await self._http.post(
            "/chat/completions",
            content=self._random.choice(_WRONG),
            headers={"content-type": "application/json"},
        )
        if not 400 <= answer.status_code < 500 or "message" not in answer.json()["error"]:
            self._report.wrong.append(f"a wrong request: {answer.status_code} {answer.text}")

    async def _stream(self, ask: Ask, body: dict[str, Any], *, hang_up: bool) -> None:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        begin, text, runs, usage = time.perf_counter(), "", list[Any](), None
        async with self._http.stream("POST", "/chat/completions", json=body) as answer:
            if answer.status_code != httpx.codes.OK:
                self._status(answer.status_code, (await answer.aread()).decode())
                return
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                data = json.loads(line.removeprefix("data: "))
                if "error" in data:
                    self._report.wrong.append(f"in a stream: {data}")
                    return
                usage = data.get("usage")
                for choice in data["choices"]:
                    if piece := choice["delta"].get("content"):
                        self._report.waits += [] if text else [time.perf_counter() - begin]
                        text += piece
                        runs += data["speculation"]["runs"]
                if hang_up and text:
                    return
        self._compare(ask, text, runs, body)
        self._report.tokens += usage["completion_tokens"] if usage else 0

    def _status(self, status: int, text: str) -> bool:
        if status != httpx.codes.OK:
            self._report.wrong.append(f"HTTP {status}: {text}")
        return status == httpx.codes.OK

    def _compare(self, ask: Ask, text: str, runs: list[Any], body: dict[str, Any]) -> None:
        if text != ask.text or sum(length for length, _ in runs) != len(text):
            self._report.wrong.append(f"{body}: {text!r} instead of {ask.text!r}, {runs}")


async def press(
    url: str, pid: int, asks: Sequence[Ask], *, clients: int, seconds: float, seed: int = 0
) -> Report:
    """Let many clients send requests to a server, and measure its memory meanwhile.

    Args:
        url: of the server's API.
        pid: of the server's process.
        asks: requests, and the replies that they must have.
        clients: the number of clients.
        seconds: the time in which clients begin new requests.
        seed: of their choices.
    """
    report, process = Report(), psutil.Process(pid)
    end = asyncio.get_running_loop().time() + seconds
    limits = httpx.Limits(max_connections=2 * clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        listed = (await http.get("/models")).json()["data"]
        methods = [model["id"].rpartition(":")[2] for model in listed[1:]]

        async def watch() -> None:
            while True:
                report.memory.append(process.memory_info().rss)
                await asyncio.sleep(min(1, seconds / _MEASUREMENTS))

        watching = asyncio.create_task(watch())
        each = [Client(http, asks, methods, report, seed * 10_000 + n) for n in range(clients)]
        await asyncio.gather(*(client.ask_until(end) for client in each))
        watching.cancel()
    return report


def main() -> None:
    """Start a server, press it, and write a summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    asks = expectations(load(method=plain_method(), loading=ModelOptions(dtype="float32")))
    command = [sys.executable, "-m", "nfox.cli", "serve", "--port", "0", "--dtype", "float32"]
    with TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            pressing = press(
                _address(server, log),
                server.pid,
                asks,
                clients=arguments.clients,
                seconds=60 * arguments.minutes,
                seed=arguments.seed,
            )
            report = asyncio.run(pressing)
        finally:
            server.kill()
        log.seek(0)
        report.wrong += [line for line in log if "Error" in line or "Exception" in line]
    summary = _summary(report, arguments.clients, 60 * arguments.minutes)
    print(json.dumps(summary, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print("\n".join(report.wrong[:20]), file=sys.stderr)
    sys.exit(bool(report.wrong))


def _address(server: subprocess.Popen[bytes], log: IO[str]) -> str:
    """Return the URL that a server logs, once it has started."""
    while server.poll() is None:
        log.seek(0)
        if started := re.search(r" at (http://[^;]+)(?s:.*)models:", log.read()):
            return started[1]
        time.sleep(0.1)
    raise SystemExit("the server ended before it began")


def _summary(report: Report, clients: int, seconds: float) -> dict[str, Any]:
    waits = sorted(report.waits)
    return {
        "command": f"python benchmarks/load.py --clients {clients} --minutes {seconds / 60:g}",
        "nfox": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "requests": dict(report.counts),
        "errors": len(report.wrong),
        "tokens": report.tokens,
        "seconds_to_first_token": {
            "median": round(statistics.median(waits), 2) if waits else None,
            "99 %": round(waits[int(0.99 * (len(waits) - 1))], 2) if waits else None,
        },
        "megabytes": [size >> 20 for size in report.memory[:: max(1, len(report.memory) // 20)]],
        "growth_after_warm_up": round(report.growth(), 4),
    }


if __name__ == "__main__":
    main()
