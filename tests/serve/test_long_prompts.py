"""A prompt that is too long, or takes long to make, costs nobody else anything."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import folder
import httpx
import pytest
from serving import QUESTION, guarded, load_tiny, serve
from spelling import make
from starlette.testclient import TestClient
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nfox import drafters
from nfox.engine import Engine
from nfox.errors import ContextError, NfoxError
from nfox.serve.fair_queue import FairQueue
from nfox.serve.pending_reply import Question
from nfox.serve.prompt_bound import PromptBound, longest_token
from nfox.serve.prompts import PromptEncoder
from nfox.serve.schemas import ChatCompletion
from nfox.serve.served_model import ServedModel
from nfox.text.messages import Message

CHAT = "/v1/chat/completions"


def rendering(engine: Engine, before: Callable[[list[Any]], None]) -> None:
    """Have something done with its turns before a template is rendered."""
    render = engine.template.render

    def rendered(turns: Any, generate: bool) -> str:
        before(turns)
        return render(turns, generate)

    engine.use_template(replace(engine.template, render=rendered))


def test_what_is_certain_not_to_fit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rendered = load_tiny(method=drafters.plain_method()), list[Any]()
    rendering(engine, rendered.append)
    served = serve(engine)
    words = "the fox " * 500_000
    turns = [Message(("user", "assistant")[i % 2], words[:8000]) for i in range(511)]
    questions = (
        Question((Message("user", words),)),
        Question(tuple(turns)),
        Question(text=words),
        Question(ids=(5,) * 1000),
    )
    begin = time.process_time()
    for question in questions:
        with pytest.raises(ContextError, match="the context holds 512"):
            served.worker.submit(replace(served_request(served), questions=(question,)))
        assert question.ids or served.worker.count_tokens(question) > 512
    assert time.process_time() - begin < 1
    assert not rendered
    fits = (
        Message("system", words),
        Message("assistant", words),
        Message("user", "x" + " " * 9999),
    )
    PromptBound(engine).check(Question(fits))  # a template may leave all of that out


def served_request(served: ServedModel) -> Any:
    return served.chat_request(ChatCompletion.model_validate({"messages": QUESTION}), "")


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_no_token_says_more_than_the_longest(kind: str) -> None:
    tokenizer = make(kind)
    longest = longest_token(tokenizer)
    assert longest is not None
    for text in ("Hello world" * 50, " " * 999, "é語😀" * 99):
        assert len(tokenizer(text, add_special_tokens=False).input_ids) * longest >= len(text)


def test_a_tokenizer_that_joins_or_drops_letters_gives_no_bound() -> None:
    """One token stands for any unknown word, so a long text may be a short prompt."""
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##a": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    dropping = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    for raw in (words, dropping):
        assert longest_token(PreTrainedTokenizerFast(tokenizer_object=raw)) is None
    engine = load_tiny(folder.t5(), template="plain")
    asked = (Message("user", "x" * 10**6), Message("user", "hello"))
    PromptBound(engine).check(Question(asked))  # an encoder reads the last question alone


def test_a_prompt_that_nobody_waits_for_is_made_no_further() -> None:
    engine, rendered = load_tiny(method=drafters.plain_method()), list[Any]()
    rendering(engine, rendered.append)
    encoder = PromptEncoder(engine)
    turns = tuple(Message(("user", "assistant")[i % 2], f"said {i}") for i in range(101))
    with pytest.raises(NfoxError, match="nobody waits"):
        encoder.encode(Question(turns), lambda: len(rendered) == 1)
    assert len(rendered) == 1
    assert encoder.encode(Question(turns[:1])).ids  # the next one is made to its end


def test_others_are_answered_while_a_prompt_is_made() -> None:
    """And the event loop goes on meanwhile, though the template takes its time without a pause."""
    engine, slow = load_tiny(method=drafters.plain_method()), threading.Event()
    answered = threading.Event()

    def dawdle(turns: list[Any]) -> None:
        if "slow" in str(turns[-1]["content"]):
            slow.set()
            end = time.monotonic() + 30
            while time.monotonic() < end and not answered.is_set():  # busy, as a template is
                pass

    rendering(engine, dawdle)
    served = serve(engine)

    async def together() -> tuple[list[float], int]:
        transport = httpx.ASGITransport(guarded(served))
        gaps: list[float] = []

        async def watch() -> None:
            while True:
                begin = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - begin)

        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            asked = {"messages": [{"role": "user", "content": "slow"}], "max_tokens": 2}
            held = asyncio.create_task(http.post(CHAT, json=asked))
            await asyncio.to_thread(slow.wait, 30)
            watching = asyncio.create_task(watch())
            for _ in range(3):
                answer = await http.post(CHAT, json={"messages": QUESTION, "max_tokens": 2})
                assert answer.status_code == 200
            assert not held.done()
            answered.set()
            watching.cancel()
            return gaps, (await held).status_code

    gaps, status = asyncio.run(together())
    assert status == 200
    assert max(gaps) < 5  # a hundredth of it on a machine that is not busy


def test_what_waits_is_prepared_in_turn_and_what_is_not_ready_is_overtaken() -> None:
    ready: set[str] = set()
    queue = FairQueue[str](100, ready=ready.__contains__)
    for work in ("ax1", "ax2", "ay1", "bx1", "bx2"):
        queue.put((work[0], work[1]), work)
    claimed = [queue.claim() for _ in range(4)]
    assert claimed == ["ax1", "bx1", "ax2", "bx2"]
    for work in ("ax2", "bx1"):
        ready.add(work)
        queue.release(work)
    assert [queue.get(), queue.get()] == ["ax2", "bx1"]
    assert queue.claim(lambda work: work.startswith("a")) == "ay1"
    assert len(queue) == 3
    assert sorted(queue.close()) == ["ax1", "ay1", "bx2"]
    assert queue.claim() is None and queue.get() is None


def test_short_prompts_do_not_wait_for_long_ones() -> None:
    """However many long ones there are, a thread is left."""
    engine, going = load_tiny(method=drafters.plain_method()), threading.Event()
    long, making = "x" * 70_000, list[Any]()

    def hold(turns: list[Any]) -> None:
        if len(turns[0]["content"]) >= len(long):
            making.append(turns)
            going.wait(30)

    rendering(engine, hold)
    served = serve(engine)
    served.worker._prompts.bound._longest = None
    http = TestClient(guarded(served, max_body_bytes=1 << 23))
    asked = {"messages": [{"role": "user", "content": long}]}
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(http.post, CHAT, json=asked) for _ in range(6)]
        answer = pool.submit(http.post, CHAT, json={"messages": QUESTION, "max_tokens": 2})
        assert answer.result(30).status_code == 200
        assert len(making) <= 3 and not any(each.done() for each in held)
        going.set()
        assert {each.result(60).status_code for each in held} == {400}
