"""Answer files as published harnesses read them: what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from full_disk import room

from nfox.cli.bench.answers import write_answers
from nfox.cli.output_files import check_folder
from nfox.decoding.stats import Stats
from nfox.errors import NfoxError, UsageError
from nfox.eval.answers.files import question_ids, write
from nfox.eval.bench.trials import Task, Trial

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


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def written(held: list[Trial], peers: list[str] | None = None) -> list[list[dict[str, Any]]]:
    """Return the lines of every file."""
    return list(map(lines, write(held, TASKS, decode, "vicuna-7b", peers or []).values()))


def test_the_lines_of_a_file() -> None:
    ((name, text),) = write(trials(), TASKS, decode, "vicuna-7b").items()
    assert name == "vicuna-7b-fast-k=2.jsonl"
    answers = lines(text)
    assert [(one["question_id"], one["category"]) for one in answers] == [
        (81, "writing"), (111, "math")
    ]  # fmt: skip
    assert {one["model_id"] for one in answers} == {"vicuna-7b-fast-k=2"}
    assert answers[0]["choices"][1] == {
        "index": 1,
        "turns": ["5 6 7 8", "1 2 3 4"],
        "idxs": [1, 2],
        "decoding_steps": [2, 3],
        "new_tokens": [5, 4],
        "wall_time": [1.5, 1.25],
        "accept_lengths": [3, 2, 1, 1, 2],
    }
    choices = [choice for one in answers for choice in one["choices"]]
    lengths = [length for choice in choices for length in choice["accept_lengths"]]
    assert (sum(lengths), len(lengths)) == (22, 12)
    assert sum(sum(choice["wall_time"]) for choice in choices) == pytest.approx(6.5)


def test_every_harness_finds_the_same_tau() -> None:
    (answers,) = written(trials())
    for answer in answers:
        for one in answer["choices"]:
            spec_bench = sum(one["accept_lengths"]) / len(one["accept_lengths"])
            medusa = sum(one["new_tokens"]) / sum(place + 1 for place in one["idxs"])
            assert spec_bench == medusa == sum(one["new_tokens"]) / sum(one["decoding_steps"])


def test_tokens_of_the_prompts_forward_count_where_its_time_does() -> None:
    """Another program's stats leave them out: 2 of 7 tokens, all there are, 1 of 4 with the end."""
    held = [
        Trial("peer", 0, 0, [[1, 2, 3, 4, 5, 6, 7], [1]],
              [stats([3, 2], 1.0, 1.0), stats([], 1.0, 0.0)], 0),
        Trial("peer", 1, 0, [[1, 2, 3]], [stats([1, 2], 1.0, 1.0)], 0),
    ]  # fmt: skip
    (answers,) = written(held, peers=["peer"])
    first, second = (answer["choices"][0] for answer in answers)
    assert (first["new_tokens"], first["idxs"]) == ([7, 1], [2, 0])
    assert (first["accept_lengths"], first["wall_time"]) == ([2, 3, 2, 1], [2.0, 1.0])
    assert (second["new_tokens"], second["accept_lengths"]) == ([4], [1, 1, 2])


def test_a_question_that_was_not_answered_is_left_out() -> None:
    held = [*trials(), Trial("slow", 0, 0, [], [], 0, too_long=True),
            Trial("slow", 1, 0, [[1]], [stats([1], 0.1, 0.1)], 0)]  # fmt: skip
    asked = [[answer["question_id"] for answer in answers] for answers in written(held)]
    assert asked == [[81, 111], [111]]


def test_questions_keep_the_ids_of_their_source() -> None:
    def ids(*named: tuple[str, str]) -> list[int | str]:
        return question_ids([Task(name, kind, ("?",)) for name, kind in named])

    assert ids(("mt-bench-81", "writing"), ("mt-bench-90", "writing")) == [81, 90]
    assert ids(("humaneval-HumanEval/0", "humaneval")) == ["HumanEval/0"]
    two = [("skills-0", "skills"), ("dialogue-0", "dialogue")]
    assert ids(*two) == ["skills-0", "dialogue-0"]


def test_a_folder_of_answers(tmp_path: Path) -> None:
    check_folder(None, "answers")
    check_folder(tmp_path, "answers")
    check_folder(tmp_path / "new", "answers")
    (path,) = write_answers(tmp_path / "new", trials(), TASKS, decode, "models/vicuna-7b")
    assert path == tmp_path / "new" / "vicuna-7b-fast-k=2.jsonl"
    assert [answer["question_id"] for answer in lines(path.read_text())] == [81, 111]
    with pytest.raises(UsageError, match="is a file"):
        check_folder(path, "answers")
    with pytest.raises(UsageError, match="no folder"):
        check_folder(tmp_path / "a" / "b", "answers")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with room(64), pytest.raises(NfoxError, match="was not written"):
        write_answers(tmp_path / "new", trials(), TASKS, decode, "vicuna-7b")
