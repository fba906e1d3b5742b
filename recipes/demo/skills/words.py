"""Skills with words: spelling, the alphabet, plurals, opposites, first and last letters."""

from pathlib import Path
from string import ascii_lowercase

from skills.base import Phraser, Turn, pairs

WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
SHORT = [word for word in WORDS if len(word) <= 6]

SPELL = (
    "Spell {w}.",
    "spell {w}",
    "How do you spell {w}?",
    "how do i spell {w}",
    "Spell the word {w}.",
    "Can you spell {w}?",
    'Spell "{w}".',
    "spell out {w}",
    "spelling of {w}",
    "{w}, letter by letter",
    "Spell {w} letter by letter.",
    "How is {w} spelled?",
    "Could you spell the word {w} for me?",
)
LETTERS = (
    "How many letters are in {w}?",
    "how many letters does {w} have?",
    "number of letters in {w}",
    "How many letters in the word {w}?",
    "count the letters in {w}",
    "Tell me how many letters {w} has.",
)
REVERSE = (
    "Reverse the word {w}.",
    "reverse {w}",
    "Write {w} backwards.",
    "{w} backwards",
    "Spell {w} backwards.",
    "What is {w} in reverse?",
    "Can you turn the word {w} around?",
)
OFTEN = (
    "How many {c}'s are in {w}?",
    "how many {c} in {w}?",
    "how many {c}s are there in {w}",
    "how often is {c} in {w}?",
    "count the {c}s in {w}",
    "how many letters {c} are in {w}?",
    "How many times does the letter {c} appear in {w}?",
)
FIRST = (
    "What is the first letter of {w}?",
    "first letter of {w}",
    "Which letter does {w} start with?",
    "what letter does {w} begin with",
    "Tell me the first letter of the word {w}.",
)
LAST = (
    "What is the last letter of {w}?",
    "last letter of {w}",
    "Which letter does {w} end with?",
    "what letter is at the end of {w}",
    "Tell me the last letter of the word {w}.",
)


def spelling(phraser: Phraser) -> list[Turn]:
    """Spelling a word letter by letter."""
    word = phraser.rng.choice(WORDS)
    return [Turn(phraser.ask(SPELL, w=word), f"{'-'.join(word)}.")]


def letters(phraser: Phraser) -> list[Turn]:
    """How many letters, the first, the last, and the word turned around; each spelled first."""
    rng = phraser.rng
    word = rng.choice(WORDS)
    spelled = "-".join(word)
    kind = rng.choice(("count", "reverse", "first", "last", "how often"))
    if kind == "count":
        answer = f"{spelled}: {len(word)} letters."
        return [Turn(phraser.ask(LETTERS, w=word), answer)]
    if kind == "reverse":
        word = rng.choice(SHORT)
        answer = f"{'-'.join(word)} backwards is {'-'.join(reversed(word))}."
        return [Turn(phraser.ask(REVERSE, w=word), answer)]
    if kind == "first":
        return [Turn(phraser.ask(FIRST, w=word), f"{spelled} starts with {word[0]}.")]
    if kind == "last":
        return [Turn(phraser.ask(LAST, w=word), f"{spelled} ends with {word[-1]}.")]
    letter = rng.choice(word if rng.random() < 0.9 else "aeiorst")
    answer = f"{spelled}: the letter {letter} is there {_times(word.count(letter))}."
    return [Turn(phraser.ask(OFTEN, w=word, c=letter), answer)]


def _times(count: int) -> str:
    return ("no times", "once", "twice")[count] if count < 3 else f"{count} times"


ALPHABET = (
    "Say the alphabet.",
    "What is the alphabet?",
    "alphabet",
    "Recite the alphabet.",
    "a to z",
    "List the letters of the alphabet.",
    "write the alphabet",
    "Tell me the abc.",
    "Give me the whole alphabet, a to z.",
    "Can you say the alphabet for me?",
)
ALPHABET_BACK = (
    "Say the alphabet backwards.",
    "alphabet backwards",
    "can you say the alphabet backwards?",
    "Recite the alphabet in reverse.",
    "the alphabet from z to a",
    "List the letters backwards.",
    "Can you say the alphabet backward?",
)
LETTER_AFTER = (
    "What letter comes after {c}?",
    "which letter follows {c}?",
    "letter after {c}",
    "tell me the letter after {c}",
    "what comes after {c} in the alphabet?",
    "next letter after {c}",
    "Tell me the letter right after {c}.",
)
LETTER_BEFORE = (
    "What letter comes before {c}?",
    "which letter is before {c}?",
    "letter before {c}",
    "tell me the letter before {c}",
    "what comes before {c} in the alphabet?",
    "Tell me the letter right before {c}.",
)
LETTER_NUMBER = (
    "What is letter number {n} of the alphabet?",
    "which letter is number {n}?",
    "letter number {n}",
    "what's the letter at place {n} in the alphabet?",
    "Tell me letter {n} of the alphabet.",
)


def alphabet(phraser: Phraser) -> list[Turn]:
    """The alphabet both ways, neighbours of a letter, the n-th letter."""
    rng = phraser.rng
    kind = rng.choice(("all", "back", "after", "before", "number"))
    if kind == "all":
        return [Turn(phraser.ask(ALPHABET), f"{', '.join(ascii_lowercase)}.")]
    if kind == "back":
        return [Turn(phraser.ask(ALPHABET_BACK), f"{', '.join(reversed(ascii_lowercase))}.")]
    at = rng.randrange(1, 25)
    letter = ascii_lowercase[at]
    shown = letter.upper() if rng.random() < 0.5 else letter
    if kind == "after":
        answer = f"{ascii_lowercase[at + 1].upper()} comes after {letter.upper()}."
        return [Turn(phraser.ask(LETTER_AFTER, c=shown), answer)]
    if kind == "before":
        answer = f"{ascii_lowercase[at - 1].upper()} comes before {letter.upper()}."
        return [Turn(phraser.ask(LETTER_BEFORE, c=shown), answer)]
    return [Turn(phraser.ask(LETTER_NUMBER, n=at + 1), f"Letter {at + 1} is {letter.upper()}.")]


OPPOSITES = pairs(
    "hot/cold big/small up/down left/right day/night good/bad happy/sad fast/slow old/young "
    "open/closed black/white light/dark high/low long/short rich/poor hard/soft early/late "
    "full/empty wet/dry strong/weak loud/quiet near/far inside/outside first/last love/hate "
    "win/lose buy/sell begin/end yes/no true/false clean/dirty easy/difficult thick/thin "
    "wide/narrow sweet/sour heavy/light always/never summer/winter push/pull above/below "
    "front/back east/west north/south start/stop more/less in/out on/off tall/short"
)
OPPOSITE = (
    "What is the opposite of {w}?",
    "opposite of {w}",
    "Tell me the opposite of {w}.",
    "opposite of the word {w}",
    "what's the opposite of {w}?",
    "Give me the opposite of {w}.",
    "the opposite of {w} is",
    "antonym of {w}",
    "which word is the opposite of {w}?",
    "Tell me the opposite of the word {w}.",
)
PLURALS = pairs(
    "cat/cats dog/dogs book/books car/cars house/houses tree/trees apple/apples box/boxes "
    "bus/buses fox/foxes dish/dishes watch/watches baby/babies city/cities story/stories "
    "party/parties leaf/leaves knife/knives wolf/wolves wife/wives life/lives man/men "
    "woman/women child/children foot/feet tooth/teeth goose/geese mouse/mice sheep/sheep "
    "fish/fish deer/deer person/people potato/potatoes tomato/tomatoes hero/heroes day/days "
    "boy/boys key/keys toy/toys glass/glasses class/classes shelf/shelves half/halves ox/oxen"
)
PLURAL = (
    "What is the plural of {w}?",
    "plural of {w}",
    "Tell me the plural of {w}.",
    "plural of the word {w}",
    "what's the plural of {w}?",
    "Give me the plural of {w}.",
    "one {w}, two what?",
    "plural form of {w}",
    "how do you say more than one {w}?",
    "Tell me the plural of the word {w}.",
)
WHAT_OF = ("And of {w}?", "and of {w}", "what about {w}?", "and {w}?")


def opposites(phraser: Phraser) -> list[Turn]:
    """The opposite of a common word, sometimes of two in a row."""
    one, two = phraser.rng.sample(sorted(OPPOSITES), 2)
    turns = [
        Turn(phraser.ask(OPPOSITE, w=one), f"The opposite of {one} is {OPPOSITES[one]}."),
        Turn(phraser.ask(WHAT_OF, w=two), f"The opposite of {two} is {OPPOSITES[two]}."),
    ]
    return turns if phraser.rng.random() < 0.2 else turns[:1]


def plurals(phraser: Phraser) -> list[Turn]:
    """The plural of a common noun, sometimes of two in a row."""
    one, two = phraser.rng.sample(sorted(PLURALS), 2)
    turns = [
        Turn(phraser.ask(PLURAL, w=one), f"The plural of {one} is {PLURALS[one]}."),
        Turn(phraser.ask(WHAT_OF, w=two), f"The plural of {two} is {PLURALS[two]}."),
    ]
    return turns if phraser.rng.random() < 0.2 else turns[:1]
