"""Many prompts: three layouts, one line each, and a kill loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import folder
import pytest

from nfox import Engine, ModelOptions, NfoxError, Sampling, Settings, load
from nfox.batch import answer, parse_prompt, parse_prompts, remaining
from nfox.errors import UsageError
from nfox.files.jsonl import finished_ids

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
    ],
)
def test_wrong_lines_say_where(line: str) -> None:
    with pytest.raises(UsageError, match="in, line 4") as error:
        parse_prompt(line, 3, "in")
    assert "\n" not in error.value.message
    with pytest.raises(UsageError, match="twice"):
        parse_prompts([LINES[0], LINES[0]], "in")


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
