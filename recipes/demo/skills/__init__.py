"""Small, exact skills: conversations made by seeded generators."""

from collections.abc import Iterator
from random import Random

from skills.base import Phraser, Skill, Turn
from skills.code import coding
from skills.facts import animals, calendar, capitals, colours, definitions, lists, world
from skills.numbers import (
    addition,
    comparing,
    counting,
    division,
    multiplication,
    subtraction,
    table,
    too_big,
    word_problem,
)
from skills.odd import beyond, odd
from skills.talk import creative, identity, limits, small_talk
from skills.verses import verses
from skills.words import alphabet, letters, opposites, plurals, spelling

__all__ = ["SKILLS", "Turn", "conversations", "exam", "interruptions"]

# each skill, and how often it comes up
SKILLS: dict[str, tuple[Skill, float]] = {
    "addition": (addition, 3.0),
    "subtraction": (subtraction, 2.5),
    "multiplication": (multiplication, 2.5),
    "division": (division, 1.2),
    "too_big": (too_big, 1.2),
    "table": (table, 0.4),
    "counting": (counting, 4.5),
    "comparing": (comparing, 2.0),
    "word_problem": (word_problem, 3.2),
    "spelling": (spelling, 3.0),
    "letters": (letters, 3.0),
    "alphabet": (alphabet, 1.8),
    "opposites": (opposites, 1.2),
    "plurals": (plurals, 1.0),
    "capitals": (capitals, 2.0),
    "calendar": (calendar, 1.5),
    "colours": (colours, 1.0),
    "animals": (animals, 1.0),
    "definitions": (definitions, 2.4),
    "small_talk": (small_talk, 4.5),
    "identity": (identity, 2.6),
    "creative": (creative, 1.4),
    "limits": (limits, 4.0),
    "odd": (odd, 5.0),
    "beyond": (beyond, 7.0),
    "verses": (verses, 4.0),
    "world": (world, 9.0),
    "lists": (lists, 1.5),
    "coding": (coding, 1.4),
}

DRILLED = (
    "addition",
    "subtraction",
    "multiplication",
    "division",
    "word_problem",
    "comparing",
    "counting",
    "spelling",
    "letters",
    "alphabet",
    "opposites",
    "plurals",
    "capitals",
    "calendar",
    "colours",
    "animals",
    "too_big",
)


def conversations(seed: int, held_out: bool = False) -> Iterator[list[Turn]]:
    """Yield conversations without end: skills mixed at random, or many turns of only two."""
    rng = Random(seed)
    phraser = Phraser(rng, held_out)
    while True:
        drill = rng.random() < 0.3
        names = DRILLED if drill else tuple(SKILLS)
        weights = [SKILLS[name][1] for name in names]
        if drill:
            names = rng.choices(names, weights, k=2)
            weights = [2, 1]
        count = rng.randint(6, 12) if drill else rng.choice((1, 1, 2, 3, 4, 5))
        turns: list[Turn] = []
        for name in rng.choices(names, weights, k=count):
            turns += SKILLS[name][0](phraser)
        yield turns


# what interrupts a dialogue, and how often it does
ASIDES = {
    "beyond": 7.0,
    "limits": 4.0,
    "odd": 4.0,
    "world": 5.0,
    "definitions": 3.0,
    "identity": 5.0,
    "small_talk": 3.0,
    "creative": 2.0,
    "verses": 2.0,
    "coding": 1.5,
}


def interruptions(seed: int) -> Iterator[list[Turn]]:
    """Yield one or two turns without end that have nothing to do with what was said before."""
    rng = Random(f"interruptions {seed}")
    phraser = Phraser(rng)
    names, weights = tuple(ASIDES), tuple(ASIDES.values())
    while True:
        chosen = rng.choices(names, weights, k=rng.choice((1, 1, 2)))
        yield [turn for name in chosen for turn in SKILLS[name][0](phraser)]


def exam(name: str, count: int, seed: int) -> list[list[Turn]]:
    """Return conversations of one skill, asked in the ways that training never saw."""
    phraser = Phraser(Random(f"{name}-{seed}"), held_out=True)
    return [SKILLS[name][0](phraser) for _ in range(count)]
