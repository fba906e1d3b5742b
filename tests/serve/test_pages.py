"""The pages of the server: nothing in them comes from elsewhere, and in a browser they work."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import folder
import httpx
import pytest
import servers
from fastapi import FastAPI
from servers import TINY, Server
from serving import QUESTION, chunks, client, serve
from starlette.testclient import TestClient

from nfox.demo import QUESTIONS, TARGET
from nfox.known_models import questions_to_try
from nfox.serve.pages import page_routes
from nfox.serve.served_model import ServedModel

ROOT = Path(__file__).parents[2]
PAGES = ("/", "/docs")


@pytest.fixture(scope="module")
def served() -> ServedModel:
    return serve()


@pytest.fixture(scope="module")
def http(served: ServedModel) -> TestClient:
    return client(served)


class Document(HTMLParser):
    """What a page loads, and what stands in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: dict[str, list[str]] = {"style": [], "script": []}
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "data"):
                self.addresses.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")
        if tag not in ("meta", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.inline:
            self.inline[self._open[-1]].append(data)


@pytest.mark.parametrize("path", PAGES)
def test_nothing_comes_from_elsewhere_and_the_policy_says_so(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    document = Document(answer.text)
    assert not document.handlers
    assert all(not re.match(r"[a-z+]+:|//", a) or a == "data:," for a in document.addresses)
    parts = answer.headers["content-security-policy"].split("; ")
    policy = {name: values.split() for name, _, values in (part.partition(" ") for part in parts)}
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    for kind, texts in document.inline.items():
        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        expected = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
        assert policy[f"{kind}-src"] == (expected or ["'none'"])
        assert not any(re.search(r"url\(|@import|https?://|\beval\b", text) for text in texts)


def test_every_element_that_the_script_names_is_there(http: TestClient) -> None:
    document = Document(http.get("/").text)
    [script] = document.inline["script"]
    assert {*re.findall(r'\$\("(\w+)"\)', script)} <= {*document.ids}
    assert len({*document.ids}) == len(document.ids)


def test_pages_are_in_the_wheel() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tool["package-data"]["nfox.serve"]
    files = [file.name for file in (ROOT / "nfox" / "serve").iterdir() if file.suffix != ".py"]
    data = [name for name in files if name != "__pycache__"]
    assert data
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in data)


def test_pages_need_no_key_and_everything_else_does(served: ServedModel) -> None:
    http = client(served, key="secret")
    for path in PAGES:
        assert http.get(path).status_code == http.head(path).status_code == 200
        assert http.post(path, json={}).status_code == 405
    assert http.get("/v1/models").status_code == http.get("/openapi.json").status_code == 401
    assert "tiny" not in http.get("/").text + http.get("/docs").text


def test_links_from_other_sites_lead_to_a_page_but_not_under_another_name(
    served: ServedModel,
) -> None:
    http = client(served, hosts={"testserver"})
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    for path in PAGES:
        assert http.get(path, headers=linked).status_code == 200
        assert http.get(path, headers={"host": "evil.example"}).status_code == 421
    assert http.get("/v1/models", headers=linked).status_code == 403


def test_the_page_of_the_api_shows_every_route_and_field(http: TestClient) -> None:
    text = http.get("/docs").text
    schema = http.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}</code>" in text
            assert operation["summary"].replace("'", "&#39;") in text
    for body in ("ChatCompletion", "Completion", "Prediction", "ModelName"):
        for name in schema["components"]["schemas"][body]["properties"]:
            assert f"<code>{name}</code>" in text
    assert "list of {role, content, tool_calls, tool_call_id, name}, needed" in text
    assert "text, list of text" not in text and "None" not in text
    hostile = http.get("/docs", headers={"host": 'testserver"<script>x</script>'})
    assert "<script>" not in hostile.text


def test_chunks_count_tokens_and_steps(http: TestClient) -> None:
    body = {"messages": QUESTION, "stream": True, "method": "lookup"}
    *parts, last = chunks(http.post("/v1/chat/completions", json=body).text)
    told = [part["speculation"] for part in parts[1:]]
    counts = [(told["tokens"], told["steps"]) for told in told]
    assert counts == sorted(counts) and counts[0] > (0, 0)
    assert counts[-1][0] <= last["timings"]["predicted_n"]
    assert counts[-1][1] <= last["speculation"]["steps"]
    assert len({tokens for tokens, _ in counts}) > 3


def test_models_say_which_method_answers(http: TestClient, served: ServedModel) -> None:
    own, *each = http.get("/v1/models").json()["data"]
    assert own["method"] == served.worker.engine.method
    assert all(model["id"] == f"{own['id']}:{model['method']}" for model in each)


ENDLESS = {"context": 4096, "endless": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = ("--model", str(folder.equipped(**ENDLESS)), "--served-model-name", "tiny", *TINY)
    with servers.nfox(tmp_path_factory.mktemp("server"), "serve", *model) as running:
        yield running


def opened(page: browser.Page, url: str, **window: Any) -> browser.Page:
    page.complaints.clear()
    page.show(f"{url}/", **window)
    page.wait(READY)
    return page


def ask(page: browser.Page, question: str) -> None:
    page.run("document.getElementById('question').focus()")
    page.type(question)
    page.press("Enter")


def said(server: Server, question: str, **more: Any) -> tuple[str, list[list[Any]]]:
    """Return the text and the runs of a reply, as the API tells them."""
    body = {"messages": [{"role": "user", "content": question}], **more}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    runs = answer["usage"]["speculation"]["runs"]
    return answer["choices"][0]["message"]["content"], runs


READY = "document.getElementById('method').value"
SPANS = (
    "[...document.querySelectorAll('article.reply:last-of-type .text span')]"
    ".map(span => [[...span.textContent].length, span.className])"
)
IDLE = "running === null && document.querySelectorAll('article.reply .figures').length"


@pytest.mark.slow
def test_a_reply_in_the_browser_is_that_of_the_api_with_its_marks(
    server: Server, page: browser.Page
) -> None:
    opened(page, server.url)
    page.run("document.getElementById('method').value = 'tiny:lookup'")
    ask(page, "hello there 😀")
    page.wait(f"{IDLE} && messages.length === 2")
    page.run("document.querySelector('.reply .foot button').click()")
    text, runs = said(server, "hello there 😀", method="lookup")
    assert page.run("messages[1].content") == text
    assert page.run("document.querySelector('.reply .text').textContent") == text
    spans = page.run(SPANS)
    assert sum(length for length, _ in spans) == len(text)
    letters = "".join(kind * length for length, kind in runs)
    shown = "".join(kind * length for length, kind in spans)
    differing = [i for i, pair in enumerate(zip(letters, shown, strict=True)) if pair[0] != pair[1]]
    assert len(differing) < len(text) / 10  # marks that belong to the character before them
    figures = page.run("document.querySelector('.reply .figures').textContent")
    assert re.match(r"lookup · [\d,.]+ tokens/s · tau \d\.\d\d · 24 tokens in \d+ steps", figures)
    assert page.run("document.activeElement.id") == "question"
    page.press("ArrowUp")
    assert page.run("document.getElementById('question').value") == "hello there 😀"
    assert not page.complaints


def test_the_page_proposes_questions_that_suit_the_model(http: TestClient) -> None:
    for question in questions_to_try("some/model"):
        assert f'<button class="try" type="button">{question}</button>' in http.get("/").text
    embedded = TestClient(FastAPI())
    embedded.app.include_router(page_routes(embedded.app, str(TARGET)))
    assert all(question in embedded.get("/").text for question in QUESTIONS)


@pytest.mark.slow
def test_a_proposed_question_is_asked_and_a_new_conversation_proposes_again(
    server: Server, page: browser.Page
) -> None:
    opened(page, server.url, width=400)
    assert page.run("document.documentElement.scrollWidth") == 400
    question = page.run("document.querySelector('button.try').textContent")
    page.run("document.querySelector('button.try').click()")
    page.wait(f"{IDLE} && messages.length === 2")
    assert page.run("messages[0].content") == question
    assert page.run("document.querySelectorAll('button.try').length") == 0
    page.run("document.getElementById('clear').click()")
    assert page.run("document.querySelectorAll('button.try').length") == 3
    assert not page.complaints


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_two_methods_race_and_nothing_is_cut(
    server: Server, page: browser.Page, width: int, dark: bool
) -> None:
    opened(page, server.url, width=width, dark=dark)
    ask(page, "\n".join(["hello"] * 40))  # fills the window: what follows must be scrolled to
    page.wait(f"{IDLE} && messages.length === 2")
    page.run("document.getElementById('method').value = 'tiny:none'")
    page.run("document.getElementById('rival').value = 'tiny:lookup'")
    ask(page, "hello there " + "a-very-long-word" * 20)
    page.wait("document.querySelectorAll('.verdict button').length")
    assert page.run("document.querySelector('.verdict').textContent").startswith("Identical texts.")
    texts = page.run("[...document.querySelectorAll('.lanes .text')].map(t => t.textContent)")
    assert len(texts) == 2 and texts[0] == texts[1] == page.run("messages[3].content")
    assert page.run("document.querySelectorAll('.lanes .first').length") == 1
    assert page.run("document.documentElement.scrollWidth") == width
    end = "document.querySelector('.verdict').getBoundingClientRect().bottom"
    assert page.run(f"{end} <= log.getBoundingClientRect().bottom")
    wide = "[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && "
    wide += f"e.id !== 'status' && e.getBoundingClientRect().right > {width} + 1).length"
    assert page.run(wide) == 0
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 19, 23)") == dark
    assert not page.complaints


@pytest.mark.slow
def test_escape_stops_and_what_was_said_stays(server: Server, page: browser.Page) -> None:
    opened(page, server.url)
    longer = "(model, view, more, ...rest) => old(model, view, {max_tokens: 3900}, ...rest)"
    page.run(f"(answer = (old => {longer})(answer), 0)")
    page.run("document.getElementById('method').value = 'tiny:none'")
    ask(page, "hello")
    page.wait("document.querySelector('.reply .text')?.textContent.length > 20")
    page.press("Escape")
    page.wait(f"{IDLE} && messages.length === 2")
    page.run("document.querySelector('.reply .foot button').click()")
    assert page.run("messages[1].content === document.querySelector('.reply .text').textContent")
    assert page.run("document.getElementById('status').textContent") == "The reply was stopped."
    assert page.run("document.getElementById('stop').hidden")
    assert not page.run("document.querySelectorAll('article.error').length")


@pytest.mark.slow
def test_a_mistake_is_told_and_the_question_comes_back(server: Server, page: browser.Page) -> None:
    opened(page, server.url)
    ask(page, "a" * 9000)
    page.wait("document.querySelectorAll('article.error').length")
    assert "the context holds" in page.run("document.querySelector('article.error').textContent")
    assert page.run("document.getElementById('question').value.length") == 9000
    assert page.run("messages.length") == 0


@pytest.mark.slow
def test_the_page_asks_for_the_key(page: browser.Page, tmp_path: Path) -> None:
    model = ("--model", str(folder.equipped()), "--api-key", "schlüssel", *TINY)
    with servers.nfox(tmp_path, "serve", *model) as running:
        page.show(f"{running.url}/")
        page.wait("document.getElementById('lock').open")
        for word in ("wrong", "schlüssel"):
            page.run("document.getElementById('key').value = ''")
            page.run("document.getElementById('key').focus()")
            page.type(word)
            page.press("Enter")
            page.wait(f"document.getElementById('wrong').textContent || {READY}")
        page.wait(READY)
        page.show(f"{running.url}/docs")
        page.show(f"{running.url}/")  # the tab remembers it
        page.wait(READY)


@pytest.mark.slow
def test_marks_are_joined_to_the_characters_that_they_belong_to(
    server: Server, page: browser.Page
) -> None:
    opened(page, server.url)
    parts: list[dict[str, Any]] = [
        {"text": "e", "runs": [[1, "a"]]},
        {"text": "\u0301x", "runs": [[1, "c"], [1, "a"]]},
        {"text": "👩", "runs": [[1, "b"]]},
        {"text": "\u200d", "runs": [[1, "a"]]},
        {"text": "💻🇩", "runs": [[1, "c"], [1, "a"]]},
        {"text": "🇪😀", "runs": [[1, "b"], [1, "a"]]},
    ]
    script = "{const v = new ReplyView(log); for (const p of PARTS) v.add(p); v.draw()}"
    page.run(script.replace("PARTS", json.dumps(parts)))
    spans = "[...document.querySelectorAll('.reply .text span')]"
    shown = page.run(f"{spans}.map(span => [span.textContent, span.className])")
    assert shown == [["e\u0301x", "a"], ["👩\u200d💻", "b"], ["🇩🇪😀", "a"]]
