"""A benchmark over several values: of an option of methods, of the temperature, or of the context's
length.

Values of an option become entrants of their own; a temperature and a length are a category of
tasks, so that each is compared with plain decoding under the same conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from nfox.decoding.sampling import Sampling
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.eval.bench.entrants import Entrant, token_count
from nfox.eval.bench.trials import Task
from nfox.text.messages import Message

CONTEXT = "context"
TEMPERATURE = "temperature"
LIMIT = "limit"
"""The longest context that leaves room for a reply."""


@dataclass(frozen=True)
class Sweep:
    """What is varied, and over which values.

    Args:
        name: of a method's option, or "context" or "temperature".
        values: as they were typed.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Sweep:
        """Read NAME=VALUE,VALUE,...

        Raises:
            UsageError: if it is something else.
        """
        name, equals, listed = text.partition("=")
        values = tuple(value.strip() for value in listed.split(",") if value.strip())
        if not (name.strip() and equals and values):
            raise UsageError(
                f"--sweep {text!r} is not NAME=VALUE,VALUE", "for example gamma=1,2,4,8"
            )
        return cls(name.strip(), values)

    def entrants(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """Return entrants of methods that have the option with each value, the others as before.

        Raises:
            UsageError: if no method has the option, or a value does not fit it.
        """
        if self.name in (CONTEXT, TEMPERATURE):
            return list(entrants)
        swept = {
            varied.name: varied
            for entrant in entrants
            for varied in entrant.varied(self.name, self.values) or [entrant]
        }
        if len(swept) == len(entrants) and swept.keys() == {entrant.name for entrant in entrants}:
            raise UsageError(
                f"--sweep {self.name}: no method that is compared has such an option",
                f"`nfox methods` lists them; besides them there are {CONTEXT} and {TEMPERATURE}",
            )
        return list(swept.values())

    def tasks(self, tasks: Sequence[Task], engine: Engine) -> tuple[list[Task], int]:
        """Return tasks under each condition, and the number of those that do not fit one.

        Args:
            tasks: conversations.
            engine: whose tokens a context is counted in.

        Raises:
            UsageError: for what is no temperature, or no length that the context has.
        """
        if self.name == TEMPERATURE:
            return [_at_temperature(task, value) for value in self.values for task in tasks], 0
        if self.name == CONTEXT:
            longest = engine.max_context - engine.settings.max_new_tokens
            lengths = [
                longest if value == LIMIT else token_count(f"--sweep {CONTEXT}", value)
                for value in self.values
            ]
            wrong = next((length for length in lengths if length > longest), None)
            if wrong is not None:
                raise UsageError(
                    f"--sweep {CONTEXT}={wrong}: the context holds {engine.max_context} tokens, "
                    f"{engine.settings.max_new_tokens} of them for the reply",
                    f"{CONTEXT}={LIMIT} is the longest, fewer --max-new-tokens make it longer",
                )
            padded = [_padded(task, length, tasks, engine) for length in lengths for task in tasks]
            fitting = [task for task in padded if task is not None]
            return fitting, len(padded) - len(fitting)
        return list(tasks), 0


def _at_temperature(task: Task, value: str) -> Task:
    try:
        temperature = float(value)
    except ValueError:
        raise UsageError(f"--sweep {TEMPERATURE}: {value!r} is no temperature") from None
    Sampling(temperature=temperature)  # refuses what is none
    category = f"{TEMPERATURE} {temperature:g}"
    return replace(task, id=f"{task.id}, {category}", category=category, temperature=temperature)


def _padded(task: Task, length: int, tasks: Sequence[Task], engine: Engine) -> Task | None:
    """Return a task with the text of other tasks before it, so that its prompt has `length` tokens
    or a few less; None if it has more already.
    """

    def prompt_length(text: str) -> int:
        return engine.encode([Message("user", text)]).length

    first = task.turns[0]
    if prompt_length(first) > length:
        return None
    tokenizer = engine.model.tokenizer
    others = " ".join(turn for other in tasks for turn in other.turns if other is not task)
    filler = tokenizer(others or first, add_special_tokens=False).input_ids
    text = first
    for count in range(length - prompt_length(first), 0, -1):  # the joined text may be shorter
        before = tokenizer.decode(list(islice(cycle(filler), count)), skip_special_tokens=True)
        text = f"{before}\n\n{first}"
        if prompt_length(text) <= length:
            break
    category = f"{CONTEXT} {length}"
    return replace(
        task, id=f"{task.id}, {category}", category=category, turns=(text, *task.turns[1:])
    )
