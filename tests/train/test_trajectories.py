"""Trajectories on disk: the published layout, both ways; resumed, shared, cleaned, augmented."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder
import programs
import pytest
import two_processes
from click.testing import Result
from full_disk import room
from typer.testing import CliRunner

from nfox import load
from nfox.cli.app import app
from nfox.cli.data.trajectories import answerable
from nfox.errors import UsageError
from nfox.files.jsonl import WorkShare, append_lines
from nfox.models.prompt import stop_ids_of
from nfox.reply import Settings
from nfox.text.messages import Message
from nfox.train.cllm import collector as collector_module
from nfox.train.cllm.collect import collect
from nfox.train.cllm.collector import Collector, augmented
from nfox.train.cllm.trajectories import Trajectory, read_trajectories, repeats
from nfox.train.data.conversations import ConversationDataset
from nfox.train.data.tasks import read_tasks

CONVERSATIONS = [
    [Message("user", "the fox"), Message("assistant", "and the dog")],
    [Message("system", "Be brief."), Message("user", "quick"), Message("assistant", "brown")],
    [Message("user", "lazy dog jumps"), Message("assistant", "over"), Message("user", "more")],
]
QUESTIONS = [{"question": text, "answer": "4"} for text in ("the fox", "quick brown", "jumps")]


def collector(**options: Any) -> Collector:
    chat = load(str(folder.llama()), method="none")
    return Collector(chat.model, chat.template, **{"n": 4, "max_new_seq_len": 10} | options)


def read_by_block(out: Path) -> dict[tuple[str, int], Trajectory]:
    return {
        (trajectory.data_id, trajectory.block): trajectory
        for trajectory in read_trajectories(str(out))
    }


def test_a_trajectory_ends_in_the_reply_of_the_chat(tmp_path: Path) -> None:
    made = collector()
    collect(CONVERSATIONS, made, tmp_path / "out.jsonl")
    by_block = read_by_block(tmp_path / "out.jsonl")
    chat = load(str(folder.llama()), method="none", settings=Settings(max_new_tokens=12))
    stops = stop_ids_of(chat.model, chat.template)
    for number in range(3):
        blocks = [
            trajectory for (name, _), trajectory in by_block.items() if name == f"data_{number}"
        ]
        question_length, last = blocks[0].question_length, blocks[-1]
        reply = chat.answer(CONVERSATIONS[number][: 2 if number == 1 else 1])
        answer = list(last.complete[question_length:])
        if reply.finish == "stop":
            end = next(i for i, token in enumerate(answer) if token in stops)
            answer = answer[:end]
        assert answer == reply.ids
        text = list(blocks[0].prompt)
        for block, trajectory in enumerate(blocks):
            assert (trajectory.block, list(trajectory.prompt)) == (block, text)
            assert trajectory.question_length == question_length
            assert {len(state) for state in trajectory.states} == {4}
            text += trajectory.states[-1]
            assert list(trajectory.complete) == list(last.complete)
        assert text == list(last.complete)


def test_what_is_written_is_the_published_layout(tmp_path: Path) -> None:
    collect(CONVERSATIONS[:1], collector(labels=True, augment=True), tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["jacobian_itr_id"] for row in rows] == ["itr_0", "itr_1", "itr_2"]
    for row in rows:
        prompt = row["prompt_ids"][0]
        assert row["teacher_output_ids"] == [prompt + row["answer_trajectory_ids"][-1]]
        assert row["complete_teacher_output_ids"] == rows[-1]["teacher_output_ids"][0]
        assert row["prompt_ids_len"] == [len(rows[0]["prompt_ids"][0])]
    tokenizer: Any = folder.tokenizer()
    labels = rows[0]["labels_ids"]
    assert labels[: rows[0]["prompt_ids_len"][0]] == rows[0]["prompt_ids"][0]
    assert tokenizer.decode(labels).replace(" ", "").endswith("andthedog</s>")
    # A published file is one list of these.
    published = tmp_path / "published.json"
    published.write_text(json.dumps(rows))
    assert list(read_trajectories(str(published))) == list(
        read_by_block(tmp_path / "out.jsonl").values()
    )


def test_published_ids_may_be_wrapped_twice(tmp_path: Path) -> None:
    row = Trajectory("data_0", 0, 2, [5, 6], [[1, 2], [3, 4]], [5, 6, 3, 4], [5, 6, 9]).record()
    row |= {"prompt_ids": [row["prompt_ids"]], "prompt_ids_len": 2, "labels_ids": [[5, 6, 9]]}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    trajectory = next(read_trajectories(str(tmp_path / "a.json")))
    assert (trajectory.prompt, trajectory.question_length) == ([5, 6], 2)
    assert (trajectory.labels, trajectory.states) == ([5, 6, 9], [[1, 2], [3, 4]])


GOOD = Trajectory("data_0", 0, 2, [5, 6], [[1, 2], [3, 4]], [5, 6, 3, 4]).record()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"conversations": []}, "'answer_trajectory_ids' is missing"),
        (GOOD | {"answer_trajectory_ids": [[1], [3, 4]]}, "equal length"),
        (GOOD | {"answer_trajectory_ids": []}, "equal length"),
        (GOOD | {"prompt_ids": ["text"]}, "prompt_ids are no list of token ids"),
        (GOOD | {"teacher_output_ids": [[5, 6]]}, "teacher_output_ids are not as long"),
        (GOOD | {"jacobian_itr_id": "first"}, "first"),
        ([1, 2], "no JSON object"),
    ],
)
def test_another_layout_is_one_line(row: Any, fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([GOOD, row]))
    trajectories = read_trajectories(str(tmp_path / "a.json"))
    next(trajectories)
    with pytest.raises(UsageError, match="record 2 is no Jacobi trajectory") as caught:
        next(trajectories)
    assert fault in str(caught.value)
    assert "\n" not in caught.value.message + caught.value.hint


def test_augmented_states_lie_between_a_state_and_the_end() -> None:
    numbers = random.Random(0)
    for _ in range(200):
        length = numbers.randint(1, 9)
        states = [tuple(numbers.choices(range(3), k=length)) for _ in range(5)]
        final, between = states[-1], augmented(states, numbers)
        wrong = [[i for i in range(length) if s[i] != final[i]] for s in states[:-2]]
        several = [(s, w) for s, w in zip(states[:-2], wrong, strict=True) if len(w) > 1]
        assert len(between) == len(several)
        for state, (before, wrong_positions) in zip(between, several, strict=True):
            changed = [i for i in range(length) if state[i] != before[i]]
            assert 1 <= len(changed) <= len(wrong_positions) // 2
            assert all(state[i] == final[i] for i in changed)
            assert wrong_positions[0] not in changed


def test_augmented_states_stand_in_front(tmp_path: Path) -> None:
    collect(CONVERSATIONS, collector(), tmp_path / "plain.jsonl")
    collect(CONVERSATIONS, collector(augment=True), tmp_path / "more.jsonl")
    more = read_by_block(tmp_path / "more.jsonl")
    for name, trajectory in read_by_block(tmp_path / "plain.jsonl").items():
        assert (
            replace(more[name], states=more[name].states[more[name].augmented :], augmented=0)
            == trajectory
        )
    assert any(trajectory.augmented for trajectory in more.values())


def test_repetition_counts_up_to_the_end_only() -> None:
    assert repeats([7] * 10, [1])
    assert repeats([5, *[7] * 10, 5], [1])
    assert not repeats([7] * 9 + [5] * 9, [1])
    assert not repeats([7] * 5 + [1] + [7] * 10, [1])


def test_what_repeats_itself_is_cut_or_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(tokens: Sequence[int], ends: object) -> bool:
        return len(tokens) > bad

    monkeypatch.setattr(collector_module, "repeats", odd)
    for bad, kept, blocks in ((99, 3, 9), (4, 3, 3), (0, 0, 0)):
        out = tmp_path / f"{bad}.jsonl"
        done = collect(CONVERSATIONS, collector(), out)
        assert (done.counts["kept"], done.counts["trajectories"]) == (kept, blocks)
        assert done.counts["repetitive"] == 3 - kept
        assert done.counts["cut"] == (3 if bad == 4 else 0)
        if bad == 4:
            assert all(
                len(trajectory.complete) == trajectory.question_length + 4
                for trajectory in read_by_block(out).values()
            )


def test_it_goes_on_where_it_stopped_and_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    collect(CONVERSATIONS, collector(), out)
    lines = out.read_text().splitlines(keepends=True)
    for left in ("".join(lines[:4]), "".join(lines[:5]) + lines[5][:20], "".join(lines[:3])):
        out.write_text(left)
        done = collect(CONVERSATIONS, collector(), out)
        assert (done.counts["before"], done.counts["kept"]) == (1, 2)
        assert out.read_text() == "".join(lines)


def test_blocks_of_an_unfinished_answer_are_dropped_wherever_they_stand(tmp_path: Path) -> None:
    """Where one of several processes was killed, another one goes on behind."""
    out = tmp_path / "out.jsonl"
    collect(CONVERSATIONS, collector(), out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:5]) + lines[5][:20])
    append_lines(out, "".join(lines[6:]))
    before = {json.loads(line)["id"] for line in out.read_text().splitlines()}
    assert before == {"0/0", "0/1", "0", "1/0", "1/1", "2/0", "2/1", "2"}
    done = collect(CONVERSATIONS, collector(), out)
    assert (done.counts["before"], done.counts["kept"]) == (2, 1)
    assert sorted(out.read_text().splitlines(keepends=True)) == sorted(lines)


def test_a_file_without_unfinished_answers_is_not_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    collect(CONVERSATIONS, collector(), out)
    before = out.stat()
    collect(CONVERSATIONS, collector(), out)
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "diary.txt"
    out.write_text("dear diary\n")
    with pytest.raises(UsageError, match="line 1"):
        collect(CONVERSATIONS, collector(), out)
    assert out.read_text() == "dear diary\n"


def test_several_processes_make_what_one_makes(tmp_path: Path) -> None:
    collect(CONVERSATIONS, collector(), tmp_path / "one.jsonl")
    for rank in range(2):
        collect(CONVERSATIONS, collector(), tmp_path / "two.jsonl", share=WorkShare(rank, 2))
    assert read_by_block(tmp_path / "one.jsonl") == read_by_block(tmp_path / "two.jsonl")


def test_empty_and_long_questions_are_left_out_and_counted() -> None:
    conversations = [
        [Message("system", "s" * 99), Message("user", text), Message("assistant", "a")]
        for text in ("fox", "", " \n", "f" * 10, "f" * 11)
    ]
    dataset = ConversationDataset(conversations, malformed=1)
    assert [m[1].content for m in answerable(dataset).conversations] == ["fox", "f" * 10, "f" * 11]
    left = answerable(dataset, 10)
    assert [m[1].content for m in left.conversations] == ["fox", "f" * 10]
    assert (left.empty_questions, left.long_questions, left.malformed) == (2, 1, 1)
    assert "2 left out with an empty question, 1 left out with too long" in left.describe()
    with pytest.raises(UsageError, match="2 left out with an empty question, 3 left out") as caught:
        answerable(dataset, 2)
    assert "--max-prompt-chars" in caught.value.hint


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    conversations = [*CONVERSATIONS[:1], [Message("user", "fox " * 600), Message("assistant", "a")]]
    done = collect(conversations, collector(), tmp_path / "out.jsonl")
    assert (done.counts["kept"], done.counts["failed"]) == (1, 1)
    assert "512 is the context" in done.last_error


def written(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TABLES = [
    {
        "db_id": "pets",
        "table_names_original": ["owner", "pet"],
        "column_names_original": [[-1, "*"], [0, "id"], [1, "id"], [1, "age"]],
    }
]
SPIDER = {"question": "How old are they?", "query": "SELECT age FROM pet", "db_id": "pets"}
SCHEMA = (
    "The SQL database has table named owner with columns ['id'], "
    "table named pet with columns ['id', 'age'], Question: How old are they?"
)


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"question": "2 + 2?", "answer": "#### 4"}, "2 + 2?", "#### 4"),
        (SPIDER, SCHEMA, "SELECT age FROM pet"),
        ({"docstring": "Adds.", "code": "def f(): ..."}, "Adds.", "def f(): ..."),
        ({"func_documentation_string": "A", "whole_func_string": "b"}, "A", "b"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "a",
            "b",
        ),
    ],
)
def test_records_of_tasks_are_conversations(
    row: Any, question: str, answer: str, tmp_path: Path
) -> None:
    schemas = tmp_path / "tables.json"
    schemas.write_text(json.dumps(TABLES))
    dataset = read_tasks(str(written(tmp_path / "a.jsonl", [row, {"odd": 1}])), schemas)
    assert dataset.conversations == [[Message("user", question), Message("assistant", answer)]]
    assert dataset.malformed == 1
    questions = read_tasks(str(tmp_path / "a.jsonl"), schemas, replies=False).conversations
    assert questions[0] == [Message("user", question)]


def test_a_configuration_of_a_hub_dataset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, ...]] = []

    def load_dataset(*names: str, split: str, cache_dir: str | None) -> list[Any]:
        loaded.append((*names, split))
        return QUESTIONS

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: module)
    assert len(read_tasks("openai/gsm8k@main:test").conversations) == 3
    assert loaded == [("openai/gsm8k", "main", "test")]


def test_schemas_are_read_from_databases_too(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    with sqlite3.connect(tmp_path / "pets" / "pets.sqlite") as database:
        database.execute("CREATE TABLE owner (id)")
        database.execute("CREATE TABLE pet (id, age)")
    database.close()
    dataset = read_tasks(str(written(tmp_path / "a.jsonl", [SPIDER])), tmp_path)
    assert dataset.conversations[0][0].content == SCHEMA


def test_schemas_that_are_missing_are_one_line(tmp_path: Path) -> None:
    data = str(written(tmp_path / "a.jsonl", [SPIDER]))
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "odd.json").write_text("[1]")
    for schemas, fault in [
        (None, "pets"), (tmp_path, "no such database"), (tmp_path / "other.json", "pets"),
        (tmp_path / "odd.json", "no list of databases"), (tmp_path / "absent", "No such file"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=fault) as caught:
            read_tasks(data, schemas)
        assert "\n" not in caught.value.message + caught.value.hint


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_collects_resumes_and_refuses_another_way(tmp_path: Path) -> None:
    data, out = written(tmp_path / "gsm8k.jsonl", QUESTIONS), tmp_path / "out.jsonl"
    words = ["data", "trajectories", "--model", folder.llama(), "--data", data, "--out", out]
    words += ["--max-new-seq-len", 8]
    done = run(*words, "--n", 4, "--data-size", 2, "--use-labels", "--augment")
    assert done.exit_code == 0, done.stderr
    assert "2 kept" in done.stderr
    assert run(*words, "--n", 4, "--use-labels", "--augment").exit_code == 0
    assert {name for name, _ in read_by_block(out)} == {"data_0", "data_1", "data_2"}
    facts = json.loads((tmp_path / "out.jsonl.provenance.json").read_text())
    assert (facts["n"], facts["counts"]["before"], facts["counts"]["kept"]) == (4, 2, 1)
    before = out.read_bytes()
    for other, fault in [
        (["--n", 5, "--use-labels", "--augment"], "n 4, not 5"),
        (["--n", 4, "--augment"], "labels"),
        (["--n", 4, "--use-labels"], "augment True, not False"),
    ]:
        refused = run(*words, *other)
        assert refused.exit_code == 2
        assert fault in refused.stderr
        assert len(refused.stderr.strip().splitlines()) <= 2
    assert out.read_bytes() == before


def test_the_published_flags_are_the_same_options(tmp_path: Path) -> None:
    data = written(tmp_path / "gsm8k.jsonl", QUESTIONS)
    ours = ["--data", data, "--n", 4, "--max-new-seq-len", 8, "--data-size", 2, "--augment"]
    theirs = ["--filename", data, "--max_new_tokens", 4, "--max_new_seq_len", 8, "--data_size", 2]
    lines = []
    for number, words in enumerate((ours, [*theirs, "--use_aug"])):
        out = tmp_path / f"{number}.jsonl"
        done = run("data", "trajectories", "--model", folder.llama(), "--out", out,
                   *words, "--use_labels")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        lines.append(out.read_text())
    assert lines[0] == lines[1]


def command(folder_: Path, rows: Sequence[Any], *more: object) -> list[str]:
    """Return what collects the answers to questions into out.jsonl of a folder."""
    data = written(folder_ / "asked.jsonl", rows)
    words = ["data", "trajectories", "--model", folder.llama(), "--data", data]
    words += ["--out", folder_ / "out.jsonl", "--n", 4, "--max-new-seq-len", 8, *more]
    return [str(word) for word in words]


def test_long_questions_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    words = command(tmp_path, [*QUESTIONS, {"question": "", "answer": "4"}])
    done = run(*words, "--max-prompt-chars", 7)
    assert done.exit_code == 0, done.stderr
    assert "1 left out with an empty question, 1 left out with too long a question" in done.stderr
    assert {name for name, _ in read_by_block(tmp_path / "out.jsonl")} == {"data_0", "data_1"}
    refused = run(*words)
    assert refused.exit_code == 2
    assert "max_prompt_chars 7, not none" in refused.stderr


@pytest.mark.slow
def test_what_repeats_itself_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    ask = Collector.collect

    def counted(self: Collector, number: int, messages: Sequence[Message]) -> Any:
        numbers.append(number)
        return ([], True) if number == 0 else ask(self, number, messages)

    monkeypatch.setattr(Collector, "collect", counted)
    words = command(tmp_path, QUESTIONS)
    assert run(*words, "--data-size", 1).exit_code == 1
    assert numbers == [0]
    for _ in range(2):
        done = run(*words)
        assert done.exit_code == 0, done.stderr
        assert "1 repetitive" in done.stderr
        assert numbers == [0, 1, 2]
    # Not where it is asked in another way, nor for a file that begins anew.
    (tmp_path / "out.jsonl").write_text("")
    assert run(*words, "--max-new-seq-len", 4).exit_code == 0
    assert numbers == [0, 1, 2] * 2
    (tmp_path / "out.jsonl").unlink()
    assert run(*words, "--max-new-seq-len", 4).exit_code == 0
    assert numbers == [0, 1, 2] * 3


@pytest.mark.slow
def test_two_processes_write_the_lines_of_one(tmp_path: Path) -> None:
    rows = [{"question": f"the fox {number}", "answer": "4"} for number in range(7)]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert run(*command(one, rows)).exit_code == 0
    two_processes.run(*command(two, rows))
    expected, lines = ((path / "out.jsonl").read_text().splitlines() for path in (one, two))
    assert sorted(lines) == sorted(expected)
    facts = json.loads((two / "out.jsonl.provenance.json").read_text())
    assert (facts["processes"], facts["counts"]["kept"]) == (2, 7)
    assert sorted(facts["shares"]) == ["0", "1"]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_is_finished_stays(tmp_path: Path) -> None:
    words, out = command(tmp_path, QUESTIONS), tmp_path / "out.jsonl"
    assert run(*words).exit_code == 0
    complete = out.read_bytes()
    out.unlink()
    assert run(*words, "--data-size", 1).exit_code == 0
    before = out.read_bytes()
    for size in (len(before) + 5, 5):
        with room(size):
            done = run(*words)
        assert done.exit_code == 1
        assert f"{out}: the disk is full" in done.stderr
        assert len(done.stderr[done.stderr.index("nfox: error") :].strip().splitlines()) <= 2
        assert out.read_bytes() == before
    assert run(*words).exit_code == 0
    assert out.read_bytes() == complete


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_finished_and_the_same_goes_on(tmp_path: Path) -> None:
    rows = [{"question": f"the fox {number}", "answer": "4"} for number in range(5000)]
    words, out = command(tmp_path, rows), tmp_path / "out.jsonl"
    process = programs.start(*words)
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    before = out.read_text()
    last = int(json.loads(before[: before.rindex("\n")].splitlines()[-1])["id"].split("/")[0])
    assert run(*words, "--data-size", last + 3).exit_code == 0
    resumed = out.read_text()
    assert resumed.startswith(before[: before.rindex("\n") + 1])
    collected = tmp_path / "at_once"
    collected.mkdir()
    assert run(*command(collected, rows), "--data-size", last + 3).exit_code == 0
    assert resumed == (collected / "out.jsonl").read_text()


def test_a_folder_is_no_place_for_lines(tmp_path: Path) -> None:
    out = tmp_path / "there"
    out.mkdir()
    done = run(*command(tmp_path, QUESTIONS), "--out", out)
    assert done.exit_code == 2
    assert f"{out} is a folder" in done.stderr
    assert "name a file" in done.stderr
    assert not (tmp_path / "there.lock").exists()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--out", "x"], "--data is missing"),
        (["--data", "absent.jsonl", "--out", "x"], "no such file"),
    ],
)
def test_what_is_missing_is_one_line(words: list[str], fault: str) -> None:
    done = run("data", "trajectories", "--model", folder.llama(), *words)
    assert done.exit_code == 2
    assert fault in done.stderr


def test_an_encoder_decoder_model_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "a.jsonl", QUESTIONS)
    done = run(
        "data", "trajectories", "--model", folder.t5(), "--data", data, "--out", tmp_path / "x",
        "--conv-template", "plain",
    )  # fmt: skip
    assert done.exit_code == 3
    assert "encoder" in done.stderr
