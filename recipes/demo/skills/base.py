"""What every skill is made of: turns, and questions asked the way people type them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

SLOT = re.compile(r"(\{[^}]*\})")
FRAGMENT = re.compile(r"<(\w+)>")
FRAGMENTS = {
    "please": "[|Can you |Could you |Please |Would you |Can you please |Could you please "
    "|I want you to ]",
    "tell": "[|Tell me |Can you tell me |Could you tell me |Do you know |Please tell me "
    "|I want to know |I would like to know ]",
    "give": "[Give me|Show me|Tell me|List|Write|Name|Print|Can you give me|Could you list"
    "|Please write|I want|Say|Can you say|Can you name|Could you print]",
}
CHOICE = re.compile(r"\[([^\[\]]*)\]")
ASKS = re.compile(r"(can|could|would|do|does|is|are|am|what|which|who|how|should)\b", re.IGNORECASE)
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
        """Fill one of `ways` with `slots` and rough it up as a person in a hurry would.

        A way may hold choices: "[Can you |Please |]count to {b}." stands for three ways;
        "<please>" stands for a fragment that many ways share.
        """
        if len(ways) > 3:
            ways = ways[-1:] if self.held_out else ways[:-1]
        template = self._choose(self.rng.choice(ways))
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

    def _choose(self, way: str) -> str:
        """Put fragments in, take one of each "[...|...]", and end a question as a question."""
        way = FRAGMENT.sub(lambda match: FRAGMENTS[match[1]], way)
        text = CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), way)
        text = " ".join(text.split()) or "?"
        if text.endswith(".") and ASKS.match(text):
            text = text[:-1] + "?"
        return text[0].upper() + text[1:] if text.endswith((".", "?")) else text

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
    """Return the dictionary of a text of "key/value" items between separators."""
    return dict(item.split("/") for item in text.split(separator))


Skill = Callable[[Phraser], list[Turn]]
