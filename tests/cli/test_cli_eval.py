"""`nfox eval gsm8k`, `humaneval`, `spider` and `loss`, and the prompts of CLLMs by their type, run
as a person runs them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cli_model
import folder
import pytest
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.cli.options.engine import CLLM_TEMPLATES, ModelArguments
from nfox.errors import UsageError
from nfox.eval.answers import extract
from nfox.text.resolve import resolve

SMALL = ("--dtype", "float32", "--threads", "1", "--max-new-tokens", "12")


def run(*arguments: object) -> Result:
    model = () if "--model" in arguments else ("--model", folder.llama())
    return CliRunner().invoke(app, [*map(str, (*arguments, *model))])


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, *records: Any, listed: bool = False) -> Path:
    text = json.dumps(records) if listed else "\n".join(map(json.dumps, records))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write(
        tmp_path / "test.jsonl",
        {"question": "What is 1 + 1?", "answer": "It is 2.\n#### 2"},
        {"question": "What is 2 + 2?", "answer": "#### 4"},
    )


def test_gsm8k_is_scored_written_and_gone_on_with(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    command = ("eval", "gsm8k", "--data", problems, "--out", out, "--method", "jacobi", *SMALL)
    done = run(*command, "--limit", "1")
    assert done.exit_code == 0, done.stderr
    assert "gsm8k: 0 of 1 right" in done.stdout
    assert "jacobi: 12 tokens, tau " in done.stdout
    assert "noise" in done.stdout
    begun = lines(out)
    assert run(*command).exit_code == 0
    whole = out.read_text("utf-8")
    assert lines(out)[0] == begun[0], "it is not asked again"
    first, second = lines(out)
    assert (first["gold"], second["gold"]) == ("2", "4")
    assert first["correct"] is (first["prediction"] == "2")
    out.write_text(whole.splitlines()[0] + '\n{"id": "1", "te', "utf-8")
    assert run(*command).exit_code == 0
    again = lines(out)
    assert again[0] == first
    assert again[1]["tokens"] == second["tokens"]
    other = run(*command, "--seed", "5")
    assert other.exit_code == 2
    assert "seed" in other.stderr


def test_a_right_answer_counts(tmp_path: Path, problems: Path) -> None:
    """The model always says the same, in which the last number is a 0."""
    model = ("--model", cli_model.save(tmp_path / "model"), *SMALL, "--method", "none")
    data = write(
        tmp_path / "two.jsonl",
        {"question": "?", "answer": "#### 0.00"},
        {"question": "!", "answer": "#### 31"},
    )
    done = run("eval", "gsm8k", "--data", data, *model)
    assert "gsm8k: 1 of 2 right, 50.0% ± 35.4%" in done.stdout, done.stderr
    assert "none: 24 tokens, tau 1.00, " in done.stdout
    shots = ("--shots", 1, "--examples", problems, "--out", tmp_path / "shot.jsonl")
    done = run("eval", "gsm8k", "--data", data, *shots, *model)
    assert "1 of 2 right" in done.stdout, done.stderr
    first, _ = lines(tmp_path / "shot.jsonl")
    assert (first["prediction"], first["correct"]) == ("0", True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("gsm8k", "--shots", 1), "The quick brown"),
        (("gsm8k", "--shots", 0), "The quick brown fox 🦊 says 你好 [red]not red[/red]"),
        (("humaneval", "--conv-template", "plain"), "quick brown"),
        (("humaneval", "--instruct"), "The quick brown fox 🦊 says 你好 [red]not red[/red]"),
    ],
)
def test_a_task_ends_answers_where_the_next_one_would_begin(
    command: tuple[object, ...],
    said: str,
    tmp_path: Path,
    problems: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model always says the same, in which strings of the task are made to stand."""
    for name in ("SHOT_ENDS", "FUNCTION_ENDS"):
        monkeypatch.setattr(extract, name, (" fox",))
    task = {"task_id": "HumanEval/0", "prompt": " The", "entry_point": "one", "test": ""}
    put: dict[object, tuple[object, ...]] = {
        "gsm8k": ("--data", problems, "--examples", problems, "--limit", 1),
        "humaneval": ("--data", write(tmp_path / "HumanEval.jsonl", task)),
    }
    model = ("--model", cli_model.save(tmp_path / "model"), *SMALL, "--max-new-tokens", 10)
    done = run("eval", *command, *put[command[0]], *model, "--out", tmp_path / "out.jsonl")
    assert done.exit_code == 0, done.stderr
    written = tmp_path / f"out.jsonl{'' if command[0] == 'gsm8k' else '.replies.jsonl'}"
    assert [line["text"].strip() for line in lines(written)] == [said]


def test_an_answer_without_a_number_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    data = write(tmp_path / "bad.jsonl", {"question": "?", "answer": "no idea"})
    done = run("eval", "gsm8k", "--data", data, "--model", "no/model")
    assert done.exit_code == 2
    assert "its answer has no number" in done.stderr


@pytest.mark.parametrize("record", [{"question": "?"}, {"no": "question"}, "text"])
def test_a_score_over_other_problems_is_refused(record: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "less.jsonl", {"question": "?", "answer": "1"}, record)
    done = run("eval", "gsm8k", "--data", data, "--model", "no/model")
    assert done.exit_code == 2
    assert "1 of its records cannot be read" in done.stderr


def test_what_is_left_out_of_the_loss_is_said(tmp_path: Path) -> None:
    data = write(tmp_path / "less.jsonl", {"question": "?", "answer": "1"}, {"no": "question"})
    done = run("eval", "loss", "--data", data, "--dtype", "float32")
    assert done.exit_code == 0, done.stderr
    assert f"nfox: {data}: 1 conversations, 1 skipped as malformed\n" in done.stderr


def test_answers_are_judged_by_what_is_right_now(tmp_path: Path) -> None:
    """The model always says the same, in which the last number is a 0."""
    model = ("--model", cli_model.save(tmp_path / "model"), *SMALL, "--method", "none")
    data, out = tmp_path / "one.jsonl", tmp_path / "out.jsonl"
    command = ("eval", "gsm8k", "--data", data, "--out", out, *model)
    write(data, {"question": "?", "answer": "31"})
    assert "gsm8k: 0 of 1 right" in run(*command).stdout
    [before] = lines(out)
    write(data, {"question": "?", "answer": "0"})
    assert "gsm8k: 1 of 1 right" in run(*command).stdout
    assert lines(out) == [before | {"gold": "0", "correct": True}]
    other = run(*command, "--max-context", "64")
    assert other.exit_code == 2
    assert "max_context none, not 64" in other.stderr


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "spider"])
def test_a_place_for_the_answers_is_there_before_anything_is_read(name: str) -> None:
    words = ("--data", "absent.json", "--out", "no/such/x", "--model", "no/model")
    done = run("eval", name, *words, *(("--tables", ".") if name == "spider" else ()))
    assert done.exit_code == 2
    assert "no folder no/such for the answers" in done.stderr


def base_model(place: Path) -> Path:
    """Save the tiny Llama without a chat template, as base models come."""
    shutil.copytree(folder.llama(), place)
    (place / "chat_template.jinja").unlink(missing_ok=True)
    return place


def test_humaneval_takes_a_base_model_and_no_template_that_it_would_not_use(tmp_path: Path) -> None:
    task = {"task_id": "HumanEval/0", "prompt": "def one():\n", "entry_point": "one"}
    data, out = write(tmp_path / "HumanEval.jsonl", task), tmp_path / "samples.jsonl"
    command = ("eval", "humaneval", "--data", data, "--out", out, *SMALL)
    model = ("--model", base_model(tmp_path / "base"))
    done = run(*command, *model)
    assert done.exit_code == 0, done.stderr
    done = run(*command, *model, "--instruct", "--out", tmp_path / "chat.jsonl")
    assert "has no chat template" in done.stderr
    for given in (("--conv-template", "chatml"), ("--cllm-type", "python")):
        done = run(*command, *given)
        assert done.exit_code == 2
        assert "add --instruct" in done.stderr


def test_humaneval_writes_what_the_harness_reads(tmp_path: Path) -> None:
    prompt = 'def one() -> int:\n    """The number."""\n'
    task = {"task_id": "HumanEval/0", "prompt": prompt, "entry_point": "one", "test": ""}
    data, out = write(tmp_path / "HumanEval.jsonl", task), tmp_path / "samples.jsonl"
    command = ("eval", "humaneval", "--data", data, "--out", out, *SMALL)
    done = run(*command)
    assert done.exit_code == 0, done.stderr
    [sample] = lines(out)
    [reply] = lines(tmp_path / "samples.jsonl.replies.jsonl")
    assert sample == {"task_id": "HumanEval/0", "completion": reply["text"]}
    plain = run("generate", prompt, "--conv-template", "plain", *SMALL)
    assert reply["tokens"] == json.loads(plain.stdout)["tokens"], "it goes on with the text itself"
    done = run(*command, "--instruct")
    assert done.exit_code == 2, "the same file, asked in another way"
    assert "instruct" in done.stderr
    for other in ({"prompt": "x"}, {**task, "prompt": None}, {**task, "task_id": 3}):
        wrong = write(tmp_path / "wrong.jsonl", other)
        done = run("eval", "humaneval", "--data", wrong, "--out", out)
        assert done.exit_code == 2
        assert "not a problem of HumanEval" in done.stderr


def test_spider_writes_a_line_for_every_question(tmp_path: Path) -> None:
    names = {"table_names_original": ["t"], "column_names_original": [[-1, "*"], [0, "a"]]}
    tables = write(tmp_path / "tables.json", {"db_id": "d", **names}, listed=True)
    asked = [{"db_id": "d", "question": f"Number {n}?", "query": "SELECT 1"} for n in range(2)]
    data = write(tmp_path / "dev.json", *asked, listed=True)
    out = tmp_path / "predicted.sql"
    command = ("eval", "spider", "--tables", tables, "--out", out, *SMALL)
    done = run(*command, "--data", data, "--cllm-type", "spider")
    assert done.exit_code == 0, done.stderr
    text = out.read_text("utf-8")
    assert text.count("\n") == 2
    assert "asks for no SQL" not in done.stderr
    done = run(*command, "--out", tmp_path / "other.sql", "--data", data)
    assert done.exit_code == 0
    assert "the template tokenizer asks for no SQL" in done.stderr
    assert all(line.strip() and "\t" not in line for line in text.splitlines())
    shifted = write(tmp_path / "bad.json", {"db_id": "d"}, *asked, listed=True)
    done = run(*command, "--data", shifted)
    assert done.exit_code == 2
    assert "record 1: not a question of Spider" in done.stderr
    for missing in ("--data", "--tables"):
        given = {"--data": data, "--tables": tables, "--out": out}
        given.pop(missing)
        done = run("eval", "spider", *(part for pair in given.items() for part in pair))
        assert done.exit_code == 2
        assert f"{missing} is missing" in done.stderr


def test_what_is_not_spiders_is_refused(problems: Path, tmp_path: Path) -> None:
    command = ("eval", "spider", "--out", tmp_path / "out.sql", "--model", "no/model")
    done = run(*command, "--data", problems, "--tables", "absent.json")
    assert done.exit_code == 2
    assert "--tables absent.json: no such file" in done.stderr
    for data in (problems, write(tmp_path / "empty.json", listed=True)):
        done = run(*command, "--data", data, "--tables", tmp_path)
        assert done.exit_code == 2
        assert "a question of Spider" in done.stderr
    asked = write(tmp_path / "dev.json", {"db_id": "d", "question": "?"}, listed=True)
    done = run(*command, "--data", asked, "--tables", problems)
    assert done.exit_code == 2
    assert f"{problems}: not JSON" in done.stderr
    assert "table_names_original" in done.stderr


def test_the_loss_is_said(problems: Path) -> None:
    done = run("eval", "loss", "--data", problems, "--dtype", "float32")
    assert done.exit_code == 0, done.stderr
    assert "loss " in done.stdout
    assert "2 conversations" in done.stdout


PROMPTS = {
    "gsm8k": "Question:\nQ\nAnswer:\nLet's think step by step.\n",
    "python": "### Instruction:\nPlease generate code based on the following doc:\nQ\n"
    "### Response:\n",
    "spider": "### Instruction:\nCould you translate the following question into SQL. Please only "
    "generate SQL, don't include explanation in the answer. Q\n### Response:\n",
    "sharegpt": "A chat between a curious user and an artificial intelligence assistant. The "
    "assistant gives helpful, detailed, and polite answers to the user's questions. USER: Q "
    "ASSISTANT:",
}


@pytest.mark.parametrize("kind", CLLM_TEMPLATES)
def test_every_type_of_cllm_gets_its_own_prompt(kind: Any) -> None:
    """A published chat gives all of them the prompt for code, by `if type == "a" or "b"`."""
    from nfox.text.messages import Message

    template = resolve(folder.tokenizer(), ModelArguments(cllm_type=kind).conv_template)  # type: ignore[arg-type]
    segments = template.segments([Message("user", "Q")])
    assert "".join(segment.text for segment in segments) == PROMPTS[kind]


def test_two_templates_at_once_are_refused() -> None:
    assert ModelArguments(cllm_type="gsm8k", conv_template="cllm-math").conv_template == "cllm-math"
    with pytest.raises(UsageError, match="short for --conv-template cllm-math"):
        ModelArguments(cllm_type="gsm8k", conv_template="chatml")
    done = run("generate", "Q", "--cllm-type", "sql")
    assert done.exit_code == 2
