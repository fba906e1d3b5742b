"""What answers say: numbers, functions, SQL; and the loss of a model on held-out texts."""

from __future__ import annotations

import random

import folder
import pytest
import tiny
import torch
from torch.nn import functional

from nfox.errors import ModelError
from nfox.eval.answers.extract import (
    NO_SQL,
    Speed,
    few_shot,
    final_answer,
    share,
    sql_line,
    whole_function,
)
from nfox.heads.base import IGNORE
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.train.data.rows import Rows
from nfox.train.held_out_loss import held_out_loss


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "7"),
        ("#### 1,234", "1234"),
        ("####1,234,567.50", "1234567.5"),
        ("#### $18", "18"),
        ("#### $-18.00", "-18"),
        ("#### -$18", "-18"),
        ("#### \u22125", "-5"),
        ("#### 007", "7"),
        ("#### 0.50", "0.5"),
        ("#### .5", "0.5"),
        ("#### -0", "0"),
        ("#### 50%", "50"),
        ("#### 5.", "5"),
        ("#### 100", "100"),
        ("#### 5 apples, which leaves 3", "5"),
        ("#### 5\nQuestion: What is 2 + 2?\n#### 4", "5"),
        ("There are 12 left, so 7.", "7"),
        ("so 7 of 12-5", "5"),
        ("it is 12 - 5 = -7", "-7"),
        ("(-7)", "-7"),
        ("- 4 boxes", "4"),
        ("Of 1,2,3 the last", "3"),
        ("In 2024,2025", "2025"),
        ("#### none, but before it 4", "4"),
        ("#### no number", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_final_answer(text: str, number: str | None) -> None:
    assert final_answer(text) == number


@pytest.mark.parametrize("text", ["$", "1" * 400 + "," * 400, "-" * 1000, "," * 1000 + "."])
def test_odd_texts_are_read_at_once(text: str) -> None:
    final_answer(text)
    sql_line(text)
    whole_function(text, "f")


def test_a_question_after_examples() -> None:
    assert few_shot([], "Why?") == "Why?"
    assert few_shot([("a", "b"), ("c", "d")], "Why?") == (
        "Question: a\nAnswer: b\n\nQuestion: c\nAnswer: d\n\nQuestion: Why?\nAnswer:"
    )


PROMPT = 'from typing import List\n\n\ndef double(x: int) -> int:\n    """Twice."""\n'


@pytest.mark.parametrize(
    "reply",
    [
        "Sure:\n```python\ndef double(x: int) -> int:\n    return 2 * x\n```\nIt doubles.",
        "```\nimport math\n\ndef double(x):\n    return math.prod([2, x])\n",
        "```python\nprint(1)\n```\nor\n```python\ndef double(x):\n    return x + x\n```",
        "def double(x):\n    return 2 * x",
        "    return 2 * x",
        "return 2 * x",
        "y = x\nreturn x + y",
        "```python\n    return 2 * x\n```",
    ],
)
def test_a_chats_function_runs_behind_the_prompt(reply: str) -> None:
    """The harness runs the prompt and the completion as one text."""
    names: dict[str, object] = {}
    exec(PROMPT + whole_function(reply, "double"), names)
    assert names["double"](21) == 42  # type: ignore[operator]


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("SELECT a FROM t", "SELECT a FROM t"),
        ("SELECT a\n\tFROM t\n WHERE b = 1;\nSELECT 2", "SELECT a FROM t WHERE b = 1"),
        ("SELECT count(*) FROM t\n\nThis counts all rows.", "SELECT count(*) FROM t"),
        ("SELECT a FROM t\r\n \r\nIt's all.", "SELECT a FROM t"),
        ("The query is: SELECT a FROM t", "SELECT a FROM t"),
        ("With pleasure: select a from t", "select a from t"),
        ("It's `SELECT a FROM t`, of course.", "SELECT a FROM t"),
        ("```SELECT a FROM t```", "SELECT a FROM t"),
        ("```sql SELECT a FROM t``` I selected a.", "SELECT a FROM t"),
        ("I select a:\n```\nSELECT a\n\nFROM t\n```", "SELECT a FROM t"),
        ("SELECT a FROM t\n```\nIt will select a.\n```", "SELECT a FROM t"),
        ("-- SELECT it\n/* SELECT */ SELECT a FROM t", "SELECT a FROM t"),
        ("WITH c AS (SELECT 1)\nSELECT * FROM c", "WITH c AS (SELECT 1) SELECT * FROM c"),
        ("(SELECT a FROM t) UNION (SELECT 1)", "(SELECT a FROM t) UNION (SELECT 1)"),
        ("SELECT a FROM t WHERE b = '--x'", "SELECT a FROM t WHERE b = '--x'"),
        ("SELECT a FROM t WHERE b = 'x  /* y */\tz'", "SELECT a FROM t WHERE b = 'x  /* y */ z'"),
        ("selection and without", NO_SQL),
        ("Here:\n```sql\nSELECT a FROM t;\n```\nIt selects.", "SELECT a FROM t"),
        ("SELECT a -- the name\nFROM t", "SELECT a FROM t"),
        ("SELECT a FROM t WHERE b = 'x;y'; done", "SELECT a FROM t WHERE b = 'x;y'"),
        ("SELECT a FROM t WHERE b = 'x", "SELECT a FROM t WHERE b = 'x"),
        ("", NO_SQL),
        (" \n;", NO_SQL),
    ],
)
def test_sql_is_one_line(reply: str, line: str) -> None:
    assert sql_line(reply) == line


PIECES = ("a", "t.b", "=", "(", ")", "'x;y'", "'it''s'", '"-- c  d"', "`e f`", "'/* g'", "1", "-")
PROSE = ("Here it is:\n", "It's the query: ", "", "With pleasure,\n\n", "> ")
GAPS = (" ", "\n", "\t ", " -- it's; a note\n", " /* ;\n' */ ")
ENDS = ("", ";", "\n\nIt's done; it selects.", "; SELECT 2", "\n \n```\nmore\n```")


@pytest.mark.parametrize("seed", range(100))
def test_a_statement_is_found_whatever_stands_around_it(seed: int) -> None:
    chosen = random.Random(seed)
    words = ["SELECT", *chosen.choices(PIECES, k=12)]
    spaced = "".join(word + chosen.choice(GAPS) for word in words).rstrip() + "\n"
    fence = chosen.choice(("```sql\n", "```", "```sql "))
    for reply in (
        chosen.choice(PROSE) + spaced.rstrip("\n") + chosen.choice(ENDS),
        chosen.choice(PROSE) + fence + spaced + "```\nIt selects what is asked for.",
        chosen.choice(PROSE) + fence + spaced,  # cut off
    ):
        assert sql_line(reply) == " ".join(words), reply


@pytest.mark.parametrize("seed", range(100))
def test_any_text_gives_one_line_that_stays(seed: int) -> None:
    parts = (
        *PIECES,
        *GAPS,
        *ENDS,
        "'",
        '"',
        "`",
        "```",
        "--",
        "/*",
        "SELECT",
        "with a as",
        "\u2028",
    )
    reply = "".join(random.Random(seed).choices(parts, k=15))
    line = sql_line(reply)
    assert line.strip()
    assert "\t" not in line
    assert len(line.splitlines()) == 1
    assert sql_line(line) == line


def test_speed_and_shares_are_added_up() -> None:
    line = {"timings": {"predicted_n": 30, "predicted_ms": 500.0}, "spec": {"steps": 10}}
    speed = Speed.of([line, {"error": "too long"}, line])
    assert (speed.tokens, speed.steps, speed.seconds) == (60, 20, 1.0)
    assert str(speed) == "60 tokens, tau 3.00, 60.0 tokens/s"
    assert str(Speed.of([])) == "0 tokens, tau 0.00, 0.0 tokens/s"
    assert share(10, 100) == "10 of 100 right, 10.0% ± 3.0%"


def test_the_held_out_loss_is_that_of_each_token_by_itself() -> None:
    model = load_model(str(folder.llama()), ModelOptions(dtype="float32"))
    texts = ["the quick brown fox", "a dog", "over and over again"]
    kept = [[Message("user", "hello"), Message("assistant", text)] for text in texts]
    rows = Rows(kept, resolve(model.tokenizer, None), model.tokenizer, 512)
    total, count = 0.0, 0
    for row in (rows[place] for place in range(len(rows))):
        ids, labels = torch.tensor([row["input_ids"]]), row["labels"]
        with torch.inference_mode():
            logits = model.target.model(ids).logits[0]
        for place in range(1, len(labels)):
            if labels[place] != IGNORE:
                wanted = torch.tensor(labels[place])
                total += float(functional.cross_entropy(logits[place - 1].float(), wanted))
                count += 1
    found, places = held_out_loss(model.target, rows, batch=2)
    assert places == count > 10
    assert found == pytest.approx(total / count, rel=1e-4)


def test_an_encoder_decoder_has_no_such_loss() -> None:
    with pytest.raises(ModelError, match="causal"):
        held_out_loss(tiny.target("t5"), [])  # type: ignore[arg-type]
