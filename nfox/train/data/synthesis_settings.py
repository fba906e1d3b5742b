"""How a model's conversations with itself are made."""

from __future__ import annotations

from dataclasses import dataclass

from nfox.errors import UsageError


@dataclass(frozen=True)
class Synthesis:
    """How many conversations a model has with itself, and how.

    Args:
        count: the number of conversations.
        max_new_tokens: the maximum number of tokens of an answer.
        batch: the number of conversations that are made at a time.
        question_tokens: the maximum number of tokens of a question.
        question_temperature: the sampling temperature of questions, above 0.
        temperature: the sampling temperature of answers; 0 takes the likeliest token.
        script: the script that questions are to be in, see `question_filter`; None allows all.
        beginnings: what questions begin with, each with one of these by chance; the model writes
            the rest. By itself it asks for fewer kinds of things than people do. Without any it
            writes whole questions.
        seed: of the questions' noise.

    Raises:
        UsageError: if a number is out of range.
    """

    count: int = 4000
    max_new_tokens: int = 256
    batch: int = 32
    question_tokens: int = 128
    question_temperature: float = 1.0
    temperature: float = 0.0
    script: str | None = None
    beginnings: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.count, self.max_new_tokens, self.batch, self.question_tokens) < 1:
            raise UsageError("a number of conversations or of their tokens is below 1")
        if self.question_temperature <= 0:
            raise UsageError(
                "questions at temperature 0 would all be the same", "choose one about 1"
            )
