"""Real clients against a real server: the programs that people use, streaming included."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder
import httpx
import openai
import pexpect
import programs
import pytest
import servers
from programs import ENVIRONMENT
from servers import TINY, Server
from serving import QUESTION, chunks

pytestmark = pytest.mark.slow

TEXT = QUESTION[0]["content"]
ENDLESS = {"context": 4096, "endless": True}
LONG = {"messages": QUESTION, "stream": True, "max_tokens": 3900, "method": "none"}
"""A request that is not answered before its client or its server goes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    model = ("--model", str(folder.equipped(**ENDLESS)), "--served-model-name", "tiny")
    with servers.nfox(directory, "serve", *model, *TINY, real=True) as running:
        yield running


@pytest.fixture(scope="module")
def expected() -> str:
    """What the command line says."""
    done = programs.run("generate", TEXT, "--model", folder.equipped(**ENDLESS), *TINY)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["text"])


def run(command: list[str], directory: Path, **more: str) -> str:
    done = subprocess.run(
        command, cwd=directory, env=ENVIRONMENT | more, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_served_request_says_what_the_command_line_says(server: Server, expected: str) -> None:
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", json={"messages": QUESTION}, timeout=60
    )
    assert answer.json()["choices"][0]["message"]["content"] == expected


def test_the_openai_package(server: Server, expected: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none needed")
    names = [model.id for model in client.models.list()]
    assert names[0] == "tiny" and len(names) > 5
    for model in (names[0], names[-1]):
        whole = client.chat.completions.create(model=model, messages=QUESTION)
        assert whole.choices[0].message.content == expected
        assert whole.usage.model_extra["speculation"]["steps"] > 0
        stream = client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        parts = list(stream)
        assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == expected
        assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    tools: Any = [{"type": "function", "function": {"name": "count", "parameters": {}}}]
    asked = {"model": "tiny", "tools": tools, "tool_choice": "auto", "parallel_tool_calls": False}
    unmoved = client.chat.completions.create(messages=QUESTION, **asked).choices[0]
    assert (unmoved.message.content, unmoved.message.tool_calls) == (expected, None)
    sent_back: Any = [*QUESTION, unmoved.message, *QUESTION]  # with all that it leaves null
    assert client.chat.completions.create(messages=sent_back, **asked).choices[0].message.content
    text = client.completions.create(model="tiny", prompt="the", max_tokens=5, logprobs=1)
    assert len(text.choices[0].logprobs.tokens) == 5
    with pytest.raises(openai.NotFoundError, match="there is no model gpt"):
        client.chat.completions.create(model="gpt", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="the context holds"):
        long = [{"role": "user", "content": "a" * 5000}]
        client.chat.completions.create(model="tiny", messages=long)
    method = client.chat.completions.create(
        model="tiny", messages=QUESTION, extra_body={"method": "medusa"}
    )
    assert method.usage.model_extra["speculation"]["method"] == "medusa"


@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
def test_llm(server: Server, expected: str, flags: list[str], tmp_path: Path) -> None:
    model = {"model_id": "here", "model_name": "tiny", "api_base": f"{server.url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    llm = str(Path(sys.executable).with_name("llm"))
    output = run([llm, "-m", "here", *flags, TEXT], tmp_path, LLM_USER_PATH=str(tmp_path))
    assert output.strip("\n") == expected.strip("\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_sees_a_stream_line_by_line(server: Server, expected: str, tmp_path: Path) -> None:
    body = json.dumps({"messages": QUESTION, "stream": True})
    url, kind = f"{server.url}/v1/chat/completions", "content-type: application/json"
    output = run(["curl", "-sN", url, "-H", kind, "-d", body], tmp_path)
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(output)]
    assert "".join(texts) == expected
    told = run(
        ["curl", "-s", f"{server.url}/predict", "-H", kind, "-d", '{"prompt": "the"}'], tmp_path
    )
    assert json.loads(told).startswith("the")


def test_transformers_chat(server: Server, tmp_path: Path) -> None:
    command = str(Path(sys.executable).with_name("transformers"))
    arguments = ["chat", "tiny", f"{server.url}/v1", "do_sample=False", "max_new_tokens=16"]
    # Offline its client would not ask even this machine.
    plain = ENVIRONMENT | {"TERM": "dumb", "COLUMNS": "200", "HF_HUB_OFFLINE": "0"}
    terminal = pexpect.spawn(
        command, arguments, cwd=str(tmp_path), env=plain, encoding="utf-8", timeout=120
    )
    terminal.expect("was already loaded")
    terminal.expect(">:")
    terminal.sendline(TEXT)
    terminal.expect("<tiny>:")
    terminal.expect("Continue generating")  # 16 tokens were the limit
    terminal.sendline("n")
    terminal.expect(">:")
    terminal.sendline("!exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    counted = httpx.get(f"{server.url}/metrics").text
    assert 'nfox_replies_total{finish="length",method="auto"}' in counted


def test_questions_of_a_dataset_are_answered_as_by_the_model_itself(
    server: Server, tmp_path: Path
) -> None:
    """The way to heads: a server, its own answers, and training on these."""
    questions = ("the fox", "quick brown fox", "lazy dog", "jumps")
    data = tmp_path / "data.json"
    data.write_text(json.dumps([[{"role": "user", "content": text}] for text in questions]))
    command = ["data", "distill", "--data", data, "--max-new-tokens", 12, "--dtype", "float32"]
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    alone = programs.run(*command, "--out", here, "--model", folder.equipped(**ENDLESS))
    assert alone.returncode == 0, alone.stderr
    url = f"{server.url}/v1/chat/completions"
    asked = programs.run(*command, "--out", there, "--model", "tiny", "--url", url)
    assert asked.returncode == 0, asked.stderr
    found = [
        {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
        for path in (here, there)
    ]
    assert found[0] == found[1] and len(found[0]) == len(questions)


def test_a_client_that_disconnects_stops_its_generation(server: Server) -> None:
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=LONG, timeout=60) as stream:
        next(stream.iter_lines())
    end = time.monotonic() + 30
    while httpx.get(f"{server.url}/health").json()["running"] and time.monotonic() < end:
        time.sleep(0.02)
    counted = httpx.get(f"{server.url}/metrics").text.splitlines()
    cut = [line for line in counted if line.startswith('nfox_replies_total{finish="interrupt"')]
    assert cut and float(cut[0].rsplit(" ", 1)[1]) >= 1


def test_pages_on_the_web_cannot_ask(server: Server) -> None:
    """Neither by another origin nor by another name for this machine."""
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{server.url}/v1/chat/completions", headers=preflight)
    assert "access-control-allow-origin" not in answer.headers
    answer = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"})
    assert answer.status_code == 421
    simple = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=json.dumps({"messages": QUESTION}),
        headers={"content-type": "text/plain", "Origin": "http://evil.example"},
    )
    assert simple.status_code == 403


@pytest.mark.parametrize("declared", [True, False])
def test_after_a_body_that_is_too_large_the_connection_ends(server: Server, declared: bool) -> None:
    """The answer is read all the same, and what is sent behind it is not taken for a request."""
    url = httpx.URL(server.url)
    size = b"content-length: 50000000" if declared else b"transfer-encoding: chunked"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n" + size
    block = b"x" * 100_000 if declared else b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(head + b"\r\ncontent-type: application/json\r\n\r\n")
        for _ in range(60):
            connection.sendall(block)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        while received := connection.recv(65536):
            answer += received
        assert answer.count(b"HTTP/1.1") == 1 and b"request_too_large" in answer


def refused(*arguments: str, code: int) -> str:
    done = programs.run("serve", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("nfox: error: ")
    return done.stderr


def test_a_port_that_is_taken_is_told_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        output = refused("--port", port, "--model", "./not-there", code=1)
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in output


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    assert "no such folder" in refused("--port", "0", "--model", "./not-there", code=3)
    assert "is no size" in refused("--cache-memory", "much", code=2)
    assert "not ready" in refused(
        "--port", "0", "--model", str(folder.llama()), "--allow-method", "medusa", code=2
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with servers.nfox(tmp_path, "serve", "--model", str(folder.llama(**ENDLESS)), *TINY) as own:
        url = f"{own.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=LONG, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            own.process.send_signal(number)
            last = list(lines)
        assert own.process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGTERM)
        assert "stopping" in "".join(last) and "data: [DONE]" in last
        output = own.log.read_text()
        assert "Traceback" not in output and "ERROR" not in output


def test_cors_and_keys_are_there_when_asked_for(tmp_path: Path) -> None:
    asked = ("--cors", "http://page.example/", "--api-key", "sesame")
    with servers.nfox(tmp_path, "serve", "--model", str(folder.llama()), *TINY, *asked) as own:
        preflight = {
            "Origin": "http://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answer = httpx.options(f"{own.url}/v1/models", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "http://page.example"
        private = "access-control-allow-private-network"
        assert private not in answer.headers
        preflight["Access-Control-Request-Private-Network"] = "true"
        answer = httpx.options(f"{own.url}/v1/models", headers=preflight)
        assert (answer.status_code, answer.headers[private]) == (200, "true")
        preflight["Origin"] = "http://other.example"
        answer = httpx.options(f"{own.url}/v1/models", headers=preflight)
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers
        assert httpx.get(f"{own.url}/v1/models").status_code == 401
        client = openai.OpenAI(base_url=f"{own.url}/v1", api_key="sesame")
        assert client.models.list().data
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{own.url}/v1", api_key="other").models.list()
    assert own.log.stat().st_size < 10_000
