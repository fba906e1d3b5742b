"""Answer files of published harnesses: what is read out of them, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from full_disk import room
from typer.testing import CliRunner, Result

from nfox.cli.bench.answers import answers, write_answers
from nfox.cli.options.dataclass_options import grouped
from nfox.cli.output_files import check_folder
from nfox.decoding.stats import Stats
from nfox.errors import NfoxError, UsageError
from nfox.eval.answers.files import AnswerFile, question_ids, read, write
from nfox.eval.answers.speed import rows
from nfox.eval.bench.runner import Task, Trial

MEDUSA = {  # as gen_model_answer_medusa.py writes it
    "question_id": 82,
    "answer_id": "SXmR3pGDSAWV8mdkAWv2Q6",
    "model_id": "medusa-vicuna-7b-v1.3-1-temperature-0.0",
    "choices": [
        {"index": 0, "turns": ["Subject: Request", "As an AI"], "idxs": [89, 75],
         "new_tokens": [271, 237], "wall_time": [2.25, 1.75]}
    ],
    "tstamp": 1694840571.45,
}  # fmt: skip
MEDUSA_PLAIN = {  # as gen_model_answer_baseline.py does, which never counts a token
    **MEDUSA,
    "choices": [{"index": 0, "turns": ["a", "b"], "idxs": [299, 199], "new_tokens": [0, 0],
                 "wall_time": [6.0, 4.0]}],
}  # fmt: skip
CTC_PLAIN = {
    "question_id": 82,
    "model_id": "ctc_baseline-greedy",
    "choices": [{"index": 0, "turns": ["a", "b"], "idxs": [334, 203], "new_tokens": [335, 204],
                 "wall_time": [10.5, 7.5]}],
}  # fmt: skip
SPEC_BENCH = {  # by evaluation/eval.py
    "question_id": 161,
    "category": "translation",
    "answer_id": "x",
    "model_id": "vicuna-7b-v1.3-eagle",
    "choices": [{"index": 0, "turns": ["a"], "decoding_steps": [2], "new_tokens": [9],
                 "wall_time": [0.5], "accept_lengths": [4, 3, 2]}],
    "tstamp": 1.0,
}  # fmt: skip
EARLY_SPEC_BENCH = {  # prompt lookup: idxs are of tokens; the name had a colon in it
    "question_id": 162,
    "category": "qa",
    "choices": [{"index": 0, "turns": ["a"], "idxs": [5], "new_tokens": [6], "wall_time": [2.0],
                 "accept_lengths:": [1, 3, 2]}],
}  # fmt: skip


def file(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def one_row(*records: Any, folder: Path, kind: str = "all") -> dict[str, Any]:
    found = rows(read(file(folder / "x.jsonl", *records)))
    (row,) = [row for row in found if row["category"] == kind]
    return row


@pytest.mark.parametrize(
    ("record", "tokens", "steps", "seconds"),
    [
        (MEDUSA, 508, 90 + 76, 4.0),
        (MEDUSA_PLAIN, 500, 500, 10.0),
        (CTC_PLAIN, 539, 539, 18.0),
        (SPEC_BENCH, 9, 3, 0.5),
        (EARLY_SPEC_BENCH, 6, 3, 2.0),
    ],
)
def test_tau_and_speed_of_every_layout_by_hand(
    record: Any, tokens: int, steps: int, seconds: float, tmp_path: Path
) -> None:
    row = one_row(record, folder=tmp_path)
    assert (row["questions"], row["tokens"], row["steps"]) == (1, tokens, steps)
    assert row["tau"] == pytest.approx(tokens / steps)
    assert row["tokens_per_second"] == pytest.approx(tokens / seconds)
    assert row["mean_tokens_per_second"] == pytest.approx(tokens / seconds)


def test_accept_lengths_say_tau_and_new_tokens_the_speed(tmp_path: Path) -> None:
    choice = {"turns": ["a"], "new_tokens": [8], "wall_time": [2.0], "accept_lengths": [4, 5]}
    row = one_row({"question_id": 1, "choices": [choice]}, folder=tmp_path)
    assert (row["tau"], row["tokens_per_second"]) == (4.5, 4.0)


def test_without_steps_there_is_a_speed_and_no_tau(tmp_path: Path) -> None:
    choice = {"turns": ["a"], "new_tokens": [8], "wall_time": [2.0]}
    row = one_row({"question_id": 1, "choices": [choice]}, folder=tmp_path)
    assert (row["tau"], row["tokens_per_second"]) == (None, 4.0)


def measured(question: int, kind: str, tokens: int, seconds: float) -> dict[str, Any]:
    choice = {"turns": ["a"], "idxs": [tokens // 2 - 1], "new_tokens": [tokens],
              "wall_time": [seconds]}  # fmt: skip
    return {"question_id": question, "category": kind, "choices": [choice]}


def test_both_speedups_by_hand(tmp_path: Path) -> None:
    """10 tokens in 1 s and 30 in 1 s, against 10 in 2 s and 10 in 3 s."""
    own = read(file(tmp_path / "own.jsonl", measured(1, "a", 10, 1.0), measured(2, "b", 30, 1.0)))
    base = read(file(tmp_path / "no.jsonl", measured(1, "a", 10, 2.0), measured(2, "b", 10, 3.0)))
    found = {row["category"]: row for row in rows(own, base)}
    assert list(found) == ["all", "a", "b"]
    assert found["all"]["speedup"] == pytest.approx((40 / 2) / (20 / 5))
    assert found["all"]["mean_speedup"] == pytest.approx(20 / ((5 + 10 / 3) / 2))
    assert found["a"]["speedup"] == found["a"]["mean_speedup"] == pytest.approx(2)
    assert found["b"]["speedup"] == found["b"]["mean_speedup"] == pytest.approx(9)
    assert 2 <= found["all"]["speedup_low"] < found["all"]["speedup_high"] <= 9 + 1e-9
    assert [found[kind]["tau"] for kind in ("all", "a", "b")] == [2, 2, 2]


def test_speedups_are_over_questions_that_both_answer(tmp_path: Path) -> None:
    own = read(file(tmp_path / "own.jsonl", measured(1, "a", 10, 1.0), measured(2, "b", 30, 1.0)))
    base = read(file(tmp_path / "no.jsonl", measured(1, "a", 10, 4.0), measured(3, "b", 9, 9.0)))
    found = {row["category"]: row for row in rows(own, base)}
    assert (found["all"]["compared"], found["all"]["speedup"]) == (1, pytest.approx(4))
    assert (found["b"]["compared"], found["b"]["speedup"]) == (0, None)
    other = read(file(tmp_path / "other.jsonl", measured(3, "a", 10, 4.0)))
    with pytest.raises(UsageError, match="no question in common"):
        rows(own, other)


def test_every_choice_counts_but_only_the_first_one_for_spec_bench(tmp_path: Path) -> None:
    record = measured(1, "a", 10, 1.0)
    record["choices"] += measured(1, "a", 10, 3.0)["choices"]
    row = one_row(record, folder=tmp_path)
    assert (row["tokens_per_second"], row["mean_tokens_per_second"]) == (5, 10)


def test_the_later_of_two_answers_counts(tmp_path: Path) -> None:
    row = one_row(measured(1, "a", 10, 1.0), measured(1, "a", 20, 1.0), folder=tmp_path)
    assert (row["questions"], row["tokens"]) == (1, 20)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "EOF"),
        ("[]", "object"),
        ('{"choices": []}', "question_id"),
        ('{"question_id": 1, "choices": []}', "choices"),
        ('{"question_id": 1, "choices": [{"turns": "a"}]}', "choices.0.turns"),
        ('{"question_id": 1, "choices": [{"turns": ["a"], "wall_time": [NaN]}]}', "wall_time"),
        ('{"question_id": 1, "choices": [{"turns": ["a"], "new_tokens": [-1]}]}', "new_tokens"),
    ],
)
def test_a_malformed_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    path = file(tmp_path / "x.jsonl", MEDUSA)
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(UsageError, match=rf"x\.jsonl, line 3: .*{said}") as caught:
        read(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00"])
def test_what_is_no_file_of_answers_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.jsonl"):
        read(tmp_path / "x.jsonl")


def test_answers_that_were_not_measured_have_texts_and_no_speed(tmp_path: Path) -> None:
    """FastChat's own have nothing else."""
    plain = {"question_id": 81, "choices": [{"index": 0, "turns": ["a", "b"]}]}
    found = read(file(tmp_path / "gpt-4.jsonl", plain))
    assert (found.model, found.answers["81"].choices[0].turns) == ("gpt-4", ["a", "b"])
    with pytest.raises(UsageError, match="question 81 has no wall_time"):
        rows(found)


TASKS = [Task("mt-bench-81", "writing", ("?", "!")), Task("mt-bench-111", "math", ("1+1",))]


def decode(ids: Any) -> str:
    return " " + " ".join(map(str, ids))


def stats(lengths: list[int], prefill: float, seconds: float) -> Stats:
    return Stats(prefill_seconds=prefill, seconds=seconds, steps=len(lengths),
                 tokens=sum(lengths), lengths=lengths)  # fmt: skip


def trials() -> list[Trial]:
    """Two rounds; the end token is a token of its step, and none of the reply's."""
    held = []
    for turn in range(2):
        replies = [stats([3, 2], 0.5, 1.0), stats([1, 1, 2], 0.25, 1.0)]
        held.append(Trial("fast:k=2", 0, turn, [[5, 6, 7, 8], [1, 2, 3, 4]], replies, 0))
        held.append(Trial("fast:k=2", 1, turn, [[9, 9]], [stats([2], 0.25, 0.25)], 0))
    return held


def written(folder: Path, held: list[Trial], peers: list[str] | None = None) -> list[AnswerFile]:
    (folder / "answers").mkdir(exist_ok=True)
    texts = write(held, TASKS, decode, "vicuna-7b", peers or [])
    for name, text in texts.items():
        (folder / "answers" / name).write_text(text)
    return [read(folder / "answers" / name) for name in texts]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    (found,) = written(tmp_path, trials())
    assert found.path.name == "vicuna-7b-fast-k=2.jsonl"
    lines = [json.loads(line) for line in found.path.read_text().splitlines()]
    assert [(one["question_id"], one["category"]) for one in lines] == [
        (81, "writing"), (111, "math")
    ]  # fmt: skip
    assert {one["model_id"] for one in lines} == {found.model}
    assert lines[0]["choices"][1] == {
        "index": 1,
        "turns": ["5 6 7 8", "1 2 3 4"],
        "idxs": [1, 2],
        "decoding_steps": [2, 3],
        "new_tokens": [5, 4],
        "wall_time": [1.5, 1.25],
        "accept_lengths": [3, 2, 1, 1, 2],
    }
    row = next(row for row in rows(found) if row["category"] == "all")
    assert (row["tokens"], row["steps"]) == (22, 12)
    assert row["seconds"] == pytest.approx(6.5)
    assert row["tau"] == pytest.approx(22 / 12)


def test_every_harness_finds_the_same_tau(tmp_path: Path) -> None:
    (found,) = written(tmp_path, trials())
    for answer in found.answers.values():
        for one in answer.choices:
            assert one.accept_lengths and one.idxs and one.decoding_steps and one.new_tokens
            spec_bench = sum(one.accept_lengths) / len(one.accept_lengths)
            medusa = sum(one.new_tokens) / sum(place + 1 for place in one.idxs)
            assert spec_bench == medusa == sum(one.new_tokens) / sum(one.decoding_steps)


def test_tokens_of_the_prompts_forward_count_where_its_time_does(tmp_path: Path) -> None:
    """Another program's stats leave them out: 2 of 7 tokens, all there are, 1 of 4 with the end."""
    held = [
        Trial("peer", 0, 0, [[1, 2, 3, 4, 5, 6, 7], [1]],
              [stats([3, 2], 1.0, 1.0), stats([], 1.0, 0.0)], 0),
        Trial("peer", 1, 0, [[1, 2, 3]], [stats([1, 2], 1.0, 1.0)], 0),
    ]  # fmt: skip
    (found,) = written(tmp_path, held, peers=["peer"])
    first, second = (found.answers[key].choices[0] for key in ("81", "111"))
    assert (first.new_tokens, first.idxs) == ([7, 1], [2, 0])
    assert (first.accept_lengths, first.wall_time) == ([2, 3, 2, 1], [2.0, 1.0])
    assert (second.new_tokens, second.accept_lengths) == ([4], [1, 1, 2])


def test_a_question_that_was_not_answered_is_left_out(tmp_path: Path) -> None:
    held = [*trials(), Trial("slow", 0, 0, [], [], 0, too_long=True),
            Trial("slow", 1, 0, [[1]], [stats([1], 0.1, 0.1)], 0)]  # fmt: skip
    assert [list(one.answers) for one in written(tmp_path, held)] == [["81", "111"], ["111"]]


def test_questions_keep_the_ids_of_their_source() -> None:
    def ids(*named: tuple[str, str]) -> list[int | str]:
        return question_ids([Task(name, kind, ("?",)) for name, kind in named])

    assert ids(("mt-bench-81", "writing"), ("mt-bench-90", "writing")) == [81, 90]
    assert ids(("humaneval-HumanEval/0", "humaneval")) == ["HumanEval/0"]
    two = [("skills-0", "skills"), ("dialogue-0", "dialogue")]
    assert ids(*two) == ["skills-0", "dialogue-0"]


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(grouped(answers))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_shows_all_files_and_keeps_everything(tmp_path: Path) -> None:
    own = file(tmp_path / "own.jsonl", measured(1, "a", 10, 1.0), measured(2, "b", 30, 1.0))
    base = file(tmp_path / "no.jsonl", measured(1, "a", 10, 2.0), measured(2, "b", 10, 3.0))
    done = run(own, base, "--baseline", base, "--json", tmp_path / "out.json")
    assert done.exit_code == 0, done.output
    (line,) = [
        line for line in done.stdout.splitlines() if line.startswith("own  ") and "all" in line
    ]
    assert line.split()[:7] == ["own", "all", "2", "2.00", "20.0", "20.0", "5.00"]
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["schema"] == "nfox.answers/1"
    assert [(row["model"], row["category"]) for row in result["rows"]] == [
        (who, kind) for who in ("own", "no") for kind in ("all", "a", "b")
    ]
    assert result["rows"][3]["speedup"] == result["rows"][3]["mean_speedup"] == 1


def test_the_command_without_a_baseline_has_no_speedup(tmp_path: Path) -> None:
    done = run(file(tmp_path / "own.jsonl", MEDUSA))
    assert done.exit_code == 0
    assert "95 %" not in done.stdout
    assert "3.06" in done.stdout


def test_the_command_says_what_is_odd(tmp_path: Path) -> None:
    failed = measured(1, "a", 10, 1.0)
    failed["choices"][0]["turns"] = ["ERROR"]
    own = file(tmp_path / "own.jsonl", failed, measured(2, "a", 30, 1.0))
    base = file(tmp_path / "no.jsonl", measured(1, "a", 10, 2.0))
    done = run(own, "--baseline", base)
    assert '1 replies are "ERROR"' in done.stderr
    assert "over the 1 questions" in done.stderr


def test_errors_of_the_command_are_one_line(tmp_path: Path) -> None:
    for given in ([], [tmp_path / "none.jsonl"], [file(tmp_path / "x.jsonl", {"a": 1})]):
        done = run(*given)
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 2  # the error and the hint
        assert done.stderr.startswith("nfox: error: ")


def test_a_folder_of_answers(tmp_path: Path) -> None:
    check_folder(None, "answers")
    check_folder(tmp_path, "answers")
    check_folder(tmp_path / "new", "answers")
    (path,) = write_answers(tmp_path / "new", trials(), TASKS, decode, "models/vicuna-7b")
    assert path == tmp_path / "new" / "vicuna-7b-fast-k=2.jsonl"
    assert list(read(path).answers) == ["81", "111"]
    with pytest.raises(UsageError, match="is a file"):
        check_folder(path, "answers")
    with pytest.raises(UsageError, match="no folder"):
        check_folder(tmp_path / "a" / "b", "answers")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with room(64), pytest.raises(NfoxError, match="was not written"):
        write_answers(tmp_path / "new", trials(), TASKS, decode, "vicuna-7b")
