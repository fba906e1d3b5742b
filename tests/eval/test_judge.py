"""MT-bench: what a judge is asked, what is made of its answers, and what is kept of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from full_disk import room
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.errors import UsageError
from nfox.eval.answers import judge_prompts
from nfox.eval.answers.files import AnswerFile, read
from nfox.eval.answers.judge import (
    UNCLEAR,
    UNRATED,
    judge,
    kept,
    rating,
    remaining,
    scores,
    winner,
    wins,
)
from nfox.eval.answers.judge_prompts import KINDS, Kind, own
from nfox.eval.answers.mt_bench import Match, matches, questions
from nfox.text.template import Message
from nfox.train.data.local_answers import Answerer, Answers

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write of {foxes}.", "Shorter."]},
    {"question_id": 111, "category": "math", "turns": ["1+1?", "And 2+2?"]},
]
REFERENCE = {"question_id": 111, "choices": [{"turns": ["It is 2.", "It is 4."]}]}


def file(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def answered(path: Path, *said: tuple[int, list[str]]) -> AnswerFile:
    records = [{"question_id": key, "choices": [{"turns": turns}]} for key, turns in said]
    return read(file(path, *records))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(file(tmp_path / "question.jsonl", *QUESTIONS))


@pytest.fixture
def ours(tmp_path: Path) -> AnswerFile:
    return answered(tmp_path / "ours.jsonl", (81, ["good", "{short}"]), (111, ["2", "4"]))


@pytest.fixture
def theirs(tmp_path: Path) -> AnswerFile:
    return answered(tmp_path / "theirs.jsonl", (81, ["bad", "bad too"]), (111, ["3", "5"]))


class Judge(Answerer):
    """Rates by length; prefers the answer with "good" or "2" in it."""

    def __init__(self, say: str = "Rating: [[{rating}]]") -> None:
        self.say = say
        self.seen: list[Sequence[Message]] = []

    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        self.seen += asked
        return [Message("assistant", self.say.format(rating=7)) for _ in asked]


def judged(todo: list[Match], say: str, out: Path) -> list[dict[str, Any]]:
    assert judge(todo, Judge(say), "gpt-x", out, batch=3) == []
    return kept(out, "single" if len(todo[0].models) == 1 else "pairwise")


def test_every_turn_is_asked_with_what_belongs_to_it(data: str, ours: AnswerFile) -> None:
    first = matches(questions(data), [ours], own(), "single")
    assert [(one.question.id, one.turn) for one in first] == [(81, 1), (111, 1), (81, 2), (111, 2)]
    writing, maths, second, maths_second = (one.texts[0] for one in first)
    assert "Write of {foxes}." in writing and "good" in writing
    assert "Shorter." not in writing
    assert all(text in second for text in ("Write of {foxes}.", "good", "Shorter.", "{short}"))
    assert "Reference" not in maths + maths_second  # there is none
    guided = matches(questions(data, ours), [ours], own(), "single")
    names = [one.prompt.name for one in guided]
    assert names == ["nfox-single-v1", "nfox-single-math-v1", "nfox-single-v1-multi-turn",
                     "nfox-single-math-v1-multi-turn"]  # fmt: skip


def test_a_reference_is_shown_for_maths_only(data: str, ours: AnswerFile, tmp_path: Path) -> None:
    given = read(file(tmp_path / "gpt-4.jsonl", REFERENCE, {**REFERENCE, "question_id": 81}))
    found = matches(questions(data, given), [ours], own(), "single")
    shown = [[text in one.texts[0] for text in ("It is 2.", "It is 4.")] for one in found]
    assert shown == [[False, False], [True, False], [False, False], [True, True]]


def test_references_may_stand_beside_the_questions(ours: AnswerFile, tmp_path: Path) -> None:
    """So they do in the copy on the hub, whose turns are called prompt; empty ones are none."""
    records = [{"question_id": one["question_id"], "prompt": one["turns"],
                "category": one["category"], "reference": good}
               for one, good in zip(QUESTIONS, [[], ["two", "four"]], strict=True)]  # fmt: skip
    found = questions(str(file(tmp_path / "hub.jsonl", *records)))
    assert [one.references for one in found.values()] == [(), ("two", "four")]
    assert "two" in matches(found, [ours], own(), "single")[1].texts[0]


def test_pairs_are_compared_in_both_orders(data: str, ours: AnswerFile, theirs: AnswerFile) -> None:
    found = matches(questions(data), [ours, theirs], own(), "pairwise")
    assert len(found) == 4
    assert found[0].models == ("ours", "theirs")
    first, second = found[0].texts
    assert first.index("good") < first.index("bad")
    assert second.index("bad") < second.index("good")


def test_every_two_of_three_models_are_compared(
    data: str, ours: AnswerFile, theirs: AnswerFile, tmp_path: Path
) -> None:
    third = answered(tmp_path / "third.jsonl", (81, ["x"]))  # its second turn is missing
    found = matches(questions(data), [ours, theirs, third], own(), "pairwise")
    pairs = [one.models for one in found if one.question.id == 81]
    assert pairs == [("ours", "theirs"), ("ours", "third"), ("theirs", "third"),
                     ("ours", "theirs")]  # fmt: skip


def test_answers_to_other_questions_are_refused(data: str, tmp_path: Path) -> None:
    other = answered(tmp_path / "other.jsonl", (81, ["a", "b"]), (7, ["a"]))
    with pytest.raises(UsageError, match=r"other\.jsonl answers question 7"):
        matches(questions(data), [other], own(), "single")


@pytest.mark.parametrize("line", [{"question_id": 1}, {"turns": "a"}, {"turns": [1]}, "text"])
def test_what_is_no_question_is_named(line: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="record 2 has no turns"):
        questions(str(file(tmp_path / "q.jsonl", QUESTIONS[0], line)))


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("Fine. Rating: [[7]]", 7),
        ("[[7.5]]", 7.5),
        ("Not [[rating]] but [[3]], then [[9]]", 3),
        ("Rating: [8]", 8),
        ("[1] is cited; [[10]]", 10),
        ("Rating: 7", UNRATED),
        ("[[rating]]", UNRATED),
        ("as in [2023]", UNRATED),
        ("", UNRATED),
    ],
)
def test_ratings(said: str, score: float) -> None:
    assert rating(said) == score


def test_verdicts() -> None:
    said = ["so [[A]]", "so [[B]]", "[[C]]", "[[D]]", "A"]
    found = [winner(text, "model_1", "model_2") for text in said]
    assert found == ["model_1", "model_2", "tie", UNCLEAR, UNCLEAR]


def test_judgments_have_fastchats_layout(
    data: str, ours: AnswerFile, theirs: AnswerFile, tmp_path: Path
) -> None:
    todo = matches(questions(data), [ours], own(), "single")
    line = judged(todo, "Good. [[9]]", tmp_path / "single.jsonl")[0]
    assert isinstance(line.pop("tstamp"), float)
    assert line.pop("system_prompt") == todo[0].prompt.system_prompt
    assert line == {"question_id": 81, "model": "ours", "judge": ["gpt-x", "nfox-single-v1"],
                    "user_prompt": todo[0].texts[0], "judgment": "Good. [[9]]", "score": 9,
                    "turn": 1}  # fmt: skip
    todo = matches(questions(data), [ours, theirs], own(), "pairwise")
    line = judged(todo, "[[A]]", tmp_path / "pair.jsonl")[-1]
    assert isinstance(line.pop("tstamp"), float)
    assert line.pop("system_prompt") == todo[-1].prompt.system_prompt
    assert line == {"question_id": 111, "model_1": "ours", "model_2": "theirs",
                    "g1_winner": "model_1", "g2_winner": "model_2",
                    "judge": ["gpt-x", "nfox-pair-v2-multi-turn"],
                    "g1_user_prompt": todo[-1].texts[0], "g1_judgment": "[[A]]",
                    "g2_user_prompt": todo[-1].texts[1], "g2_judgment": "[[A]]",
                    "turn": 2}  # fmt: skip


def test_judgments_by_another_system_prompt_are_not_gone_on_with(
    data: str, ours: AnswerFile, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    todo = matches(questions(data), [ours], own(), "single")
    lines = judged(todo, "[[9]]", out)
    assert remaining(todo, lines, "gpt-x", out) == []
    lines[0]["system_prompt"] = "Be kind."
    with pytest.raises(UsageError, match="was judged with other words"):
        remaining(todo, lines, "gpt-x", out)


def test_the_judge_gets_the_system_prompt_first(
    data: str, ours: AnswerFile, tmp_path: Path
) -> None:
    made = Judge()
    todo = matches(questions(data), [ours], own(), "single")
    judge(todo, made, "gpt-x", tmp_path / "out.jsonl")
    assert [message.role for message in made.seen[0]] == ["system", "user"]
    assert "[[7]]" in made.seen[0][0].content


def rated(model: str, question: int, turn: int, score: float) -> dict[str, Any]:
    return {"question_id": question, "model": model, "score": score, "turn": turn,
            "judge": ["j", "p"]}  # fmt: skip


def test_mean_scores_by_hand() -> None:
    lines = [rated("a", 1, 1, 8), rated("a", 1, 2, 5), rated("a", 2, 1, 6), rated("a", 2, 2, -1),
             rated("b", 1, 1, 9), rated("b", 2, 1, -1)]  # fmt: skip
    best, other = scores(lines, {"1": "math", "2": "stem", "3": "writing"})
    assert (best["model"], best["score"], best["first"], best["second"]) == ("b", 9, 9, None)
    assert (other["score"], other["first"], other["second"]) == (pytest.approx(19 / 3), 7, 5)
    assert other["categories"] == {"math": 6.5, "stem": 6, "writing": None}
    assert [(row["judged"], row["unrated"]) for row in (best, other)] == [(2, 1), (4, 1)]


def test_one_wins_only_in_both_orders() -> None:
    orders = [("model_1", "model_1"), ("model_1", "model_2"), ("tie", "model_1"), ("tie", "tie"),
              ("model_2", "model_2"), ("model_1", "model_1"), (UNCLEAR, "model_1")]  # fmt: skip
    lines = [{"model_1": "a", "model_2": "b", "g1_winner": g1, "g2_winner": g2}
             for g1, g2 in orders]  # fmt: skip
    a, b = wins(lines)
    assert a == {"model": "a", "wins": 2, "losses": 1, "ties": 3, "unclear": 1,
                 "win_rate": 2 / 6, "adjusted": 3.5 / 6}  # fmt: skip
    assert (b["wins"], b["losses"], b["ties"], b["unclear"]) == (1, 2, 3, 1)


def test_what_is_there_is_not_asked_again(
    data: str, ours: AnswerFile, theirs: AnswerFile, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    todo = matches(questions(data), [ours, theirs], own(), "pairwise")
    judged(todo[:3], "[[B]]", out)
    left = remaining(todo, kept(out, "pairwise"), "gpt-x", out)
    assert left == todo[3:]
    turned = matches(questions(data), [theirs, ours], own(), "pairwise")
    assert remaining(turned, kept(out, "pairwise"), "gpt-x", out) == turned[3:]


def test_a_file_of_another_judge_or_of_other_answers_is_refused(
    data: str, ours: AnswerFile, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    todo = matches(questions(data), [ours], own(), "single")
    lines = judged(todo, "[[5]]", out)
    with pytest.raises(UsageError, match="judged by gpt-x, not gpt-y"):
        remaining(todo, lines, "gpt-y", out)
    changed = answered(tmp_path / "ours.jsonl", (81, ["good", "long"]))
    todo = matches(questions(data), [changed], own(), "single")
    with pytest.raises(UsageError, match="question 81 of ours"):
        remaining(todo, lines, "gpt-x", out)


def test_a_line_that_was_not_finished_is_judged_anew(
    data: str, ours: AnswerFile, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    todo = matches(questions(data), [ours], own(), "single")
    judged(todo, "[[5]]", out)
    out.write_text(out.read_text()[:-20])
    left = remaining(todo, kept(out, "single"), "gpt-x", out)
    assert left == todo[3:]
    assert len(judged(left, "[[6]]", out)) == 4


@pytest.mark.parametrize(
    "content", ["dear diary\n", "dear diary", '{"a": 1}', '{"a": 1}\n', "[]\n"]
)
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text(content)
    with pytest.raises(UsageError, match="line 1: no single judgment"):
        kept(tmp_path / "out.jsonl", "single")


def prompts_file(path: Path, **changed: Any) -> Path:
    """In FastChat's layout, with both modes and one more prompt."""
    records: list[dict[str, Any]] = [
        {"name": kind.name, "type": kind.mode, "description": "", "category": "general",
         "system_prompt": "S",
         "prompt_template": " ".join(["T", *(f"{{{name}}}" for name in sorted(kind.fields))]),
         "output_format": "[[rating]]" if kind.mode == "single" else "[[A]]"}
        for kind in KINDS
    ]  # fmt: skip
    records.append({**records[0], "name": "pair-v1", "output_format": "[[rating_a,rating_b]]"})
    records[0] |= changed
    return file(path, *records)


def test_fastchats_prompts_are_taken_as_they_are(
    data: str, ours: AnswerFile, theirs: AnswerFile, tmp_path: Path
) -> None:
    path = prompts_file(tmp_path / "judge_prompts.jsonl")
    (first, *_, last) = matches(
        questions(data), [ours], judge_prompts.read(path, "single"), "single"
    )
    assert first.prompt.name == "single-v1"
    assert first.texts == ("T good Write of {foxes}.",)
    assert last.texts == ("T 2 4 1+1? And 2+2?",)
    pairwise = judge_prompts.read(path, "pairwise")
    (first, *_) = matches(questions(data), [ours, theirs], pairwise, "pairwise")
    assert first.texts == ("T good bad Write of {foxes}.", "T bad good Write of {foxes}.")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "other"}, "has no prompt single-v1"),
        ({"prompt_template": "{answer_a}"}, "asks for {answer_a}"),
        ({"prompt_template": "{"}, "prompt_template"),
        ({"output_format": "[[A]]"}, r"asks for \[\[A\]\]"),
        ({"system_prompt": None}, "prompt 1: system_prompt"),
    ],
)
def test_prompts_that_do_not_fit_are_named(changed: Any, said: str, tmp_path: Path) -> None:
    path = prompts_file(tmp_path / "p.jsonl", **changed)
    with pytest.raises(UsageError, match=said):
        judge_prompts.read(path, "single")


def test_own_prompts_ask_for_all_that_belongs_to_them() -> None:
    made = own()
    assert len({prompt.name for prompt in made.values()}) == len(KINDS) == 8
    for kind, prompt in made.items():
        assert all(f"{{{field}}}" in prompt.prompt_template for field in kind.fields), kind
        wanted = "[[7]]" if kind.mode == "single" else "[[A]]"
        assert wanted in prompt.system_prompt
        assert ("second" in prompt.system_prompt) == kind.second
        assert ("eference" in prompt.system_prompt) == kind.reference
    assert made[Kind("single")].output_format == "[[rating]]"


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible judge: it likes "good", and has no rating for what says "bad"."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**body, "key": self.headers["Authorization"]})
            text = body["messages"][-1]["content"]
            said = "[[9]]" if "good" in text else "no idea" if "bad" in text else "[[6]]"
            if "Assistant B" in text:
                best = text.index("good") < text.index("bad") if "good" in text else None
                said = {True: "[[A]]", False: "[[B]]", None: "[[A]]"}[best]
            status = {"wrong": 401, "odd": 400}.get(body["model"], 200)
            self.send_response(status)
            self.end_headers()
            reply = {"choices": [{"message": {"content": said}}]}
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args: object) -> None: ...

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/v1/chat/completions", seen
    made.shutdown()
    made.server_close()


def run(data: str, url: str, out: Path, *more: object, model: str = "gpt-x") -> Result:
    given = ["--data", data, "--judge-url", url, "--judge-model", model, "--out", out, *more]
    return CliRunner().invoke(app, ["eval", "mt-bench", *map(str, given)])


def test_the_command_judges_and_goes_on(
    data: str, ours: AnswerFile, theirs: AnswerFile, server: Any, tmp_path: Path
) -> None:
    url, seen = server
    out = tmp_path / "out.jsonl"
    done = run(data, url, out, "--answers", ours.path, "--api-key", "k", "--max-new-tokens", 99)
    assert done.exit_code == 0, done.output
    assert (len(seen), seen[0]["temperature"], seen[0]["max_tokens"]) == (4, 0, 99)
    assert seen[0]["key"] == "Bearer k"
    assert "2 of 2 judgments of maths" in done.stderr
    assert "not comparable with published scores" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("ours"))
    assert line.split() == ["ours", "7.50", "7.50", "7.50", "0"]
    done = run(data, url, out, "--answers", ours.path, "--answers", theirs.path)
    assert len(seen) == 8  # the first four are there
    line = next(line for line in done.stdout.splitlines() if line.startswith("theirs"))
    assert line.split() == ["theirs", "6.00", "6.00", "6.00", "2"]
    assert len(out.read_text().splitlines()) == 8


def test_the_command_compares(
    data: str, ours: AnswerFile, theirs: AnswerFile, server: Any, tmp_path: Path
) -> None:
    prompts = prompts_file(tmp_path / "p.jsonl", prompt_template="T {question} {answer}")
    given = ["--answers", theirs.path, "--answers", ours.path, "--mode", "pairwise"]
    done = run(data, server[0], tmp_path / "out.jsonl", *given)
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if line.startswith("ours"))
    assert line.split() == ["ours", "2", "0", "2", "50.0%", "75.0%", "0"]
    done = run(data, server[0], tmp_path / "b.jsonl", *given, "--judge-prompts", prompts)
    assert f"by the prompts of {prompts}" in done.stdout
    assert "not comparable" not in done.stdout


def test_references_are_used(data: str, ours: AnswerFile, server: Any, tmp_path: Path) -> None:
    given = file(tmp_path / "gpt-4.jsonl", REFERENCE)
    done = run(data, server[0], tmp_path / "o.jsonl", "--answers", ours.path, "--references", given)
    assert "without a reference" not in done.stderr
    lines = kept(tmp_path / "o.jsonl", "single")
    assert ["It is 2." in line["user_prompt"] for line in lines] == [False, True, False, True]


def test_questions_without_an_answer_are_counted(data: str, server: Any, tmp_path: Path) -> None:
    few = answered(tmp_path / "few.jsonl", (81, ["good"]))
    done = run(data, server[0], tmp_path / "out.jsonl", "--answers", few.path)
    assert "1 of 2 questions have no answer" in done.stderr
    assert len(kept(tmp_path / "out.jsonl", "single")) == 1


@pytest.mark.parametrize(
    ("model", "said", "hint"),
    [("wrong", "HTTP 401", "--judge-model"), ("odd", "nothing was judged", "")],
)
def test_a_server_that_refuses_is_one_line(
    model: str, said: str, hint: str, data: str, ours: AnswerFile, server: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = run(data, server[0], out, "--answers", ours.path, model=model)
    assert (done.exit_code, out.exists()) == (1, False)
    assert said in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.output


def test_what_fails_now_and_then_is_asked_again(
    data: str, ours: AnswerFile, tmp_path: Path
) -> None:
    class Shy(Judge):
        def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
            return ["busy", *super().answer(asked)[1:]]

    out = tmp_path / "out.jsonl"
    todo = matches(questions(data), [ours], own(), "single")
    assert judge(todo, Shy(), "gpt-x", out, batch=2) == ["busy", "busy"]
    assert remaining(todo, kept(out, "single"), "gpt-x", out) == [todo[0], todo[2]]


def test_nobody_at_the_address_is_one_line(data: str, ours: AnswerFile, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run(data, "http://127.0.0.1:9/v1", out, "--answers", ours.path)
    assert (done.exit_code, "nobody answers" in done.stderr) == (1, True)
    assert "check --judge-url" in done.stderr
    done = run(data, "localhost:8080/v1", out, "--answers", ours.path)
    assert (done.exit_code, "--judge-url localhost" in done.stderr) == (2, True)


def test_a_full_disk_is_one_line_and_keeps_what_was_written(
    data: str, ours: AnswerFile, theirs: AnswerFile, server: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    run(data, server[0], out, "--answers", ours.path)
    before = out.read_bytes()
    given = ["--answers", ours.path, "--answers", theirs.path]
    with room(len(before) + 9):
        done = run(data, server[0], out, *given)
    assert (done.exit_code, "the disk is full" in done.stderr) == (1, True)
    assert out.read_bytes() == before


def test_what_cannot_be_asked_is_one_line(
    data: str, ours: AnswerFile, theirs: AnswerFile, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    twin = answered(tmp_path / "b" / "ours.jsonl", (81, ["x", "y"]))
    out = tmp_path / "out.jsonl"
    for given, said in [
        ([], "--answers is missing"),
        (["--answers", ours.path, "--mode", "pairwise"], "a second --answers"),
        (["--answers", ours.path, "--answers", twin.path], "are named ours"),
        (["--answers", ours.path, "--judge-prompts", tmp_path / "no"], "no such file"),
        (["--answers", ours.path, "--references", tmp_path / "no"], "No such file"),
    ]:
        done = run(data, "http://127.0.0.1:9/v1", out, *given)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output
    for missing in ("--judge-model", "--judge-url", "--out"):
        line = ["--judge-url", "u", "--judge-model", "m", "--out", str(out)]
        place = line.index(missing)
        done = CliRunner().invoke(app, ["eval", "mt-bench", *line[:place], *line[place + 2 :]])
        assert (done.exit_code, f"{missing} is missing" in done.stderr) == (2, True)
