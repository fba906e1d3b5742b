"""What a file of each kind may not say is refused by its name and its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nfox.cli.train.config_file import read_config
from nfox.decoding.stats import Stats
from nfox.drafters.common.published_trees import find_shape
from nfox.errors import UsageError
from nfox.eval.bench.journal import TrialJournal
from nfox.eval.bench.result import Baseline, BenchResult, read
from nfox.eval.bench.trials import Trial
from nfox.files import provenance
from nfox.files.jsonl import WorkShare, finished_ids
from nfox.train.cllm.answers import AnswerSet
from nfox.train.cllm.trajectories import read_trajectories
from nfox.train.data.tasks import DatabaseSchemas

FIXTURES = Path(__file__).parent / "fixtures" / "0.1.0"
DEEP = "[" * 100_000


def refusal(path: Path, read: Any) -> str:
    """Return what is said of a file that is refused, which must name it in one line."""
    with pytest.raises(UsageError) as caught:
        read()
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    assert len(caught.value.message) < 700
    return caught.value.message


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([[0], [True]], "1.0: Input should be a valid integer"),
        ([[0], [1.5]], "1.0: Input should be a valid integer"),
        ([["0"]], "0.0: Input should be a valid integer"),
        ([[-1]], "greater than or equal to 0"),
        ([[2**70]], "less than"),
        ({"tree": {"0": 1}}, "valid list"),
        ({"paths": []}, 'nor an object with a "tree"'),
        ("0", "valid list"),
        ([[0], [1, 0]], "must go on from one another"),
        ([[n] for n in range(2000)], "2,000 paths; there may be 63 at most"),
        ([[n] for n in range(64)], "64 paths; there may be 63 at most"),
        ([[n] for n in range(11)], "the rank 10 was asked for"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_tree_of_anything_but_paths(tmp_path: Path, tree: Any, said: str) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(tree))
    assert said in refusal(path, lambda: find_shape(str(path)))


@pytest.mark.parametrize("text", [DEEP, "[[Infinity]]", "[[1e999]]", b"\xff", "{", ""])
def test_a_tree_that_is_no_json(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "tree.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refusal(path, lambda: find_shape(str(path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shares": 7}, "shares: Input should be a valid dict"),
        ({"shares": {"0": {"counts": {"kept": "2"}, "seconds": 1}}}, "shares.0.counts.kept"),
        ({"shares": {"0": {"counts": {"kept": 2.5}, "seconds": 1}}}, "shares.0.counts.kept"),
        ({"shares": {"0": {"seconds": 1}}}, "shares.0.counts: Field required"),
        ({"shares": {"0": None}}, "shares.0"),
        ({"without_lines": "7"}, "without_lines"),
        ({"without_lines": [7]}, "without_lines.0"),
        ({"processes": "1"}, "processes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_provenance_of_other_types(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"id": "0"}\n')
    path = provenance.provenance_file(out)
    facts = {"model": "m", "shares": {"0": {"counts": {"kept": 1}, "seconds": 1}}}
    path.write_text(json.dumps(facts | changes))
    for use in (
        lambda: provenance.check(out, {"model": "m"}, "x"),
        lambda: provenance.begin(out, {"model": "m"}, WorkShare()),
        lambda: provenance.names_without_line(out),
        lambda: provenance.add_name_without_line(out, "1"),
        lambda: provenance.finish(out, WorkShare(), {"kept": 1}, 1.0),
    ):
        assert said in refusal(path, use)
    assert json.loads(path.read_text()) == facts | changes
    assert out.read_text() == '{"id": "0"}\n'


@pytest.mark.parametrize(
    "line", ["[1]", "7", '{"x": 1}', '{"id": [1]}', '{"id": null}', DEEP, '"id"', b'{"id": "\xff"}']
)
def test_lines_that_are_no_output_are_not_lost(tmp_path: Path, line: str | bytes) -> None:
    out = tmp_path / "out.jsonl"
    data = line if isinstance(line, bytes) else line.encode()
    out.write_bytes(b'{"id": "0"}\n' + data + b"\n")
    assert "(line 2)" in refusal(out, lambda: finished_ids(out))
    assert out.read_bytes() == b'{"id": "0"}\n' + data + b"\n"


def changed(name: str, *place: Any, value: Any) -> dict[str, Any]:
    """Return the content of a file of the first release with another value in one place."""
    content: dict[str, Any] = json.loads((FIXTURES / name).read_text())
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed("bench.json", "settings", "rounds", value="many"), "rounds must be a number"),
        (changed("bench.json", "settings", "rounds", value=0), "rounds must be a number"),
        (changed("bench.json", "rows", 0, "prompts", value=-1), "rows.0.prompts"),
        (changed("bench.json", "rows", 0, "identical", value=1.5), "rows.0.identical"),
        (changed("bench.json", "rows", 0, "method", value=None), "rows.0.method"),
        (changed("bench.json", "schema", value=["nfox.bench/1"]), "its schema is"),
        (changed("baseline.json", "rows", 0, "tau", value={"value": 1, "low": 1}), "rows.0.tau"),
    ],
    ids=["rounds", "no rounds", "prompts", "share", "method", "schema", "bounds"],
)
def test_a_result_of_other_values(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    assert said in refusal(path, lambda: read(path, BenchResult, Baseline))


def test_a_result_without_a_row_of_all_tasks(tmp_path: Path) -> None:
    content = json.loads((FIXTURES / "bench.json").read_text())
    for row in content["rows"]:
        row["category"] = "chat"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    assert "no row is of the category 'all'" in refusal(path, lambda: read(path, BenchResult))


def test_nothing_is_guarded_by_what_is_no_number(tmp_path: Path) -> None:
    bounds = {"value": 1.0, "low": float("nan"), "high": 1.0}
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(changed("baseline.json", "rows", 0, "speedup", value=bounds)))
    assert "rows.0.speedup" in refusal(path, lambda: read(path, Baseline))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": 2}, "there is no task 2"),
        ({"task": -1}, "there is no task -1"),
        ({"entrant": "x"}, "there is no entrant 'x'"),
        ({"replies": [["7"]]}, "replies.0.0"),
        ({"replies": []}, "0 replies, 1 statistics"),
        ({"stats": [{"steps": "2"}]}, "stats.0.steps"),
        ({"memory": None}, "memory"),
        ({"turn": 1.5}, "round"),
    ],
    ids=str,
)
def test_trials_of_another_benchmark(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    facts = {"entrants": ["none"], "tasks": [{"id": "a"}, {"id": "b"}]}
    journal = TrialJournal(tmp_path / "result.json.trials", facts)
    with journal.writing() as add:
        add(Trial("none", 1, 0, [[5]], [Stats(steps=1, tokens=1, lengths=[1])], 9))
    assert [trial.task for trial in journal.read()] == [1]
    first, line, _ = journal.path.read_text().split("\n")
    journal.path.write_text(f"{first}\n{json.dumps(json.loads(line) | fields)}\n")
    message = refusal(journal.path, journal.read)
    assert "line 2" in message
    assert said in message


RECORD: dict[str, Any] = {
    "data_id": "d", "jacobian_itr_id": "itr_0", "prompt_ids_len": [2], "prompt_ids": [[1, 5]],
    "answer_trajectory_ids": [[7, 7], [8, 9]], "teacher_output_ids": [[1, 5, 8, 9]],
    "complete_teacher_output_ids": [1, 5, 8, 9],
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt_ids": [[1, -5]]}, "prompt_ids are no list of token ids"),
        ({"prompt_ids": [[1, True]]}, "prompt_ids are no list of token ids"),
        ({"prompt_ids": [[1, 5.0]]}, "prompt_ids are no list of token ids"),
        ({"prompt_ids": [[1, 2**40]]}, "prompt_ids are no list of token ids"),
        ({"prompt_ids_len": [3]}, "prompt_ids_len is 3, of 2 prompt_ids"),
        ({"prompt_ids_len": [0]}, "prompt_ids_len is 0"),
        ({"augmented": 2}, "augmented is 2, of 2 states"),
        ({"augmented": 0.5}, "augmented is 0.5"),
        ({"augmented": float("inf")}, "augmented is inf"),
        ({"jacobian_itr_id": "itr_x"}, "invalid literal"),
        ({"answer_trajectory_ids": []}, "no states of equal length"),
        ({"answer_trajectory_ids": 7}, "not iterable"),
    ],
    ids=str,
)
def test_a_trajectory_of_other_values(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    path = tmp_path / "trajectories.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + json.dumps(RECORD | fields) + "\n")
    message = refusal(path, lambda: list(read_trajectories(str(path))))
    assert "record 2" in message
    assert said in message


def test_tokens_that_the_model_has_not_are_not_learned(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    path.write_text(json.dumps(RECORD))
    assert AnswerSet(read_trajectories(str(path)), (), 99, vocabulary_size=10).answers
    with pytest.raises(UsageError, match="has a token 9, the model's end at 8"):
        AnswerSet(read_trajectories(str(path)), (), 99, vocabulary_size=9)


@pytest.mark.parametrize(
    ("databases", "said"),
    [
        ({"db_id": "pets"}, "Input should be a valid list"),
        ([{"db_id": "pets", "table_names_original": "x", "column_names_original": []}], "0.table"),
        ([{"db_id": [], "table_names_original": [], "column_names_original": []}], "0.db_id"),
        (
            [{"db_id": "pets", "table_names_original": ["a"], "column_names_original": [[9, "x"]]}],
            "index out of range",
        ),
    ],
    ids=["object", "names", "id", "column"],
)
def test_tables_of_other_types(tmp_path: Path, databases: Any, said: str) -> None:
    path = tmp_path / "tables.json"
    path.write_text(json.dumps(databases))
    assert said in refusal(path, lambda: DatabaseSchemas(path).schema("pets"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "- 1\n- 2", "expected names and values, got a list"),
        ("a.yaml", "a: &a [*a]", "too many values"),
        ("a.yaml", "a: !!python/object/apply:os.system [ls]", "line 1: values of the type"),
        ("a.yaml", "a: [", "not YAML: line 1"),
        ("a.json", "{a: 1}", "not JSON"),
        ("a.json", DEEP, "nested too deep"),
        ("a.json", '{"lr": 1e999}', "too large"),
    ],
    ids=lambda value: value[:20],
)
def test_settings_that_are_none(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert said in refusal(path, lambda: read_config(str(path)))


def test_settings_keep_dates_and_repeated_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("day: 2024-01-01\nd: &d {x: 1}\ne: {<<: *d, y: 2}\nlr: 1e-4\n")
    assert read_config(str(path)) == {
        "day": "2024-01-01", "d": {"x": 1}, "e": {"x": 1, "y": 2}, "lr": "1e-4",
    }  # fmt: skip
