"""Skills of plain talk: greetings, who the model is, stories, poems, jokes, its limits.

The questions and answers are in `talk.json`; `$able` and `$sorry` stand for phrases of several
answers.
"""

import json
from pathlib import Path
from string import Template

from skills.base import Phraser, Turn

TALK = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def _filled(answer: str) -> str:
    """Return an answer with its phrases, and the phrases in these, put in."""
    while "$" in answer:
        answer = Template(answer).substitute(TALK["words"])
    return answer


REFUSAL = _filled("$refusal")
"""The answer to everything that is beyond the model."""


def _answer(group: dict[str, str]) -> str:
    return _filled(group["answer"])


def small_talk(phraser: Phraser) -> list[Turn]:
    """Greetings, thanks, goodbyes and the small things people say."""
    groups = TALK["small_talk"]
    group = groups[0] if phraser.rng.random() < 0.15 else phraser.rng.choice(groups)
    return [Turn(phraser.ask(group["ways"]), _answer(group))]


def identity(phraser: Phraser) -> list[Turn]:
    """Who the model is, what it can do, how speculation works."""
    group = phraser.rng.choice(TALK["identity"])
    return [Turn(phraser.ask(group["ways"]), _answer(group))]


def creative(phraser: Phraser) -> list[Turn]:
    """A story, a poem, a haiku or a joke; the next ones when asked for more."""
    group = phraser.rng.choice(TALK["creative"])
    texts = group["texts"]
    turns = [Turn(phraser.ask(group["ways"]), texts[0])]
    if phraser.rng.random() < 0.3:
        more = texts[1 : phraser.rng.randint(2, len(texts))]
        turns += [Turn(phraser.ask(TALK["another"]), text) for text in more]
    return turns


def limits(phraser: Phraser) -> list[Turn]:
    """Requests that are beyond the model, answered honestly."""
    group = phraser.rng.choice(TALK["limits"])
    thing = phraser.rng.choice(group["things"])
    return [Turn(phraser.ask(group["ways"], x=thing), _answer(group))]
