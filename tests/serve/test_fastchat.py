"""FastChat's own controller and API server over workers of ours, on loopback."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import folder
import httpx
import openai
import pytest
import servers
from servers import TINY, Server
from serving import QUESTION, load_tiny
from typer.testing import CliRunner

from nfox import Conversation, Message, drafters
from nfox.cli.app import app
from nfox.serve.fastchat_worker import marked_template, parse_prompt

NAME = "tiny"
ENDLESS = {"context": 4096, "endless": True}  # a reply is not over before its worker is killed
API = Path(servers.__file__).with_name("fastchat_api.py")


def rendered(*turns: tuple[str, str]) -> str:
    """Return what FastChat's API server makes of messages."""
    fastchat = import_module("fastchat.conversation")
    fields = marked_template()
    written = fastchat.Conversation(
        **fields | {"sep_style": fastchat.SeparatorStyle(fields["sep_style"]), "messages": []}
    )
    for role, text in turns:
        if role == "system":
            written.set_system_message(text)
        else:
            written.append_message(written.roles[role == "assistant"], text)
    written.append_message(written.roles[1], None)
    return str(written.get_prompt())


@pytest.mark.parametrize(
    "turns",
    [
        [("user", "hello")],
        [("system", "be brief"), ("user", "hello")],
        [("user", "a\n\nb"), ("assistant", "c: {d}"), ("user", "user: x")],
    ],
)
def test_messages_come_back_from_what_fastchat_renders(turns: list[tuple[str, str]]) -> None:
    assert parse_prompt(rendered(*turns)).messages == tuple(Message(*turn) for turn in turns)


def test_a_text_without_marks_is_gone_on_with() -> None:
    assert parse_prompt("USER: hello ASSISTANT:").text == "USER: hello ASSISTANT:"
    assert parse_prompt("").text == ""


class FastChat:
    """A controller, an API server, and two workers, each a process.

    Args:
        controller: its URL.
        api: URL of the API server.
        workers: ours.
    """

    def __init__(self, controller: str, api: str, workers: list[Server]) -> None:
        self.controller = controller
        self.client = openai.OpenAI(base_url=f"{api}/v1", api_key="x", max_retries=0, timeout=60)
        self.workers = workers

    def ask(self, **more: object) -> str:
        asked = {"model": NAME, "messages": QUESTION, "temperature": 0, "max_tokens": 24} | more
        return str(self.client.chat.completions.create(**asked).choices[0].message.content)

    def queues(self) -> list[int]:
        """Return how many requests each worker has, -1 where it is gone."""
        return [status(worker.url) for worker in self.workers]

    def wait_for_busy_worker(self) -> Server:
        """Return the worker that has a request, as soon as one has."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for worker, queue in zip(self.workers, self.queues(), strict=True):
                if queue > 0:
                    return worker
        raise AssertionError("no worker got the request")


def status(url: str) -> int:
    try:
        return int(httpx.post(f"{url}/worker_get_status", timeout=5).json()["queue_length"])
    except httpx.HTTPError:
        return -1


@pytest.fixture(scope="module")
def fastchat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastChat]:
    tmp_path = tmp_path_factory.mktemp("fastchat")
    with ExitStack() as stack:

        def start(name: str, *program: str) -> str:
            port = servers.free_port()
            command = [sys.executable, *program, "--host", "127.0.0.1", "--port", str(port)]
            log = tmp_path / f"{name}-output.log"
            stack.enter_context(servers.running(command, tmp_path, log))
            return f"http://127.0.0.1:{port}"

        controller = start("controller", "-m", "fastchat.serve.controller")
        api = start("api", str(API), "--controller-address", controller)
        model = ("--model", str(folder.equipped(**ENDLESS)), "--served-model-name", NAME, *TINY)
        workers = [
            stack.enter_context(
                servers.nfox(tmp_path, "worker", "--controller", controller, *model)
            )
            for _ in range(2)
        ]
        for worker in workers:
            servers.waited(worker.process, worker.log, lambda: registered(controller, api, 2))
        yield FastChat(controller, api, workers)


def registered(controller: str, api: str, count: int) -> bool:
    """Whether the API server answers, and so many workers have registered."""
    try:
        httpx.get(f"{api}/v1/models", timeout=5).raise_for_status()
        found = {
            httpx.post(f"{controller}/get_worker_address", json={"model": NAME}, timeout=5).json()[
                "address"
            ]
            for _ in range(count)
        }
    except (httpx.HTTPError, KeyError):
        return False
    return len(found - {""}) == count


@pytest.mark.slow
def test_what_a_worker_cannot_do_is_told_and_it_goes_on(fastchat: FastChat) -> None:
    url = fastchat.workers[0].url
    generate = f"{url}/worker_generate"
    wrong = [
        ({"model": NAME}, 40001),
        ({"prompt": "x", "temperature": -1}, 40001),
        ({"prompt": "x", "presence_penalty": 1}, 40001),
        ({"prompt": "x", "model": "other"}, 40302),
        ({"prompt": "x" * 5000}, 40303),
        ([], 40001),
    ]
    for body, code in wrong:
        answer = httpx.post(generate, json=body, timeout=60).json()
        assert answer["error_code"] == code, answer
        assert answer["text"] and "its log" not in answer["text"]
    turns = [("user", "x"), ("assistant", "y")] * 300
    many = httpx.post(generate, json={"prompt": rendered(*turns)}, timeout=60).json()
    assert "512 messages" in many["text"]
    assert httpx.post(f"{url}/worker_get_embeddings", json={}).json()["error_code"] == 40302
    done = httpx.post(generate, json={"prompt": "the", "max_new_tokens": 3}, timeout=60).json()
    assert done["text"].startswith("the")
    assert done["usage"]["completion_tokens"] <= 3
    assert httpx.post(f"{url}/model_details", json={}).json() == {"context_length": 4096}
    counted = httpx.post(f"{url}/count_token", json={"prompt": rendered(("user", "hello"))}).json()
    prompt = list(load_tiny().request("hello").prompt.ids)
    assert counted["count"] == len(prompt)
    long = httpx.post(f"{url}/count_token", json={"prompt": "x" * 9000}).json()
    assert long["count"] > 4096, "it is FastChat that says that it does not fit"


@pytest.mark.slow
def test_fastchat_spreads_requests_and_goes_on_when_a_worker_is_killed(fastchat: FastChat) -> None:
    conversation = Conversation(
        load_tiny(folder.equipped(**ENDLESS), method=drafters.plain_method())
    )
    for _ in conversation.send(QUESTION[0]["content"]):
        pass
    expected = conversation.messages[-1].content.replace("\ufffd", "")  # FastChat takes these out
    assert NAME in [model.id for model in fastchat.client.models.list()]
    assert fastchat.ask().replace("\ufffd", "") == expected
    assert fastchat.ask(model=f"{NAME}:medusa").replace("\ufffd", "") == expected
    stream = fastchat.client.chat.completions.create(
        model=NAME, messages=QUESTION, temperature=0, max_tokens=24, stream=True
    )
    parts = [part.choices[0].delta.content or "" for part in stream]
    assert "".join(parts) == expected

    long = {"messages": QUESTION, "temperature": 1.0, "max_tokens": 3900, "stream": True}
    stream = fastchat.client.chat.completions.create(model=f"{NAME}:none", **long)
    # Looked for before a token is read: on a busy machine the worker may end before its reader.
    busy = fastchat.wait_for_busy_worker()
    iterator = iter(stream)
    next(iterator)
    busy.process.kill()
    busy.process.wait(30)  # until then its port still takes requests
    with pytest.raises((httpx.HTTPError, openai.APIError)):
        for _ in iterator:
            pass
    # FastChat's own server says 500 where it is handed the killed one; its clients ask again.
    fastchat.client = fastchat.client.with_options(max_retries=3)
    for _ in range(4):  # at once, before the controller knows
        assert fastchat.ask().replace("\ufffd", "") == expected
    assert sorted(queue >= 0 for queue in fastchat.queues()) == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--controller", "here:21001"], "--controller here:21001: expected http://HOST:PORT"),
        (["--worker-address", "http://"], "--worker-address http://: expected"),
        (["--host", "0.0.0.0", "--port", "0"], "does not say where this worker is reached"),
    ],
)
def test_addresses_that_nobody_can_reach_are_told(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["worker", *options])
    assert done.exit_code == 2
    assert said in done.stderr
