"""Requests that no person would send: none may make the server fail, hang, or forget to say why.

    python benchmarks/fuzz.py --count 10000

Half of them are made by schemathesis from the server's own OpenAPI schema, valid and not; the
others are valid requests of which bytes, values or turns were changed. The server is in this
process, with a small random model and a short context.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import schemathesis
import small_model
from changes import ODD, damage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.types import ASGIApp

_TIMEOUT = 60.0  # seconds that a request may take
_POSTS = ("/v1/chat/completions", "/v1/completions", "/predict", "/load_model")
_VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": [{"type": "text", "text": "äöü 😀"}]},
        ],
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1, "n": 1,
        "max_tokens": 4, "stop": ["x"], "stream": False, "logprobs": True, "top_logprobs": 2,
        "repetition_penalty": 1.1, "stream_options": {"include_usage": True}, "user": "me",
        "generation_config": '{"do_sample": true}',
    },
    "/v1/completions": {"prompt": [1, 2, 3], "max_tokens": 3, "logprobs": 1, "stream": True},
    "/predict": {"prompt": "hello", "max_tokens": 3},
    "/load_model": {"model": "x"},
}  # fmt: skip
_ROLES = ("system", "developer", "user", "assistant")


@dataclass
class Outcome:
    """How odd requests were answered.

    Args:
        statuses: the number of answers by their HTTP status.
        wrong: a line for each request that was not answered as it must be.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class _Sender:
    """Sends requests to an application, and checks its answers."""

    def __init__(self, app: ASGIApp) -> None:
        # An error that the application lets through is one of the server.
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.outcome = Outcome()

    def send(self, method: str, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Send a request, and note an answer that is not as it must be."""
        request = f"{method} {path} {content[:300]!r} {headers}"
        try:
            answer = asyncio.run(self._answer(method, path, content, headers))
        except TimeoutError:
            self.outcome.wrong.append(f"no answer to {request}")
            return
        except (httpx.InvalidURL, UnicodeError):  # the client would not send it
            return
        self.outcome.statuses[answer.status_code] += 1
        if complaint := _complaint(answer):
            self.outcome.wrong.append(f"{complaint}: {request}")

    def send_case(self, case: Any) -> None:
        """Send a request of schemathesis."""
        fields = case.as_transport_kwargs(base_url="http://localhost")
        request = httpx.Request(
            fields["method"],
            fields["url"],
            params=fields.get("params"),
            json=fields.get("json"),
            content=_bytes(fields.get("data")),
        )
        path = request.url.raw_path.decode()
        self.send(request.method, path, request.read(), dict(request.headers))

    async def _answer(
        self, method: str, path: str, content: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        async with (
            asyncio.timeout(_TIMEOUT),
            httpx.AsyncClient(transport=self._transport, base_url="http://localhost") as http,
        ):
            return await http.request(method, path, content=content, headers=headers)


def _complaint(answer: httpx.Response) -> str:
    """Return why an answer is not as it must be; "" if it is."""
    if answer.status_code >= 500:
        return f"HTTP {answer.status_code} {answer.text[:200]}"
    if answer.status_code < 400:
        return "an error in a stream" if 'data: {"error"' in answer.text else ""
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return f"HTTP {answer.status_code} without a word: {answer.text[:200]}"
    return "" if message or answer.request.method == "HEAD" else f"HTTP {answer.status_code}, empty"


def fuzz(app: ASGIApp, count: int, seed: int = 0) -> Outcome:
    """Send odd requests to an application.

    Args:
        app: the server's application.
        count: the number of requests, at least.
        seed: of the requests.
    """
    sender = _Sender(app)
    _by_schema(sender, app, count // 2, seed)
    _by_changes(sender, count - sum(sender.outcome.statuses.values()), seed)
    return sender.outcome


def _by_schema(sender: _Sender, app: ASGIApp, count: int, seed: int) -> None:
    """Send requests that schemathesis makes of the schema, valid and not."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    described = [each.ok() for each in schema.get_all_operations()]
    operations = [each for each in described if each.body or each.path_parameters]
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    each = -(-count // (len(operations) * len(modes)))
    quick = settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for operation in operations:
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)
            if mode is GenerationMode.POSITIVE:
                cases = cases.map(_with_known_model)
            send = seeded(seed)(quick(given(case=cases)(lambda case: sender.send_case(case))))
            with suppress(Unsatisfiable):  # some can be given nothing wrong
                send()


def _with_known_model(case: Any) -> Any:
    """Return a request that names a model which the server has: no schema tells its name."""
    if isinstance(case.body, dict):
        case.body = {**case.body, "model": "default", "method": None}
    return case


def _bytes(data: Any) -> bytes | None:
    return data if isinstance(data, bytes | None) else str(data).encode(errors="replace")


def _by_changes(sender: _Sender, count: int, seed: int) -> None:
    """Send valid requests in which values, turns or bytes were changed."""
    numbers = random.Random(seed)
    for _ in range(count):
        path = numbers.choice(_POSTS)
        body = json.loads(json.dumps(_VALID[path]))
        for _ in range(numbers.randint(1, 3)):
            _change(body, numbers)
        content = json.dumps(body).encode()
        if numbers.random() < 0.3:
            content = damage(content, numbers)
        kind = numbers.choice(("application/json",) * 9 + ("text/plain",))
        sender.send("POST", path, content, {"content-type": kind})


def _change(body: dict[str, Any], numbers: random.Random) -> None:
    """Change a value, or the order of the turns."""
    turns, chance = body.get("messages"), numbers.random()
    if isinstance(turns, list) and chance < 0.4:
        roles = numbers.choices(_ROLES, k=numbers.randint(1, 6))
        texts = [numbers.choice(("", " ", "hi", "@reply1;")) for _ in roles]
        body["messages"] = [
            {"role": role, "content": text} for role, text in zip(roles, texts, strict=True)
        ]
    elif (
        isinstance(turns, list) and turns and isinstance(turns[-1], dict) and numbers.random() < 0.3
    ):
        turns[-1][numbers.choice(("role", "content", "type"))] = numbers.choice(ODD)
    else:
        body[numbers.choice([*body, "tools", "method", "model", "x"])] = numbers.choice(ODD)


def main() -> None:
    """Start a server in this process, send it odd requests, and print how they were answered."""
    from nfox import load
    from nfox.serve.app import make_app
    from nfox.serve.metrics import Metrics
    from nfox.serve.middleware import RequestGuard
    from nfox.serve.served_model import ServedModel
    from nfox.serve.worker import Worker

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        engine = load(str(small_model.save(Path(folder))))
        served = ServedModel("tiny", Worker(engine, [engine.method]), Metrics())
        app = RequestGuard(make_app(served), key=None, max_body_bytes=1 << 20)
        outcome = fuzz(app, arguments.count, arguments.seed)
    print(json.dumps({"answers": dict(sorted(outcome.statuses.items()))}))
    print("\n".join(outcome.wrong[:50]), file=sys.stderr)
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
