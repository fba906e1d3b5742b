"""Many prompts: three layouts, one line each, and a kill loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import folder
import pytest

from nfox import Engine, ModelOptions, NfoxError, Sampling, Settings, load
from nfox.batch import answer, parse_prompt, parse_prompts, remaining
from nfox.errors import UsageError
from nfox.files.jsonl import finished_ids
from nfox.serve.schemas import ChatCompletion
from nfox.text.messages import Message

LINES = [
    json.dumps({"id": "a", "prompt": "hello"}),
    "",
    json.dumps({"id": "b", "messages": [{"role": "user", "content": "hi"}]}),
    json.dumps({"question_id": 7, "turns": ["one", "two"]}),
]


def load_engine(seed: int = 0) -> Engine:
    settings = Settings(max_new_tokens=12, sampling=Sampling(temperature=1.0, seed=seed))
    return load(str(folder.llama()), loading=ModelOptions(dtype="float32"), settings=settings)


def test_the_three_layouts() -> None:
    prompts = parse_prompts(LINES, "x")
    assert [p.id for p in prompts] == ["a", "b", "7"]
    engine = load_engine()
    lines = [answer(engine, prompt) for prompt in prompts]
    assert [set(line) >= {"id", "text", "tokens", "timings", "spec"} for line in lines]
    assert len(lines[2]["turns"]) == 2
    assert lines[2]["text"] == lines[2]["turns"][1]["text"]
    for line in lines:
        assert line["timings"]["predicted_n"] >= len(line["tokens"])
        assert line["spec"]["mean_acceptance_length"] >= 1


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "[]",
        "{}",
        '{"prompt": 3}',
        '{"turns": []}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "assistant", "content": "a"}]}',
        '{"messages": [{"role": "user", "content": null}]}',
        '{"messages": [{"role": "user", "content": 7}]}',
        '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": null}]}]}',
        '{"messages": [{"role": "robot", "content": "x"}, {"role": "user", "content": "x"}]}',
        '{"messages": [{"role": ["user"], "content": "x"}]}',
        '{"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}',
        '{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}',
        '{"messages": [{"role": "user", "content": "x"}], "prompt": "y"}',
        '{"messages": ["x"]}',
        '{"prompt": "x", "turns": ["x"]}',
        '{"prompt": "x", "system": ["be brief"]}',
        '{"prompt": "x", "id": [1]}',
        '{"prompt": "x", "id": true}',
    ],
)
def test_wrong_lines_say_where(line: str) -> None:
    with pytest.raises(UsageError, match="in, line 4") as error:
        parse_prompt(line, 3, "in")
    assert "\n" not in error.value.message
    with pytest.raises(UsageError, match="twice"):
        parse_prompts([LINES[0], LINES[0]], "in")


def test_messages_are_read_as_the_server_reads_them() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}], "tool_calls": None},
        {"role": "user", "content": parts, "name": "me"},
    ]
    prompt = parse_prompt(json.dumps({"messages": messages, "tools": []}), 0)
    body = ChatCompletion.model_validate({"messages": messages})
    served = [turn.to_message() for turn in body.messages]
    assert [*prompt.opening, Message("user", *prompt.questions)] == served
    assert prompt.opening[0] == Message("system", "be brief")
    assert prompt.questions == ("one\ntwo",)


def test_a_system_message_beside_the_prompt_is_asked_with_it() -> None:
    for asked in (
        {"prompt": "x"},
        {"turns": ["x"]},
        {"messages": [{"role": "user", "content": "x"}]},
    ):
        prompt = parse_prompt(json.dumps(asked | {"system": "be brief", "turn": 3}), 0)
        assert (prompt.opening, prompt.questions) == ((Message("system", "be brief"),), ("x",))
        assert parse_prompt(json.dumps(asked | {"system": None}), 0).opening == ()


def test_an_id_that_is_null_is_none() -> None:
    lines = [json.dumps({"id": None, "prompt": "x", "messages": None}) for _ in range(2)]
    assert [prompt.id for prompt in parse_prompts(lines, "in")] == ["0", "1"]


def test_a_number_that_is_none_in_another_field_costs_no_prompt() -> None:
    """As Python writes the rows of a table."""
    lines = ['{"id": NaN, "prompt": "hi"}', '{"prompt": "ho", "score": -Infinity, "n": 1e999}']
    prompts = parse_prompts(lines, "in")
    assert [(p.id, p.questions) for p in prompts] == [("0", ("hi",)), ("1", ("ho",))]


def test_a_line_with_bytes_that_are_no_text_has_an_error_and_the_others_are_answered() -> None:
    lines = ['{"id": "a", "prompt": "caf\udce9"}', '{"id": "\\ud800", "prompt": "cut \\ud83d"}']
    broken, cut = parse_prompts(lines, "in")
    engine = load_engine()
    line = answer(engine, broken)
    assert line == {"id": "a", "text": "", "tokens": [], "finish_reason": "error"} | {
        "error": "in, line 1: not UTF-8",
        "code": 2,
    }
    line = answer(engine, cut)
    assert (line["id"], "error" in line) == ("\ufffd", False)
    assert line == answer(load_engine(), replace(cut, questions=("cut \ufffd",))) | {
        "timings": line["timings"],
        "spec": line["spec"],  # what is drafted depends on the time that it takes
    }


def test_an_answer_does_not_depend_on_the_prompts_before_it() -> None:
    prompts = parse_prompts(LINES, "x")
    together = load_engine()
    lines = [answer(together, prompt)["tokens"] for prompt in prompts]
    alone = [answer(load_engine(), prompt)["tokens"] for prompt in prompts]
    assert lines == alone
    assert lines != [answer(load_engine(seed=1), prompt)["tokens"] for prompt in prompts]


def test_it_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    prompts = parse_prompts(LINES, "x")
    out = tmp_path / "out.jsonl"
    assert finished_ids(out) == set()
    out.write_text('{"id": "a", "text": ""}\n{"id": "b", "te')
    assert finished_ids(out) == {"a"}
    assert out.read_text() == '{"id": "a", "text": ""}\n'
    assert [p.id for p in remaining(prompts, {"a"})] == ["b", "7"]
    out.write_text("my thesis\n")
    with pytest.raises(NfoxError, match="not an output"):
        finished_ids(out)
    assert out.read_text() == "my thesis\n"


def test_an_error_in_a_later_turn_keeps_the_answers_before_it() -> None:
    turns = {"id": "t", "turns": ["one", "two", "x " * 999]}
    line = answer(load_engine(), parse_prompt(json.dumps(turns), 0))
    assert line["finish_reason"] == "error"
    assert len(line["turns"]) == 2


def test_line_numbers_count_empty_lines_and_texts_keep_their_separators() -> None:
    with pytest.raises(UsageError, match="line 3"):
        parse_prompts([LINES[0], "", "x"], "in")
    text = json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False)
    assert parse_prompt(text, 0).questions == ("a\u2028b",)


def test_what_is_too_long_is_written_down() -> None:
    line = answer(load_engine(), parse_prompt(json.dumps({"id": "l", "prompt": "x " * 999}), 0))
    assert line["finish_reason"] == "error"
    assert "tokens" in line["error"]
