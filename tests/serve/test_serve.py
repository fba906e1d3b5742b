"""The server in this process: its replies are those of the engine, and mistakes are told."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from functools import cache, reduce
from itertools import pairwise, product
from typing import Any

import folder
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from serving import NAME, QUESTION, chunks, client, guarded, load_tiny, serve
from starlette.testclient import TestClient
from typer.testing import CliRunner

from nfox import Conversation, Engine, Sampling, Settings, drafters
from nfox.batch import BatchPrompt, answer
from nfox.cli.app import app
from nfox.decoding.generate import Prompt
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.reply import Request
from nfox.serve.fair_queue import FairQueue
from nfox.serve.origins import as_sent
from nfox.serve.served_model import ServedModel
from nfox.serve.server import bind
from nfox.text.messages import parse_message

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def served() -> ServedModel:
    return serve()


@pytest.fixture(scope="module")
def http(served: ServedModel) -> TestClient:
    return client(served)


def ask(http: TestClient, path: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"messages": QUESTION} if path == CHAT and "messages" not in body else {}
    response = http.post(path, json=asked | body)
    assert response.status_code == 200, response.text
    return response.json()


def stream(http: TestClient, path: str = CHAT, **body: Any) -> list[dict[str, Any]]:
    asked = {"messages": QUESTION} if path == CHAT else {}
    response = http.post(path, json=asked | {"stream": True} | body)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    return chunks(response.text)


def reply_text(answer: dict[str, Any], choice: int = 0) -> str:
    return str(answer["choices"][choice]["message"]["content"])


def gone_on(engine: Engine, ids: list[int], settings: Settings) -> str:
    """Return what an engine says after token ids, without a template."""
    return engine.answer(Request(Prompt(tuple(ids), continued=True), settings)).text


@cache
def plain_text(sampling: Sampling | None = None, limit: int = 24, reply: int = 0) -> str:
    """Return the text of plain decoding's reply to `QUESTION`."""
    engine = load_tiny(method=drafters.plain_method())
    settings = Settings(sampling=sampling or Sampling(), max_new_tokens=limit)
    return engine.answer(engine.request(QUESTION, settings, number=reply)).text


@pytest.mark.slow
@pytest.mark.parametrize("method", drafters.method_names())
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_every_method_says_what_plain_decoding_says(
    http: TestClient, method: str, temperature: float
) -> None:
    expected = plain_text(Sampling(temperature=temperature, seed=5))
    more = {"temperature": temperature, "seed": 5}
    whole = ask(http, model=f"{NAME}:{method}", **more)
    assert reply_text(whole) == expected
    assert whole["usage"]["speculation"]["method"] == method
    assert reply_text(ask(http, method=method, **more)) == expected
    parts = stream(http, method=method, **more)
    texts = [c["choices"][0]["delta"].get("content", "") for c in parts]
    assert "".join(texts) == expected


def test_without_a_word_the_servers_own_method_and_sampling_count(http: TestClient) -> None:
    answer = ask(http, model=NAME)
    assert reply_text(answer) == plain_text()
    assert answer["usage"]["speculation"]["method"] == load_tiny().method
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert reply_text(ask(http)) == reply_text(ask(http, model="default")) == plain_text()


def test_a_stream_has_the_whole_reply_and_where_it_came_from(http: TestClient) -> None:
    whole = ask(http)
    parts = stream(http, stream_options={"include_usage": True})
    first, *middle, last, usage = parts
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {part["id"] for part in parts} == {first["id"]}
    assert all(part["object"] == "chat.completion.chunk" for part in parts)
    for part in middle:
        text = part["choices"][0]["delta"]["content"]
        assert text and sum(length for length, _ in part["speculation"]["runs"]) == len(text)
        assert part["choices"][0]["finish_reason"] is None
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert usage["choices"] == []
    timeless = ("prompt_tokens", "completion_tokens", "total_tokens")
    for name in timeless:
        assert usage["usage"][name] == whole["usage"][name]
    spent, before = usage["usage"]["speculation"], whole["usage"]["speculation"]
    assert sum(length for length, _ in before["runs"]) == len(reply_text(whole))
    assert spent["drafted"] >= spent["accepted"] >= 0
    assert spent["mean_acceptance_length"] == pytest.approx(
        usage["usage"]["completion_tokens"] / spent["steps"], abs=1e-3
    )
    assert "usage" not in stream(http)[-1]


def test_a_conversation_is_read_once_and_goes_on_as_in_the_chat(served: ServedModel) -> None:
    http, conversation = client(served), Conversation(load_tiny(method=drafters.plain_method()))
    messages: list[dict[str, str]] = []
    before = 0
    for question in ("hello", "and then?", "ünïcode 😀"):
        for _ in conversation.send(question):
            pass
        messages.append({"role": "user", "content": question})
        answer = ask(http, messages=messages)
        assert reply_text(answer) == conversation.messages[-1].content
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= before
        before = answer["usage"]["prompt_tokens"]
        messages.append({"role": "assistant", "content": reply_text(answer)})


def test_conversations_at_once_do_not_disturb_each_other(served: ServedModel) -> None:
    http = client(served)
    conversations = [Conversation(load_tiny(method=drafters.plain_method())) for _ in range(2)]
    talks: list[list[dict[str, str]]] = [[], []]
    for turn in ("hello", "more", "and more"):
        for index, (conversation, messages) in enumerate(zip(conversations, talks, strict=True)):
            question = turn + " you" * index  # the two begin alike
            for _ in conversation.send(question):
                pass
            messages.append({"role": "user", "content": question})
            assert reply_text(ask(http, messages=messages)) == conversation.messages[-1].content
            messages.append({"role": "assistant", "content": conversation.messages[-1].content})


def test_a_reply_that_is_begun_is_gone_on_with(http: TestClient) -> None:
    whole = reply_text(ask(http))
    begun = reply_text(ask(http, max_tokens=5))
    assert whole.startswith(begun) and begun
    rest = ask(http, messages=[*QUESTION, {"role": "assistant", "content": begun}], max_tokens=19)
    assert begun + reply_text(rest) == whole
    again = ask(
        http, messages=[*QUESTION, {"role": "assistant", "content": begun + reply_text(rest)}]
    )
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_log_probabilities_are_those_of_one_forward_over_the_text(http: TestClient) -> None:
    engine = load_tiny(method=drafters.plain_method())
    asked = {"logprobs": True, "top_logprobs": 3, "temperature": 0.8, "seed": 1}
    whole = ask(http, **asked)
    told = whole["choices"][0]["logprobs"]["content"]
    request = engine.request(
        QUESTION, Settings(sampling=Sampling(temperature=0.8, seed=1), max_new_tokens=24)
    )
    prompt, ids = request.prompt.ids, engine.answer(request).ids
    with torch.no_grad():
        logits = engine.model.target.model(torch.tensor([[*prompt, *ids]])).logits[0]
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    for entry, row, token in zip(told, rows, ids, strict=True):
        alone = engine.model.tokenizer.decode([token], skip_special_tokens=True)
        assert entry["token"] == alone or "\ufffd" in alone or entry is told[0]
        assert entry["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
        best = [other["logprob"] for other in entry["top_logprobs"]]
        assert best == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
    parts = [c["choices"][0]["logprobs"]["content"] for c in stream(http, **asked)]
    # Asked again, the prompt comes out of the cache: the same sums in another order.
    again = [entry for part in parts for entry in part]
    assert [entry["token"] for entry in again] == [entry["token"] for entry in told]
    values = [entry["logprob"] for entry in again]
    assert values == pytest.approx([entry["logprob"] for entry in told], abs=1e-4)


def test_texts_and_token_ids_are_gone_on_with(http: TestClient) -> None:
    engine = load_tiny(method=drafters.plain_method())
    ids = list(engine.model.tokenizer("the quick").input_ids)
    expected = gone_on(engine, ids, Settings(max_new_tokens=24))
    for prompt in ("the quick", ["the quick"], ids, [ids]):
        answer = ask(http, TEXT, prompt=prompt, max_tokens=24)
        assert answer["choices"][0]["text"] == expected
        assert answer["object"] == "text_completion"
    parts = stream(http, TEXT, prompt="the quick", max_tokens=24)
    assert "".join(part["choices"][0]["text"] for part in parts) == expected
    scored = ask(http, TEXT, prompt="the quick", max_tokens=24, logprobs=2)
    told = scored["choices"][0]["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"])
    ends = [*told["text_offset"], told["text_offset"][-1] + len(told["tokens"][-1])]
    assert [b - a for a, b in pairwise(ends)] == list(map(len, told["tokens"]))
    streamed = [
        p["choices"][0]["logprobs"] for p in stream(http, TEXT, prompt="the quick", logprobs=1)
    ]
    assert [o for part in streamed for o in part["text_offset"]] == told["text_offset"]


def test_several_prompts_and_choices_are_counted_from_one_seed(http: TestClient) -> None:
    answer = ask(http, n=3, temperature=1.0, seed=7)
    expected = [plain_text(Sampling(temperature=1.0, seed=7), reply=number) for number in range(3)]
    assert [reply_text(answer, choice) for choice in range(3)] == expected
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(answer["usage"]["speculation"]["choices"]) == 3
    once = ask(http)["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens"] == once
    parts = stream(http, n=3, temperature=1.0, seed=7)
    for index, text in enumerate(expected):
        own = [p["choices"][0] for p in parts if p["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == text
    both = ask(http, TEXT, prompt=["the", "fox"], n=2)
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    alone = [ask(http, TEXT, prompt=text)["usage"]["prompt_tokens"] for text in ("the", "fox")]
    assert both["usage"]["prompt_tokens"] == sum(alone)


def test_without_a_seed_samples_differ_and_with_one_they_do_not(http: TestClient) -> None:
    several = [ask(http, temperature=1.5, n=2) for _ in range(3)]
    assert len({reply_text(answer, choice) for answer in several for choice in range(2)}) == 6
    assert len({reply_text(ask(http, temperature=1.5, seed=3)) for _ in range(3)}) == 1


def test_stop_strings_end_the_reply_and_are_not_in_it(http: TestClient) -> None:
    whole = reply_text(ask(http))
    stop = whole[6:8]
    for given in (stop, [stop, "never said"]):
        answer = ask(http, stop=given)
        assert reply_text(answer) == whole[: whole.index(stop)]
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_log_probabilities_reach_to_a_stop_string_inside_a_token(http: TestClient) -> None:
    whole = ask(http, logprobs=True)
    tokens = [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]]
    once = (i for i, t in enumerate(tokens) if len(t) > 1 and reply_text(whole).count(t[1:]) == 1)
    index = next(once)
    cut = ask(http, logprobs=True, stop=tokens[index][1:])
    told = [entry["token"] for entry in cut["choices"][0]["logprobs"]["content"]]
    assert told == [*tokens[:index], tokens[index][:1]]
    assert reply_text(whole).startswith(reply_text(cut))
    assert reply_text(cut).endswith(tokens[index][0])


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_tokens_of_log_probabilities_spell_the_text(http: TestClient, path: str) -> None:
    """Where a reply begins with a space that it leaves out, or a stop string cuts a token, too."""
    asked = {"logprobs": True, "top_logprobs": 2} if path == CHAT else {"logprobs": 2}
    asked |= {} if path == CHAT else {"prompt": "the"}
    field = ("delta", "content") if path == CHAT else ("text",)
    for seed, stop in product(range(2), (None, [" "], ["o", "\ufffd"], ["er"])):
        body = asked | {"temperature": 1.2, "seed": seed, "max_tokens": 16, "stop": stop}
        whole = ask(http, path, **body)["choices"][0]
        text = whole["message"]["content"] if path == CHAT else whole["text"]
        assert "".join(tokens_of(whole)) == text
        parts, told, said = stream(http, path, **body), "", ""
        for choice in (part["choices"][0] for part in parts):
            told += "".join(tokens_of(choice))
            said += reduce(lambda value, name: value.get(name, ""), field, choice)
            assert said.startswith(told)
        assert told == said == text


def tokens_of(choice: dict[str, Any]) -> list[str]:
    """Return the tokens that a choice, whole or of a chunk, has log-probabilities of."""
    told = choice["logprobs"]
    return [entry["token"] for entry in told["content"]] if "content" in told else told["tokens"]


def test_a_space_that_the_reply_leaves_out_does_not_stop_it(http: TestClient) -> None:
    """In the chat, in `generate` and here alike."""
    conversation, seen = Conversation(load_tiny()), 0
    for seed in (0, 1, 31, 35):  # the last two begin with a space
        sampling = Sampling(temperature=1.2, seed=seed)
        settings = Settings(sampling=sampling, max_new_tokens=24)
        request = conversation.engine.request(QUESTION, settings, number=0)
        ids = conversation.engine.answer(request).ids
        raw = conversation.engine.model.tokenizer.decode(ids, skip_special_tokens=True)
        seen += raw.startswith(" ")
        expected = raw.removeprefix(" ").partition(" ")[0]
        stopped = replace(settings, stop=(" ",))
        conversation.engine.use_settings(stopped)
        for _ in conversation.send(QUESTION[0]["content"]):
            pass
        if not seed:  # the number of the reply is that of the request
            assert conversation.messages[-1].content == expected
        assert conversation.engine.answer(replace(request, settings=stopped)).text == expected
        served = ask(http, temperature=1.2, seed=seed, stop=[" "], max_tokens=24)
        assert reply_text(served) == expected
        line = answer(conversation.engine, BatchPrompt("x", 0, (), (QUESTION[0]["content"],)))
        assert line["text"] == expected
    assert seen == 2


def test_predict_gives_the_prompt_and_what_follows_as_one_string(http: TestClient) -> None:
    response = http.post("/predict", json={"prompt": "the quick", "seed": 4})
    engine = load_tiny(method=drafters.plain_method())
    sampling = Sampling(temperature=1.0, top_k=10, top_p=0.9, seed=4)
    ids = engine.model.tokenizer("the quick").input_ids
    text = gone_on(engine, ids, Settings(sampling=sampling, max_new_tokens=40))
    assert response.json() == "the quick" + text


def test_what_transformers_chat_sends_is_understood(http: TestClient) -> None:
    config = json.dumps({"do_sample": False, "max_new_tokens": 5, "transformers_version": "5"})
    assert reply_text(ask(http, generation_config=config)) == plain_text(limit=5)
    sampled = json.dumps({"do_sample": True, "temperature": 0.8})
    expected = plain_text(Sampling(temperature=0.8, top_k=50, seed=2))
    assert reply_text(ask(http, generation_config=sampled, seed=2)) == expected
    assert http.post("/load_model", json={"model": NAME}).text.startswith(
        'data: {"status": "ready"'
    )
    assert http.post("/load_model", json={"model": "other"}).status_code == 404


def test_parts_and_the_developers_role_are_read(http: TestClient) -> None:
    parts = [{"type": "text", "text": "hello"}, {"type": "text", "text": "there"}]
    split = ask(http, messages=[{"role": "user", "content": parts}])
    assert reply_text(split) == reply_text(
        ask(http, messages=[{"role": "user", "content": "hello\nthere"}])
    )
    user = {"role": "user", "content": "x"}
    both = [[{"role": role, "content": "be brief"}, user] for role in ("developer", "system")]
    assert reply_text(ask(http, messages=both[0])) == reply_text(ask(http, messages=both[1]))


def test_models_are_listed_with_their_methods(http: TestClient) -> None:
    listed = [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert listed == [NAME, *(f"{NAME}:{method}" for method in drafters.method_names())]
    assert http.get(f"/v1/models/{listed[1]}").json()["id"] == listed[1]
    assert http.get("/v1/models/other").status_code == 404


@pytest.mark.parametrize("name", ["default", "", NAME, f"{NAME}:lookup", "other", f"{NAME}:other"])
def test_a_name_is_known_everywhere_or_nowhere(http: TestClient, name: str) -> None:
    answered = http.post(CHAT, json={"messages": QUESTION, "model": name, "max_tokens": 1})
    for told in (http.get(f"/v1/models/{name}"), http.post("/load_model", json={"model": name})):
        assert told.status_code == answered.status_code, told.text
        if answered.status_code == 404:
            assert told.json() == answered.json()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"messages": []}, 400, "messages: List should have at least 1 item"),
        ({}, 400, "messages: Field required"),
        ({"messages": QUESTION, "temperature": -1}, 400, "temperature: Input should be greater"),
        ({"messages": QUESTION, "max_tokens": 0}, 400, "max_tokens"),
        ({"messages": QUESTION, "n": 17}, 400, "n: Input should be less"),
        ({"messages": QUESTION, "seed": 2**80}, 400, "seed"),
        (
            {"messages": QUESTION, "presence_penalty": 1},
            400,
            "not supported here: presence_penalty",
        ),
        ({"messages": QUESTION, "tools": "x"}, 400, "tools: Input should be a valid list"),
        ({"messages": QUESTION, "tool_choice": "required"}, 400, "no reply calls a tool here"),
        ({"messages": [{"role": "function", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "'image_url'"),
        ({"messages": QUESTION, "model": "gpt"}, 404, "there is no model gpt here"),
        ({"messages": QUESTION, "model": f"{NAME}:x"}, 404, "there is no model"),
        ({"messages": QUESTION, "method": "x"}, 400, "there is no method x here"),
        ({"messages": QUESTION, "model": f"{NAME}:none", "method": "spec"}, 400, "two methods"),
        ({"messages": [{"role": "user", "content": "a" * 600}]}, 400, "the context holds"),
        ({"messages": QUESTION * 513}, 400, "messages: List should have at most 512 items"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 33}] * 250},
            400,
            "messages: a conversation may have 8192 parts",
        ),
        ({"messages": QUESTION, "generation_config": "{"}, 400, "generation_config is not one"),
    ],
)
def test_mistakes_are_told(http: TestClient, body: Any, status: int, message: str) -> None:
    for streamed in (False, True):
        response = http.post(CHAT, content=json.dumps(body | {"stream": streamed}), headers=JSON)
        assert response.status_code == status
        assert message in response.json()["error"]["message"]
    assert ask(http)


JSON = {"content-type": "application/json"}


def test_half_of_a_character_becomes_the_replacement_character(http: TestClient) -> None:
    def reply(content: str) -> str:
        body = json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": 8})
        response = http.post(CHAT, content=body, headers=JSON)
        assert response.status_code == 200
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    assert reply("a fox \ud83d") == reply("a fox \ufffd") != reply("a fox")


def test_a_body_of_another_encoding_is_named(http: TestClient) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "caf\xe9"}]}, ensure_ascii=False)
    answer = http.post(CHAT, content=body.encode("latin-1"), headers=JSON)
    assert answer.status_code == 400
    assert "the body is not UTF-8: byte 0xe9" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        (CHAT, b"", 400),
        (CHAT, b"{", 400),
        (CHAT, b"[]", 400),
        (CHAT, b"\xff\xfe", 400),
        (CHAT, b"[" * 100_000, 400),
        (CHAT, b'{"messages": NaN}', 400),
        (TEXT, b'{"prompt": []}', 400),
        (TEXT, b'{"prompt": [99999]}', 400),
        (TEXT, b'{"prompt": ""}', 400),
        (TEXT, b'{"prompt": ["a", "b"], "n": 9}', 400),
        (TEXT, b'{"prompt": [[1], [2], [99999]], "stream": true}', 400),
        (TEXT, b'{"prompt": ["a", "' + b"a" * 600 + b'"], "stream": true}', 400),
        (TEXT, b'{"prompt": [' + b"null," * 100_000 + b"null]}", 400),
        ("/predict", b'{"prompt": 3}', 400),
        ("/nothing", b"{}", 404),
        ("/v1/models", b"{}", 405),
    ],
)
def test_no_body_is_too_odd(http: TestClient, path: str, content: bytes, status: int) -> None:
    response = http.post(path, content=content, headers=JSON)
    assert response.status_code == status
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "parameter", "message"),
    [
        (TEXT, {"prompt": [1, "x"]}, "prompt.1", "valid integer"),
        (TEXT, {"prompt": ["x", 1]}, "prompt.1", "valid string"),
        (TEXT, {"prompt": [[1], ["x"]]}, "prompt.1.0", "valid integer"),
        (TEXT, {"prompt": [[1], []]}, "prompt.1", "at least 1 item"),
        (TEXT, {"prompt": {}}, "prompt", "expected a text, token ids, or a list of these"),
        (CHAT, {"stop": [1]}, "stop.0", "valid string"),
        (CHAT, {"stop": 1}, "stop", "expected a text, or a list of texts"),
        (CHAT, {"stop": ["x"] * 17}, "stop", "at most 16 items"),
        (CHAT, {"stream_options": 3}, "stream_options", "expected an object"),
        (CHAT, {"messages": ["x"]}, "messages.0", "expected an object"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages.0.content.0",
            "no text",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": 1}]},
            "messages.0.content",
            "expected a text, or a list of parts that are text",
        ),
        (CHAT, {"tools": {}}, "tools", "valid list"),
        (CHAT, {"max_tokens": 0}, "max_tokens", "1 or more, or -1"),
        (CHAT, {"max_tokens": True}, "max_tokens", "a number, not true"),
        (CHAT, {"temperature": False}, "temperature", "a number, not true"),
        (TEXT, {"prompt": [True]}, "prompt.0", "valid integer"),
        (CHAT, {"max_completion_tokens": -2}, "max_completion_tokens", "greater than"),
        (CHAT, {"model": "x"}, "model", "there is no model x"),
        (CHAT, {"method": "x"}, "method", "there is no method x"),
        (TEXT, {"prompt": ["x"] * 9, "n": 2}, "n", "18 replies"),
        (CHAT, {"generation_config": "{"}, "generation_config", "not one of transformers"),
    ],
)
def test_an_error_names_the_parameter_and_the_branch_that_was_meant(
    http: TestClient, path: str, body: Any, parameter: str, message: str
) -> None:
    given = ({"messages": QUESTION} if path == CHAT else {}) | body
    answer = http.post(path, json=given)
    error = answer.json()["error"]
    assert error["param"] == parameter
    assert message in error["message"]


def test_no_limit_is_as_many_tokens_as_there_is_room_for() -> None:
    engine = load_tiny(folder.llama(endless=True), max_context=60, method=drafters.plain_method())
    http = client(serve(engine))
    prompt = len(engine.request(QUESTION).prompt.ids)
    for field in ("max_tokens", "max_completion_tokens"):
        answer = ask(http, **{field: -1})
        assert answer["usage"]["completion_tokens"] == 60 - prompt + 1
        assert answer["choices"][0]["finish_reason"] == "length"
    text = ask(http, TEXT, prompt=[5, 6, 7], max_tokens=-1)
    assert text["usage"]["completion_tokens"] == 58


def test_log_probabilities_are_there_where_they_are_asked_for(http: TestClient) -> None:
    for given, there in ((False, False), (None, False), (0, True), (1, True)):
        answer = ask(http, TEXT, prompt="the", max_tokens=2, logprobs=given)
        assert (answer["choices"][0]["logprobs"] is not None) == there
    for given in (False, True):
        answer = ask(http, max_tokens=2, logprobs=given)
        assert (answer["choices"][0]["logprobs"] is not None) == given


def test_a_seed_that_stands_for_none_is_none(http: TestClient) -> None:
    texts = {reply_text(ask(http, temperature=1.5, seed=-1)) for _ in range(3)}
    assert len(texts) == 3


def test_an_assistant_that_said_nothing_said_nothing(http: TestClient) -> None:
    """Clients send an empty reply back as null, or without its content."""
    silent = ({"content": ""}, {"content": None}, {}, {"content": None, "tool_calls": []})
    texts = {
        reply_text(ask(http, messages=[*QUESTION, {"role": "assistant", **said}, *QUESTION]))
        for said in silent
    }
    assert len(texts) == 1
    for said in silent:  # at the end it is where the reply belongs
        begun = ask(http, messages=[*QUESTION, {"role": "assistant", **said}])
        assert reply_text(begun) == plain_text()
    for said in silent[1:]:
        assert parse_message({"role": "assistant", **said}).content == ""


def test_null_is_as_if_it_were_left_out(http: TestClient) -> None:
    nothing = dict.fromkeys(("n", "stream", "seed", "stop", "temperature", "tools", "logprobs"))
    assert reply_text(ask(http, **nothing, stream_options={"include_usage": None})) == reply_text(
        ask(http)
    )


def test_a_body_says_that_it_is_json(http: TestClient) -> None:
    """A page of another origin sends texts, forms and bodies without a type unasked."""
    body = json.dumps({"messages": QUESTION})
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/x+json"):
        answer = http.post(CHAT, content=body, headers={"content-type": kind})
        assert reply_text(answer.json()) == reply_text(ask(http))
    wrong = ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x")
    for kind in (*wrong, "text/plain; application/json", "application/jsonx", ""):
        headers = {"content-type": kind} if kind else {}
        for path in (CHAT, TEXT, "/predict", "/load_model"):
            answer = http.post(path, content=body, headers=headers)
            assert answer.status_code == 415
            assert "Content-Type: application/json" in answer.json()["error"]["message"]
    assert http.post(CHAT).status_code == 400  # there is no body that lacks a type


def test_a_key_is_asked_for_everywhere_but_for_the_health(served: ServedModel) -> None:
    http = client(served, key="sesame")
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic sesame"}):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            response = http.get(path, headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/health", headers=headers).json()["status"] == "ok"
    assert http.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200
    odd = {"Authorization": "Bearer é".encode("latin-1")}
    assert http.get("/v1/models", headers=odd).status_code == 401


def test_a_body_may_not_be_larger_than_said(served: ServedModel) -> None:
    http = client(served, max_body_bytes=1000)
    long = json.dumps({"messages": [{"role": "user", "content": "x" * 2000}]}).encode()
    assert http.post(CHAT, content=long, headers=JSON).status_code == 413
    told = http.post(CHAT, content=iter([long[:900], long[900:]]), headers=JSON)  # no length
    assert (told.status_code, told.json()["error"]["code"]) == (413, "request_too_large")
    assert told.headers["connection"] == "close"
    wrong = http.post(CHAT, content=b"{", headers=JSON)
    assert wrong.status_code == 400 and "connection" not in wrong.headers


def test_a_body_that_does_not_arrive_is_not_waited_for(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.serve.middleware._BODY_SECONDS", 0.05)

    async def slow() -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": CHAT, "method": "POST", "headers": []}
        await guarded(served)(scope, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(slow()) == 408


def test_a_name_that_is_not_the_servers_is_refused(served: ServedModel) -> None:
    """A page on the web can make a browser ask, but only under the page's name."""
    http = client(served, hosts={"localhost", "::1"})
    for host, status in (("localhost:5000", 200), ("[::1]:80", 200), ("evil.example", 421)):
        assert http.get("/health", headers={"host": host}).status_code == status
    assert http.get("/health", headers={"host": "[::1"}).status_code == 421
    named = client(served, hosts={"MyBox"})
    assert named.get("/health", headers={"host": "mybox."}).status_code == 200


@pytest.mark.parametrize("origins", [[], ["http://page.example"], ["*"]])
def test_pages_of_other_origins_are_refused_unless_they_are_named(
    served: ServedModel, origins: list[str]
) -> None:
    """A browser sends simple requests without asking first, but tells whose they are."""
    http = client(served, hosts={"localhost"}, origins=origins)
    for origin in ("http://page.example", "null"):
        headers = {"host": "localhost", "origin": origin}
        allowed = "*" in origins or origin in origins
        assert http.get("/health", headers=headers).status_code == (200 if allowed else 403)
    own = {"host": "localhost:5000", "origin": "http://localhost:5000"}
    assert http.get("/health", headers=own).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        ("localhost:5000", "http://localhost:5000", True),
        ("LocalHost.:5000", "http://localhost:5000", True),
        ("localhost", "http://localhost:80", True),
        ("localhost:80", "http://localhost", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("localhost:5000", "http://localhost:3000", False),
        ("localhost:5000", "http://localhost", False),
        ("localhost:5000", "https://localhost:5000", False),
        ("localhost:443", "https://localhost", False),
        ("localhost:5000", "http://127.0.0.1:5000", False),
        ("localhost:5000", "http://localhost:99999", False),
        ("localhost:5000", "http://[localhost:5000", False),
        ("localhost:5000", "localhost:5000", False),
        ("localhost:x", "http://localhost:x", False),
        ("", "http://", False),
    ],
)
def test_the_same_origin_is_scheme_host_and_port(
    served: ServedModel, host: str, origin: str, same: bool
) -> None:
    """Another port of this machine is another program, whose pages are not the server's."""
    answer = client(served).get("/health", headers={"host": host, "origin": origin})
    assert answer.status_code == (200 if same else 403)
    assert same or answer.json()["error"]["code"] == "foreign_origin"


def test_what_another_site_asks_for_without_an_origin_is_refused(served: ServedModel) -> None:
    """A picture's address, a link: there a browser says the site alone."""
    http, page = client(served, origins=["http://page.example"]), "http://page.example"
    for site, status in (("cross-site", 403), ("Cross-Site", 403), ("same-origin", 200)):
        assert http.get("/health", headers={"sec-fetch-site": site}).status_code == status
    assert http.get("/health", headers={"sec-fetch-site": "none"}).status_code == 200
    named = {"sec-fetch-site": "cross-site", "origin": page}
    assert http.get("/health", headers=named).status_code == 200
    own = {"host": "localhost", "origin": "http://localhost", "sec-fetch-site": "cross-site"}
    assert http.get("/health", headers=own).status_code == 403
    foreign = {"sec-fetch-site": "cross-site"}
    for guard in ({"origins": ["*"]}, {"key": "sesame"}):
        assert client(served, **guard).get("/health", headers=foreign).status_code == 200


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://page.example", "https://page.example"),
        ("HTTPS://Page.Example:443/", "https://page.example"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("*", "*"),
        ("null", "null"),
    ],
)
def test_an_origin_is_named_as_people_write_it(written: str, sent: str) -> None:
    assert as_sent(written) == sent


@pytest.mark.parametrize(
    "text",
    ["page.example", "localhost:3000", "http://", "http://a/b", "http://a?b", "", "http://a:b"],
)
def test_what_no_page_could_come_from_is_no_origin(text: str) -> None:
    done = CliRunner().invoke(app, ["serve", "--cors", text])
    assert done.exit_code == 2
    assert f"--cors {text!r} is no web origin" in done.stderr


def test_an_empty_key_is_no_key(served: ServedModel) -> None:
    assert client(served, key="").get("/v1/models").status_code == 401
    done = CliRunner().invoke(app, ["serve", "--api-key", ""])
    assert done.exit_code == 2
    assert "--api-key is empty" in done.stderr


def test_an_address_is_taken_once() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NfoxError, match=f"cannot listen on 127.0.0.1, port {port}"):
            bind("127.0.0.1", port)


def test_what_is_told_is_no_failure_of_the_server(served: ServedModel) -> None:
    """Else every wrong request would be a traceback in its log."""
    strict = TestClient(guarded(served), raise_server_exceptions=True)
    assert strict.post(CHAT, json={"messages": QUESTION, "model": "x"}).status_code == 404
    assert strict.post(CHAT, json={"messages": QUESTION, "method": "x"}).status_code == 400


def test_an_unexpected_error_ends_its_request_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = serve()
    http, own = client(served), served.worker.engine.stream
    failing = iter([RuntimeError("secret"), torch.OutOfMemoryError("x"), NfoxError("a", "b")])

    def stream(*a: Any, **b: Any) -> Any:
        error = next(failing, None)
        if error:
            raise error
        return own(*a, **b)

    monkeypatch.setattr(served.worker.engine, "stream", stream)
    first = http.post(CHAT, json={"messages": QUESTION})
    assert first.status_code == 500
    assert "secret" not in first.text
    assert "memory" in http.post(CHAT, json={"messages": QUESTION}).json()["error"]["message"]
    assert http.post(CHAT, json={"messages": QUESTION}).json()["error"]["message"] == "a (b)"
    assert reply_text(ask(http)) == plain_text()


def test_a_method_that_cannot_be_loaded_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = serve(load_tiny(method=drafters.plain_method()))
    http = client(served)

    def make(name: str) -> None:
        raise ModelError(f"no weights of {name}")

    monkeypatch.setattr(served.worker.engine, "make", make)
    told = http.post(CHAT, json={"messages": QUESTION, "method": "medusa"})
    assert (told.status_code, told.json()["error"]["message"]) == (503, "no weights of medusa")
    assert reply_text(ask(http)) == plain_text()


def test_a_reply_is_cut_when_its_time_has_passed() -> None:
    served = serve(load_tiny(settings=Settings(max_new_tokens=400)), seconds=1.0)
    slowly(served, 0.05)
    answer = ask(client(served))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["speculation"]["finish"] == "interrupt"
    assert 0 < answer["usage"]["completion_tokens"] < 400
    both = ask(client(served), n=2)
    assert reply_text(both, 0) and not reply_text(both, 1)
    assert {choice["finish_reason"] for choice in both["choices"]} == {"length"}


@pytest.mark.parametrize(
    ("ending", "status", "kept"),
    [(None, 503, 5), (UsageError("no"), 400, 5), (ModelError("no numbers"), 503, 0)],
)
def test_what_was_read_of_a_prompt_is_not_read_again_by_the_next_try(
    monkeypatch: pytest.MonkeyPatch, ending: NfoxError | None, status: int, kept: int
) -> None:
    served = serve(load_tiny(method=drafters.plain_method()))
    target, http = served.worker.engine.model.target, client(served)
    own = target.read

    def read(tokens: Any, cache: Any, cancelled: Any = None) -> bool:
        own(tokens[:5], cache)
        if ending:
            raise ending
        return False

    with monkeypatch.context() as patch:
        patch.setattr(target, "read", read)
        assert http.post(CHAT, json={"messages": QUESTION}).status_code == status
    usage = ask(http)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == kept


def slowly(served: ServedModel, seconds: float) -> list[int]:
    """Let every step take some time; return a list in which every step is noted."""
    engine, noted = served.worker.engine, list[int]()
    own = engine.model.target.score

    def score(*a: Any) -> Any:
        time.sleep(seconds)
        noted.append(1)
        return own(*a)

    engine.model.target.score = score  # type: ignore[method-assign]
    return noted


@pytest.mark.slow
def test_who_waits_too_long_is_told_and_who_comes_late_finds_the_queue_full() -> None:
    served = serve(load_tiny(method=drafters.plain_method()), seconds=0.5, queue=1)
    slowly(served, 1.2)
    http = client(served)

    async def together() -> list[int]:
        asked = {"messages": QUESTION}
        tasks = []
        for _ in range(3):
            asking = asyncio.to_thread(http.post, CHAT, json=asked)
            tasks.append(asyncio.create_task(asking))
            await asyncio.sleep(0.25)
        return [response.status_code for response in await asyncio.gather(*tasks)]

    assert asyncio.run(together()) == [200, 503, 429]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_hangs_up_stops_its_generation(streamed: bool) -> None:
    long = Settings(max_new_tokens=400)
    served = serve(load_tiny(method=drafters.plain_method(), settings=long))
    steps = slowly(served, 0.01)
    body = json.dumps({"messages": QUESTION, "stream": streamed}).encode()

    async def hang_up() -> None:
        given, gone = [{"type": "http.request", "body": body}], asyncio.Event()

        async def receive() -> Any:
            if given:
                return given.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {
            "type": "http", "path": CHAT, "raw_path": CHAT.encode(), "method": "POST",
            "query_string": b"", "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        asking = asyncio.create_task(guarded(served)(scope, receive, send))
        while len(steps) < 5:
            await asyncio.sleep(0.01)
        gone.set()
        await asking

    asyncio.run(hang_up())
    time.sleep(0.1)
    done = len(steps)
    assert done < 100
    time.sleep(0.1)
    assert len(steps) == done
    assert served.worker.running == 0
    assert ask(client(served), max_tokens=3)


def test_who_is_served_when_the_server_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Settings(max_new_tokens=400)
    served = serve(load_tiny(method=drafters.plain_method(), settings=long))
    steps, http = slowly(served, 0.02), client(served)

    async def together() -> list[Any]:
        asking = [
            asyncio.to_thread(http.post, CHAT, json={"messages": QUESTION, "stream": streamed})
            for streamed in (True, False)
        ]
        tasks = []
        for one in asking:
            tasks.append(asyncio.create_task(one))
            while len(steps) < 3:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        served.worker.stop()
        return await asyncio.gather(*tasks)

    streamed, whole = asyncio.run(together())
    assert chunks(streamed.text)[-1]["error"]["code"] == "stopping"
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "stopping")
    served.worker.join(5)
    assert not served.worker.running
    assert http.post(CHAT, json={"messages": QUESTION}).status_code == 503


def test_a_request_that_leaves_the_queue_while_the_server_ends_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it is neither waiting nor being answered."""
    get = FairQueue.get

    def get_and_stop(queue: FairQueue[Any]) -> Any:
        work = get(queue)
        served.worker.stop()
        return work

    monkeypatch.setattr(FairQueue, "get", get_and_stop)
    served = serve(load_tiny(method=drafters.plain_method()))
    told = client(served).post(CHAT, json={"messages": QUESTION})
    assert (told.status_code, told.json()["error"]["code"]) == (503, "stopping")


def test_a_question_with_many_replies_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(load_tiny(method=drafters.plain_method()))
    engine, rendered = served.worker.engine, list[Any]()
    encode = engine.encode

    def counted(*arguments: Any) -> Any:
        rendered.append(arguments)
        return encode(*arguments)

    monkeypatch.setattr(engine, "encode", counted)
    ask(client(served), n=3, max_tokens=2)
    assert len(rendered) == 1


def test_metrics_count_what_was_answered(served: ServedModel) -> None:
    http = client(served)

    def read() -> dict[str, float]:
        families = text_string_to_metric_families(http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        own = [s for s in samples if s.labels.get("method", "medusa") == "medusa"]
        totals: dict[str, float] = {}
        for sample in own:
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
        return totals

    ask(http, method="medusa")
    http.post(CHAT, json={})
    before = read()
    answer = ask(http, method="medusa")
    http.post(CHAT, json={"messages": QUESTION, "model": "x"})
    after, spent = read(), answer["usage"]["speculation"]
    counted = {
        "nfox_tokens_total": answer["usage"]["completion_tokens"],
        "nfox_prompt_tokens_total": answer["usage"]["prompt_tokens"],
        "nfox_steps_total": spent["steps"],
        "nfox_drafted_tokens_total": spent["drafted"],
        "nfox_accepted_tokens_total": spent["accepted"],
        "nfox_replies_total": 1,
        "nfox_refused_total": 1,
        "nfox_time_to_first_token_seconds_count": 1,
        "nfox_queue_seconds_count": 1,
    }
    assert {name: after[name] - before[name] for name in counted} == counted
    assert after["nfox_tau"] == pytest.approx(spent["mean_acceptance_length"], abs=1e-3)
    depths = spent["acceptance_by_depth"]
    tried = after["nfox_depth_tried_total"] - before["nfox_depth_tried_total"]
    assert tried >= len(depths)
    assert after["nfox_running"] == after["nfox_waiting"] == 0
    assert after["nfox_cache_bytes"] == served.worker.caches.nbytes > 0


def test_an_encoder_reads_texts_and_ids_too() -> None:
    engine = load_tiny(folder.t5(), template="plain")
    http = client(serve(engine))
    ids = list(engine.model.tokenizer("hello").input_ids)
    expected = reply_text(ask(http, messages=[{"role": "user", "content": "hello"}]))
    for prompt in ("hello", ids):
        assert ask(http, TEXT, prompt=prompt)["choices"][0]["text"] == expected
    assert http.post("/predict", json={"prompt": "hello"}).json().startswith("hello")
    for wrong in ({"role": "assistant", "content": "x"}, {"role": "user", "content": ""}):
        assert http.post(CHAT, json={"messages": [wrong]}).status_code == 400
    assert http.post(TEXT, json={"prompt": ""}).status_code == 400


@pytest.mark.parametrize("make", [folder.mamba, folder.t5])
def test_other_kinds_of_models_are_served_over_turns(make: Any) -> None:
    engine = load_tiny(make(), template="plain")
    http, fresh = (
        client(serve(engine)),
        load_tiny(make(), template="plain", method=drafters.plain_method()),
    )
    messages: list[dict[str, str]] = []
    for question in ("hello", "more"):
        messages.append({"role": "user", "content": question})
        expected = fresh.answer(messages).text
        answer = ask(http, messages=messages)
        assert reply_text(answer) == expected
        messages.append({"role": "assistant", "content": expected})
