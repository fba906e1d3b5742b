"""Poems, stories and haiku by subject, which are in `verses.json`."""

import json
from pathlib import Path

from skills.base import Phraser, Turn
from skills.talk import TALK
from skills.words import WORDS

VERSES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
WAYS = (
    "<please>[write|make|compose|create] [me |]a [|short |little |nice ][{kind}] [about|on] {x}.",
    "[a |]{kind} about {x}",
    "{kind} about {x}[| please]",
    "[write|tell me|give me] a {kind} about {x}",
    "[I|i] [want|need|would like] a {kind} [about|on] {x}",
    "[do you know|have you got] a {kind} about {x}?",
    "[now |]a [|short ]{kind} [about|on] {x}[| for me|, please]",
    "[can|could] you [write|make|tell] [me |]a {kind} about {x}?",
    "[can|could] I have a {kind} about {x}?",
    "Please let me have a {kind} about {x}.",
)


def verses(phraser: Phraser) -> list[Turn]:
    """A text about a subject; about a fox where the subject is not among those known by heart."""
    rng = phraser.rng
    kind = rng.choices(("poem", "story", "haiku"), (3, 2.5, 1.5))[0]
    if rng.random() < 0.9:
        subject = rng.choice(tuple(VERSES[kind]))
        return [Turn(phraser.ask(WAYS, kind=kind, x=subject), VERSES[kind][subject])]
    words = [word for word in WORDS if not any(word in known for known in VERSES[kind])]
    subject = f"{rng.choice(('a', 'my', 'the'))} {rng.choice(words)}"
    plain = next(group for group in TALK["creative"] if group["ways"][0].endswith(f" {kind}."))
    answer = f"I do not know a {kind} about that. Here is one about a fox:\n{plain['texts'][0]}"
    return [Turn(phraser.ask(WAYS, kind=kind, x=subject), answer)]
