"""What every skill is made of: turns, and questions asked the way people type them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

SLOT = re.compile(r"(\{[^}]*\})")
OPENERS = (
    "hey, ",
    "hi, ",
    "ok, ",
    "please ",
    "so ",
    "now ",
    "and ",
    "tell me: ",
    "can you tell me: ",
    "could you tell me: ",
    "please tell me: ",
    "i want to know: ",
    "next question: ",
    "easy one: ",
    "next: ",
    "one more question: ",
    "question: ",
    "could you help me? ",
    "hello, ",
    "nfox, ",
)
CLOSERS = (" please", " pls", " plz", " thanks", " for me", " for me please", "?", " ??", " !")


@dataclass(frozen=True)
class Turn:
    """One question and the exact answer to it."""

    question: str
    answer: str


class Phraser:
    """Asks questions in many ways; the last way of each list is kept for the evaluation."""

    def __init__(self, rng: Random, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def ask(self, ways: Sequence[str], **slots: object) -> str:
        """Fill one of `ways` with `slots` and rough it up as a person in a hurry would."""
        if len(ways) > 3:
            ways = ways[-1:] if self.held_out else ways[:-1]
        template = self.rng.choice(ways)
        lower = self.rng.random() < 0.45
        if not self.held_out and self.rng.random() < 0.08:
            template = self._typo(template)
        if self.rng.random() < 0.4:
            template = template.rstrip("?.!")
            if self.rng.random() < 0.25:
                template += self.rng.choice(CLOSERS)
        if self.rng.random() < 0.15:
            template = self.rng.choice(OPENERS) + template[0].lower() + template[1:]
        text = template.format(**slots)
        return text.lower() if lower else text

    def _typo(self, template: str) -> str:
        """Swap two neighbouring letters of one longer word outside the slots."""
        parts = SLOT.split(template)
        spots = [
            (i, match.start())
            for i, part in enumerate(parts)
            if not SLOT.fullmatch(part)
            for match in re.finditer(r"(?<=[a-z])[a-z](?=[a-z]{2})", part)
        ]
        if spots:
            i, at = self.rng.choice(spots)
            part = parts[i]
            parts[i] = part[:at] + part[at + 1] + part[at] + part[at + 2 :]
        return "".join(parts)


def pairs(text: str, separator: str | None = None) -> dict[str, str]:
    """A small dictionary written as "key/value" items between separators."""
    return dict(item.split("/") for item in text.split(separator))


Skill = Callable[[Phraser], list[Turn]]
