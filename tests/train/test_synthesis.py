"""A model's conversations with itself: what it asks, what is asked of it, and where it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli_model
import folder
import pytest
import torch

import nfox
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.models.options import ModelOptions
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.train.data.batch_decoder import BatchDecoder
from nfox.train.data.local_answerer import LocalAnswerer
from nfox.train.data.question_filter import QuestionFilter
from nfox.train.data.question_sampler import QuestionSampler
from nfox.train.data.synthesis import synthesise
from nfox.train.data.synthesis_settings import Synthesis

SETTINGS = Synthesis(count=5, max_new_tokens=8, batch=16, question_tokens=40)


def engine(name: Path | None = None, **options: Any) -> Engine:
    loading = ModelOptions(dtype="float32", device="cpu")
    return nfox.load(str(name or folder.llama(layers=4)), method="none", loading=loading, **options)


def sampler(chat: Engine, **options: Any) -> QuestionSampler:
    return QuestionSampler(chat.model, chat.template, **{"max_new_tokens": 40} | options)


def write(chat: Engine, out: Path, settings: Synthesis = SETTINGS, **options: Any) -> Any:
    answerer = LocalAnswerer(chat.model, chat.template, settings.max_new_tokens)
    return synthesise(sampler(chat), answerer, out, settings, **options)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("name", [None, "vicuna_v1.1", "chatml", "llama-2"])
def test_a_question_stands_where_a_users_words_do(name: str | None) -> None:
    chat = engine()
    template = resolve(chat.model.tokenizer, name)
    found = QuestionSampler(chat.model, template)
    decode = chat.model.tokenizer.decode
    for question in ("Why?", "äöü 1", "[x]"):
        ids = template.encode(chat.model.tokenizer, [Message("user", question)])
        assert ids[: len(found.opening)] == found.opening
        assert (
            decode(ids)
            .replace(" ", "")
            .startswith((decode(found.opening) + question).replace(" ", ""))
        )


def test_what_a_model_asks_ends_where_its_template_ends_a_question() -> None:
    chat = engine()
    questions = sampler(chat).sample([""] * 32, seed=1)
    assert questions == sampler(chat).sample([""] * 32, seed=1)
    assert questions != sampler(chat).sample([""] * 32, seed=2)
    asked = [question for question in questions if question is not None]
    assert 0 < len(asked) < 32
    assert not any("</s>" in question or "<s>" in question for question in asked)


def test_a_question_takes_no_more_positions_than_there_may_be() -> None:
    chat = engine(folder.llama(layers=1, endless=True))
    found = sampler(chat, max_context=len(sampler(chat).opening) + 3)
    lengths: list[int] = []
    decode = BatchDecoder.decode

    def counted(self: BatchDecoder, prompts: Any) -> Any:
        decoded = decode(self, prompts)
        lengths.extend(len(text.ids) for text in decoded if text)
        return decoded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchDecoder, "decode", counted)
        assert found.sample([""] * 2, seed=0) == [None, None]
    assert lengths == [3, 3]


def test_a_mark_of_letters_ends_a_question_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = engine()
    template = resolve(chat.model.tokenizer, "vicuna_v1.1")
    found = QuestionSampler(chat.model, template)
    said = chat.model.tokenizer(" Is it red? ASSISTANT: Yes").input_ids
    monkeypatch.setattr(
        chat.model.target.model,
        "generate",
        lambda input_ids, **_: torch.cat([input_ids, torch.tensor([said] * len(input_ids))], 1),
    )
    assert found.sample([""] * 2, seed=0) == ["Is it red?"] * 2


@pytest.mark.parametrize("name", [None, "vicuna_v1.1", "llama-2"])
def test_a_question_begins_as_it_is_told_to(name: str | None) -> None:
    chat = engine()
    found = QuestionSampler(chat.model, resolve(chat.model.tokenizer, name), max_new_tokens=40)
    begun = [q for seed in range(2) for q in found.sample(["Why is", ""] * 32, seed)]
    asked = [question for question in begun[::2] if question]
    assert asked
    assert all(question.startswith("Why is") for question in asked)
    assert not any((question or "").startswith("Why is") for question in begun[1::2])


def test_a_beginning_counts_as_a_part_of_its_question() -> None:
    chat = engine(folder.llama(layers=1, endless=True))
    (begun,) = sampler(chat, max_new_tokens=40).sample(["Why is"], seed=1)
    assert begun is None  # it does not end within 40 tokens
    with pytest.raises(UsageError, match=r"a beginning has \d+ tokens, a question 3 at most"):
        sampler(chat, max_new_tokens=3).sample(["", "Why is it so?"], seed=1)


def test_every_question_begins_with_one_of_the_beginnings(tmp_path: Path) -> None:
    chat, out = engine(), tmp_path / "own.jsonl"
    write(chat, out, replace(SETTINGS, beginnings=("Why is", "Name a")))
    questions = [line["messages"][0]["content"] for line in lines(out)]
    assert {question[:6] for question in questions} == {"Why is", "Name a"}


def test_sampling_leaves_the_noise_of_others_alone() -> None:
    found = sampler(engine())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    found.sample([""] * 2, seed=9)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("question", "script", "reason"),
    [
        ("Why is the sky blue?", None, None),
        (None, None, "unended"),
        ("Hm", None, "short"),
        ("1 + 1 = 2, 2 + 2 = 4", None, "short"),
        ("?" * 40, None, "short"),
        ("天空为什么是蓝色的呢请告诉我", None, None),
        ("天空为什么是蓝色的呢请告诉我", "latin", "foreign"),
        ("天空为什么是蓝色的呢请告诉我", "cjk", None),
        ("Почему небо синее?", "cyrillic", None),
        ("Почему небо синее?", "latin", "foreign"),
        ("Was heißt 天 auf Deutsch, und wie schreibt man es dort heute?", "Latin", None),
        ("go on and " * 8, None, "repeated"),
    ],
)
def test_questions_are_asked_or_left_out(
    question: str | None, script: str | None, reason: str | None
) -> None:
    assert QuestionFilter(script).reason_against(question) == reason


def test_what_begins_alike_is_asked_once() -> None:
    wanted = QuestionFilter()
    assert wanted.reason_against("Why is the sky blue?") is None
    assert wanted.reason_against("why  is THE sky blue") == "repeated"
    assert wanted.reason_against("Why is the sky red?") is None


def test_a_script_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="klingon"):
        QuestionFilter("klingon")


def test_answers_are_the_models_own_and_all_questions_differ(tmp_path: Path) -> None:
    chat, out = engine(), tmp_path / "own.jsonl"
    done: list[int] = []
    result = write(chat, out, on_done=done.append)
    assert result.counts["kept"] == len(lines(out)) == sum(done) == 5
    assert [line["id"] for line in lines(out)] == [str(number) for number in range(5)]
    questions = [line["messages"][0]["content"] for line in lines(out)]
    assert len(set(questions)) == 5
    for line, question in zip(lines(out), questions, strict=True):
        (reply,) = LocalAnswerer(chat.model, chat.template, 8).answer([[Message("user", question)]])
        assert isinstance(reply, Message)
        assert line["messages"][1] == {"role": "assistant", "content": reply.content}


def test_it_goes_on_where_it_was_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    chat, out = engine(), tmp_path / "own.jsonl"
    write(chat, out)
    first = out.read_text()
    with out.open("a") as file:
        file.write('{"id": "5", "mess')  # killed in the middle of a line
    more = Synthesis(count=12, max_new_tokens=8, batch=16, question_tokens=40)
    result = write(chat, out, more)
    assert (result.counts["before"], result.counts["kept"]) == (5, 7)
    assert out.read_text().startswith(first)
    questions = [line["messages"][0]["content"] for line in lines(out)]
    assert len(set(questions)) == len(questions) == 12
    assert write(chat, out, more).counts == {"before": 12}


def test_a_model_that_asks_nothing_is_told_of_once(tmp_path: Path) -> None:
    chat, out = engine(folder.llama(layers=1, endless=True)), tmp_path / "own.jsonl"
    found = sampler(chat, max_new_tokens=2)
    with pytest.raises(NfoxError, match="160 unended"):
        synthesise(found, LocalAnswerer(chat.model, chat.template, 4), out, SETTINGS)
    assert not out.exists()


REFUSED: list[tuple[Callable[[Path], Engine], str]] = [
    (lambda place: engine(template="plain"), "before a user's words"),
    (lambda place: engine(folder.t5()), "encoder"),
]


@pytest.mark.parametrize(("load", "reason"), REFUSED)
def test_a_model_that_cannot_know_that_it_is_to_ask(
    load: Callable[[Path], Engine], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=reason):
        sampler(load(tmp_path))


def test_questions_need_noise() -> None:
    with pytest.raises(UsageError, match="temperature 0"):
        Synthesis(question_temperature=0)


def test_a_model_whose_words_are_known_says_them_to_itself(tmp_path: Path) -> None:
    chat = engine(cli_model.save(tmp_path / "model"))
    (question,) = sampler(chat, temperature=1e-3, max_new_tokens=6).sample([""], seed=0)
    assert question is None  # it never ends what it says
