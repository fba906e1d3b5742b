"""What MT-bench asks a judge: which answers, beside which reference, in which prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from nfox.errors import UsageError
from nfox.eval.answers.files import AnswerFile
from nfox.eval.answers.judge_prompts import Kind, Mode, Prompt, Prompts
from nfox.eval.bench.tasks import SOURCES
from nfox.files.records import records

Key = tuple[str, tuple[str, ...], int]
"""Of a judgment: its question, the models in alphabetical order, the turn."""

REFERENCED = frozenset({"math", "reasoning", "coding"})
"""Categories that are judged beside a reference answer."""

LAYOUT = '{"question_id": 81, "category": "writing", "turns": [text, text]}'


@dataclass(frozen=True)
class Question:
    """One of the benchmark's questions.

    Args:
        id: as its source has it.
        category: of it.
        turns: what is asked, one after the other.
        references: good answers to them, if there are any.
    """

    id: int | str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """What is judged together.

    Args:
        question: that was answered.
        models: who answered: one, or two that are compared.
        turn: 1 or 2.
        prompt: that was filled in.
        texts: the user's messages to the judge: one, or one for each order of two models.
    """

    question: Question
    models: tuple[str, ...]
    turn: int
    prompt: Prompt
    texts: tuple[str, ...]

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return str(self.question.id), tuple(sorted(self.models)), self.turn


def questions(data: str, references: AnswerFile | None = None) -> dict[str, Question]:
    """Read questions, by their ids.

    Args:
        data: a name of `nfox.eval.bench.tasks.SOURCES`, a file, or a dataset on the hub.
        references: answers to them; else those in the questions' own `reference` are taken.

    Raises:
        UsageError: if they cannot be read.
    """
    found: dict[str, Question] = {}
    for place, record in enumerate(records(SOURCES.get(data, data))):
        known = record if isinstance(record, Mapping) else {}
        turns = known.get("turns") or known.get("prompt")
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise UsageError(f"{data}, record {place + 1} has no turns", f"expected {LAYOUT}")
        name = known.get("question_id", place)
        good = known.get("reference") or ()
        if references is not None:
            answer = references.answers.get(str(name))
            good = answer.choices[0].turns if answer else ()
        category = str(known.get("category", ""))
        found[str(name)] = Question(name, category, tuple(turns), tuple(good))
    return found


def matches(
    asked: Mapping[str, Question], files: Sequence[AnswerFile], prompts: Prompts, mode: Mode
) -> list[Match]:
    """Return what is to be judged: first turns, then second ones. First choices count.

    Args:
        asked: all questions.
        files: of answers; a turn that one of them lacks is left out.
        prompts: that a judge gets.
        mode: whether each is rated, or every two of them are compared.

    Raises:
        UsageError: if a file has an answer to none of the questions.
    """
    for file in files:
        if odd := next((key for key in file.answers if key not in asked), None):
            raise UsageError(
                f"{file.path} answers question {odd}, which is not among the questions",
                "name the file of its questions with --data",
            )
    together = combinations(files, 2) if mode == "pairwise" else ((file,) for file in files)
    sides = list(together)
    return [
        _match(question, key, side, turn, prompts, mode)
        for turn in (1, 2)
        for side in sides
        for key, question in asked.items()
        if turn <= len(question.turns)
        and all(key in one.answers and len(_said(one, key)) >= turn for one in side)
    ]


def _said(file: AnswerFile, key: str) -> list[str]:
    return file.answers[key].choices[0].turns


def _match(
    question: Question,
    key: str,
    side: Sequence[AnswerFile],
    turn: int,
    prompts: Prompts,
    mode: Mode,
) -> Match:
    prompt = prompts[Kind(mode, guided(question, turn), turn == 2)]
    said = [_said(file, key) for file in side]
    texts = [_text(prompt, question, order, turn) for order in (said, said[::-1])]
    models = tuple(file.model for file in side)
    return Match(question, models, turn, prompt, tuple(texts[: len(side)]))


def guided(question: Question, turn: int) -> bool:
    """Whether a turn is judged beside a reference: there must be one of every turn up to it."""
    return question.category in REFERENCED and len(question.references) >= turn


def _text(prompt: Prompt, question: Question, said: Sequence[Sequence[str]], turn: int) -> str:
    """Fill in a prompt."""
    names = ["answer"] if len(said) == 1 else ["answer_a", "answer_b"]
    columns = [("question", question.turns), *zip(names, said, strict=True)]
    first = {name: texts[0] for name, texts in columns}
    both = {f"{name}_{place}": texts[place - 1] for name, texts in columns for place in (1, turn)}
    good = {f"ref_answer_{place}": text for place, text in enumerate(question.references, 1)}
    return prompt.prompt_template.format(**(first if turn == 1 else both), **good)
