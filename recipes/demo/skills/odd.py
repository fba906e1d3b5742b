"""Skills with odd input: other languages, keys hit at random, emoji, pasted code, anything else.

`odd.json` holds the messages by kind; `questions.txt` what people ask that the model cannot answer,
`topics.txt` things that they want explained.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from string import ascii_lowercase

from skills.base import Phraser, Turn
from skills.talk import REFUSAL

HERE = Path(__file__).parent
ODD = json.loads((HERE / "odd.json").read_text(encoding="utf-8"))
QUESTIONS = (HERE / "questions.txt").read_text(encoding="utf-8").splitlines()
TOPICS = (HERE / "topics.txt").read_text(encoding="utf-8").splitlines()

ENGLISH_ONLY = "I only know English."
UNREAD = "I am sorry, I did not understand that. Could you say it in other words?"
ABOUT = (
    "What is {x}?",
    "what's {x}?",
    "who is {x}",
    "Who was {x}?",
    "<tell>what {x} is.",
    "<please>[explain|define|describe] {x}[| in simple words| to me| briefly].",
    "tell me [more |something |all |]about {x}",
    "[what|how much] do you know about {x}?",
    "how does {x} work?",
    "{x}?",
    "{x} [explained|definition|meaning]",
    "[who|what] [invented|made|caused] {x}?",
    "why is {x} [important|famous|good|bad]?",
    "what are the [basics|parts|advantages|dangers] of {x}?",
    "what do you think [of|about] {x}?",
    "when [was|did] {x} [made|start|begin|happen]?",
    "I want to [know|learn|understand] [more about |]{x}",
    "What can you tell me about {x}?",
)


def _neighbours(items: list[str], rng: Random) -> str:
    """Return one message, or two that stand beside each other: they are of one language."""
    at = rng.randrange(len(items))
    return " ".join(items[at : at + (2 if rng.random() < 0.25 else 1)])


def _keys(rng: Random) -> str:
    """Return keys hit at random: letters, one letter again and again, digits or signs."""
    kind = rng.random()
    if kind < 0.55:
        words = ("".join(rng.choices(ascii_lowercase, k=rng.randint(3, 12))) for _ in range(9))
        return " ".join(list(words)[: rng.choice((1, 1, 1, 2, 3, 6))])
    if kind < 0.7:
        return rng.choice(ascii_lowercase) * rng.randint(2, 40)
    if kind < 0.8:
        return "".join(rng.choices("0123456789", k=rng.randint(5, 14)))
    if kind < 0.9:
        return "".join(rng.choices("asdfjkl;", k=rng.randint(4, 20)))
    return "".join(rng.choices(".,;:!?-_#*+=()[]{}<>/\\|~^%$&@'\"", k=rng.randint(1, 12)))


def _emoji(rng: Random) -> str:
    message = rng.choice(ODD["emoji"])
    return message * rng.choice((1, 1, 1, 2, 5))


def odd(phraser: Phraser) -> list[Turn]:
    """Messages that are no English sentence: the model says that it did not understand."""
    rng = phraser.rng
    makers: dict[str, tuple[Callable[[], str], str]] = {
        "foreign": (lambda: _neighbours(ODD["foreign"], rng), ENGLISH_ONLY),
        "keys": (lambda: _keys(rng), UNREAD),
        "emoji": (lambda: _emoji(rng), UNREAD),
        "pasted": (lambda: rng.choice(ODD["pasted"]), UNREAD),
        "fragment": (lambda: rng.choice(ODD["fragments"]), UNREAD),
    }
    message, answer = makers[rng.choices(tuple(makers), (4, 2, 1, 1.5, 1.5))[0]]
    return [Turn(message(), answer)]


def beyond(phraser: Phraser) -> list[Turn]:
    """Questions about anything else, which get the same refusal whatever they are about."""
    rng = phraser.rng
    kind = rng.random()
    if kind < 0.3:
        return [Turn(phraser.ask(ABOUT, x=rng.choice(TOPICS)), REFUSAL)]
    question = rng.choice(ODD["tasks"] if kind < 0.4 else QUESTIONS)
    if rng.random() < 0.3:
        question = question.lower().rstrip(".?!")
    return [Turn(question, REFUSAL)]
