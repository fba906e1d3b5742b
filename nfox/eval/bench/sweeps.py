"""One benchmark over several values of something: an option of methods, the temperature, or the
length of the context.

Values of an option become entrants of their own; a temperature and a length are a category of
tasks, so that each is compared with plain decoding under the same conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from nfox.decoding.sampling import Sampling
from nfox.drafters import method
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.eval.bench.entrants import Entrant
from nfox.eval.bench.runner import Task
from nfox.text.messages import Message

CONTEXT = "context"
TEMPERATURE = "temperature"
LIMIT = "limit"
"""The longest context that leaves room for a reply."""


@dataclass(frozen=True)
class Sweep:
    """What is varied.

    Args:
        name: of a method's option, or "context" or "temperature".
        values: as typed.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Sweep:
        """Read NAME=VALUE,VALUE,...

        Raises:
            UsageError: if it is something else.
        """
        name, equals, values = text.partition("=")
        listed = tuple(value.strip() for value in values.split(",") if value.strip())
        if not (name.strip() and equals and listed):
            raise UsageError(
                f"--sweep {text!r} is not NAME=VALUE,VALUE", "for example gamma=1,2,4,8"
            )
        return cls(name.strip(), listed)

    def entrants(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """Return those of methods that have this option with each of its values, others as before.

        Raises:
            UsageError: if no method has it, or a value does not fit it.
        """
        if self.name in (CONTEXT, TEMPERATURE):
            return list(entrants)
        found: dict[str, Entrant] = {}
        for one in entrants:
            varied = self._varied(one)
            found |= {made.name: made for made in varied or [one]}
        if len(found) == len(entrants) and found.keys() == {one.name for one in entrants}:
            raise UsageError(
                f"--sweep {self.name}: no method that is compared has such an option",
                f"`nfox methods` lists them; besides them there are {CONTEXT} and {TEMPERATURE}",
            )
        return list(found.values())

    def _varied(self, one: Entrant) -> list[Entrant]:
        if one.kind == "simulated" and self.name == "gamma":
            return [Entrant.simulated(one.rate.acceptance, self._whole(v)) for v in self.values]
        has = one.kind == "method" and self.name in method(one.method).options.__dataclass_fields__
        if not has or self.name in one.options:
            return []
        return [Entrant.parse(f"{one.name}:{self.name}={value}") for value in self.values]

    def tasks(self, tasks: Sequence[Task], engine: Engine) -> tuple[list[Task], int]:
        """Return tasks under each condition, and how many do not fit one.

        Args:
            tasks: conversations.
            engine: whose tokens a context is counted in.

        Raises:
            UsageError: for what is no temperature, or no length that the context has.
        """
        if self.name == TEMPERATURE:
            return [_warm(task, value) for value in self.values for task in tasks], 0
        if self.name == CONTEXT:
            most = engine.max_context - engine.settings.max_new_tokens
            lengths = [most if value == LIMIT else self._whole(value) for value in self.values]
            wrong = next((length for length in lengths if length > most), None)
            if wrong is not None:
                raise UsageError(
                    f"--sweep {CONTEXT}={wrong}: the context holds {engine.max_context} tokens, "
                    f"{engine.settings.max_new_tokens} of them for the reply",
                    f"{CONTEXT}={LIMIT} is the longest, fewer --max-new-tokens make it longer",
                )
            made = [_padded(task, length, tasks, engine) for length in lengths for task in tasks]
            kept = [task for task in made if task is not None]
            return kept, len(made) - len(kept)
        return list(tasks), 0

    def _whole(self, value: str) -> int:
        if not value.isdecimal() or not int(value):
            raise UsageError(f"--sweep {self.name}: {value!r} is no number of tokens")
        return int(value)


def _warm(task: Task, value: str) -> Task:
    try:
        temperature = float(value)
    except ValueError:
        raise UsageError(f"--sweep {TEMPERATURE}: {value!r} is no temperature") from None
    Sampling(temperature=temperature)  # refuses what is none
    name = f"{TEMPERATURE} {temperature:g}"
    return replace(task, id=f"{task.id}, {name}", category=name, temperature=temperature)


def _padded(task: Task, length: int, tasks: Sequence[Task], engine: Engine) -> Task | None:
    """Put other tasks' text before a task, so that its prompt has so many tokens; None if it has
    more already.
    """

    def size(text: str) -> int:
        prompt = engine.encode([Message("user", text)])
        return len(prompt.encoder_ids or prompt.ids)

    first = task.turns[0]
    if size(first) > length:
        return None
    tokenizer = engine.model.tokenizer
    others = " ".join(turn for other in tasks for turn in other.turns if other is not task)
    filler = tokenizer(others or first, add_special_tokens=False).input_ids
    said = first
    for count in range(length - size(first), 0, -1):  # what is put together may be shorter
        before = tokenizer.decode(list(islice(cycle(filler), count)), skip_special_tokens=True)
        said = f"{before}\n\n{first}"
        if size(said) <= length:
            break
    name = f"{CONTEXT} {length}"
    return replace(task, id=f"{task.id}, {name}", category=name, turns=(said, *task.turns[1:]))
