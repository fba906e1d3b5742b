"""Skills with words: spelling, the alphabet, plurals, opposites, first and last letters."""

from pathlib import Path
from string import ascii_lowercase

from skills.base import Phraser, Turn, pairs

WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
SHORT = [word for word in WORDS if len(word) <= 6]

SPELL = (
    "<please>spell [|out ][|the word ]{w}[| for me].",
    "spell {w}",
    "How do you spell {w}?",
    "how [do i|do I|can I|does one|do you] [spell|write] [|the word ]{w}",
    'Spell "{w}".',
    "spell '{w}'",
    "spell out {w}",
    "[the |]spelling of [|the word ]{w}",
    "{w}, letter by letter",
    "<please>spell {w} letter by letter.",
    "How is [|the word ]{w} [spelled|spelt|written]?",
    "spell {w}",
    "{w} spelling",
    "<tell>how to spell [|the word ]{w}.",
    "write {w} letter by letter",
    "Could you spell the word {w} for me?",
)
LETTERS = (
    "How many letters are [|there ]in [|the word ]{w}?",
    "how many letters does [|the word ]{w} have?",
    "[the |]number of letters in {w}",
    "How many letters [in|has|is] the word {w}?",
    "count the letters [in|of] [|the word ]{w}",
    "<tell>[how many letters are in|the number of letters in|the length of] [|the word ]{w}.",
    "how long is the word {w}?",
    "{w}: how many letters?",
    "letters in {w}",
    "length of [|the word ]{w}",
    "<please>count the letters of {w}.",
    "With how many letters do you write {w}?",
    "Tell me how many letters {w} has.",
)
REVERSE = (
    "<please>reverse [|the word |the letters of |the letters in ]{w}.",
    "reverse {w}",
    "<please>[write|spell|say|print|read] [|the word ]{w} [backwards|backward|in reverse|from back to front|the other way round].",
    "{w} [backwards|in reverse|reversed|backward]",
    "Spell {w} backwards.",
    "What is {w} [in reverse|backwards|reversed|spelled backwards]?",
    "<please>turn {w} [around|round].",
    "<please>flip [|the word |the letters of ]{w}.",
    "<please>turn the letters of {w} around.",
    "[the |]reverse of {w}",
    "how do you [spell|write] {w} backwards?",
    "Can you turn the word {w} around?",
)
OFTEN = (
    "How many {c}'s are [|there ]in [|the word ]{w}?",
    "how many {c} in {w}?",
    "how many {c}s are [|there ]in [|the word ]{w}",
    "how [often|many times] is [|the letter ]{c} in [|the word ]{w}?",
    "[|please |can you ]count the {c}'s in [|the word ]{w}",
    "count the letter {c} in {w}",
    "how many letters {c} [are in|does] {w}[| have]?",
    "how many {c} does [|the word ]{w} have?",
    "{c}'s in {w}",
    "How [often|many times] does {c} [appear|occur|come|show up] in [|the word ]{w}?",
    "How often does the letter {c} [appear|occur|come] in {w}?",
    "number of {c}s in {w}",
    "<tell>how [often|many times] {c} is in {w}.",
    "How many times does the letter {c} appear in {w}?",
)
FIRST = (
    "What is the first letter [of|in] [|the word ]{w}?",
    "[the |]first letter [of|in] [|the word ]{w}",
    "[Which|What] letter does [|the word ]{w} [start|begin] with?",
    "what letter does {w} begin with",
    "{w} [starts|begins] with which letter?",
    "<tell>the first letter of {w}.",
    "<please>[give|name|say|show] [|me ]the first letter [of|in] [|the word ]{w}.",
    "[Which|What] letter is at the [start|beginning] of {w}?",
    "with which letter does {w} [start|begin]?",
    "how does {w} start?",
    "Tell me the first letter of the word {w}.",
)
LAST = (
    "What is the last letter [of|in] [|the word ]{w}?",
    "[the |]last letter [of|in] [|the word ]{w}",
    "[Which|What] letter does [|the word ]{w} [end|stop] with?",
    "[Which|What] letter is at the end of [|the word ]{w}",
    "{w} ends with which letter?",
    "<tell>the last letter of {w}.",
    "<please>[give|name|say|show] [|me ]the last letter [of|in] [|the word ]{w}.",
    "with which letter does {w} end?",
    "[the |]final letter of {w}",
    "how does {w} end?",
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
    "<please>[say|recite|list|write|print|give me|tell me|show me|sing] the [alphabet|abc|whole alphabet|letters of the alphabet|full alphabet|English alphabet].",
    "What is the [alphabet|abc]?",
    "alphabet",
    "[the |]abc",
    "a to z",
    "[the |all |]letters [of the alphabet|from a to z]",
    "alphabet please",
    "What are the letters of the alphabet?",
    "list all letters",
    "do you know the alphabet?",
    "the whole alphabet",
    "write the alphabet",
    "say the abc",
    "Can you say the alphabet for me?",
)
ALPHABET_BACK = (
    "<please>[say|recite|list|write|print|give me|tell me|show me] the [alphabet|abc|whole alphabet|letters of the alphabet] [backwards|in reverse|in reverse order|from z to a|from the end].",
    "alphabet backwards",
    "can you say the alphabet backwards?",
    "the alphabet [from z to a|in reverse|backwards]",
    "[List|Write|Say] the letters [backwards|from z to a].",
    "z to a",
    "reverse the alphabet",
    "[the |]abc backwards",
    "reversed alphabet",
    "Can you say the alphabet backward?",
)
LETTER_AFTER = (
    "[What|Which] letter [comes|is|goes|follows|comes right|comes directly|comes next] after {c}?",
    "which letter follows {c}?",
    "[the |]letter [|right |just |directly ]after {c}",
    "<tell>[the letter|which letter comes|what letter is|which letter is] after {c}.",
    "what comes after {c} in the alphabet?",
    "[the |]next letter after {c}",
    "after {c} in the alphabet",
    "letter [that follows|following] {c}",
    "what is after the letter {c}?",
    "[What|Which letter] comes after the letter {c}?",
    "in the alphabet, what [follows|comes after] {c}?",
    "Tell me the letter right after {c}.",
)
LETTER_BEFORE = (
    "[What|Which] letter [comes|is|goes|comes right|comes directly] before {c}?",
    "which letter precedes {c}?",
    "[the |]letter [|right |just |directly ]before {c}",
    "<tell>[the letter|which letter comes|what letter is|which letter is] before {c}.",
    "what comes before {c} in the alphabet?",
    "[the |]previous letter before {c}",
    "before {c} in the alphabet",
    "letter that [precedes|is before] {c}",
    "what is before the letter {c}?",
    "[What|Which letter] comes before the letter {c}?",
    "in the alphabet, what comes before {c}?",
    "Tell me the letter right before {c}.",
)
LETTER_NUMBER = (
    "[What|Which] is letter [number |]{n} [of|in] the alphabet?",
    "[which|what] letter [is|has] number {n}[| in the alphabet| of the alphabet]?",
    "letter number {n}",
    "letter {n}",
    "what[ is|'s] the letter at [place|position] {n} [in|of] the alphabet?",
    "<tell>[which letter is number {n}|letter number {n}|what letter is at place {n}].",
    "[the |]letter [with number|at number|number] {n}[| of the alphabet]",
    "alphabet letter [number |]{n}",
    "number {n} [in|of] the alphabet",
    "<please>[give me|name|say] letter [number |]{n}.",
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
