"""Tau and speed of answer files, by nfox's definitions and by Spec-Bench's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from nfox.decoding.stats import Stats
from nfox.errors import UsageError
from nfox.eval.answers.files import Answer, AnswerFile
from nfox.eval.bench.metrics import speedups
from nfox.eval.bench.result import ALL
from nfox.eval.bench.runner import Trial

EXPLAIN = {
    "tau": "tokens / steps, from accept_lengths where they are there, else new_tokens / (idxs + 1)",
    "tokens_per_second": "tokens / time summed over all questions; prefill is in the time",
    "mean_tokens_per_second": "mean over questions of the first choice's tokens / time, as "
    "Spec-Bench's speed.py has it",
    "speedup": "tokens_per_second / that of the baseline, over the questions that both answer",
    "mean_speedup": "the same of mean_tokens_per_second; speed.py counts the baseline's tokens by "
    "tokenising its texts again, here they are its new_tokens",
}
"""What every figure means."""


def rows(file: AnswerFile, base: AnswerFile | None = None) -> list[dict[str, Any]]:
    """Return one row for all answers of a file, and one for each category if there are several.

    Args:
        file: whose answers.
        base: answers of plain decoding.

    Raises:
        UsageError: if an answer says nothing of tokens and time, or the files share no question.
    """
    _check(file)
    shared: set[str] = set()
    if base is not None:
        _check(base)
        shared = file.answers.keys() & base.answers.keys()
        if not shared:
            raise UsageError(
                f"{file.path} and {base.path} have no question in common",
                "the baseline must have answered the same questions",
            )
    kinds = dict.fromkeys(answer.category or "" for answer in file.answers.values())
    found = []
    for kind in [ALL, *kinds] if len(kinds) > 1 else [ALL]:
        own = {
            key: answer
            for key, answer in file.answers.items()
            if kind in (ALL, answer.category or "")
        }
        compared = sorted(own.keys() & shared)
        against = _against(own, base.answers, compared) if base is not None else {}
        found.append({"model": file.model, "category": kind, **_row(own.values()), **against})
    return found


def _check(file: AnswerFile) -> None:
    for key, answer in file.answers.items():
        for choice in answer.choices:
            if not choice.seconds or not choice.tokens:
                raise UsageError(
                    f"{file.path}: question {key} has no wall_time, or no new_tokens",
                    "expected answers of a harness that measures, such as nfox bench --answers",
                )


def _row(answers: Iterable[Answer]) -> dict[str, Any]:
    listed = list(answers)
    choices = [choice for answer in listed for choice in answer.choices]
    tokens, seconds = (
        sum(choice.tokens for choice in choices),
        sum(choice.seconds for choice in choices),
    )
    counted = [(choice.emitted, choice.steps) for choice in choices if choice.steps]
    steps = sum(steps for _, steps in counted)
    return {
        "questions": len(listed),
        "tokens": tokens,
        "steps": steps,
        "tau": sum(emitted for emitted, _ in counted) / steps if steps else None,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "mean_tokens_per_second": _mean_speed(listed),
    }


def _mean_speed(answers: Iterable[Answer]) -> float:
    return mean(one.choices[0].tokens / one.choices[0].seconds for one in answers)


def _against(
    own: Mapping[str, Answer], base: Mapping[str, Answer], compared: Sequence[str]
) -> dict[str, Any]:
    """Return the speed-ups over some questions; without any they are None."""
    names = ("speedup", "speedup_low", "speedup_high", "mean_speedup")
    if not compared:
        return {"compared": 0, **dict.fromkeys(names)}
    sides = [[answers[key] for key in compared] for answers in (own, base)]
    ratio = _mean_speed(sides[0]) / _mean_speed(sides[1])
    speeds = (*speedups(_trials(sides[0]), _trials(sides[1])), ratio)
    return {"compared": len(compared), **dict(zip(names, speeds, strict=True))}


def _trials(answers: Sequence[Answer]) -> list[Trial]:
    """Return one trial for each question, with all its choices in it."""
    return [
        Trial("", task, 0, [], [Stats(tokens=one.tokens, seconds=one.seconds)
                                for one in answer.choices], 0)
        for task, answer in enumerate(answers)
    ]  # fmt: skip
