"""Skills of plain facts: capitals, the calendar, colours, animals, a few definitions."""

import json
import re
from pathlib import Path

from skills.base import Phraser, Turn, pairs

QUESTION = re.compile(
    r"(why|how|what|who|when|which|where|in which|at what|at which|do|is|does)\b", re.IGNORECASE
)
MORE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

CAPITALS = pairs(
    "France/Paris,Germany/Berlin,Spain/Madrid,Italy/Rome,Portugal/Lisbon,England/London,"
    "the United Kingdom/London,Scotland/Edinburgh,Ireland/Dublin,Belgium/Brussels,"
    "the Netherlands/Amsterdam,Switzerland/Bern,Austria/Vienna,Poland/Warsaw,"
    "the Czech Republic/Prague,Hungary/Budapest,Greece/Athens,Turkey/Ankara,Russia/Moscow,"
    "Ukraine/Kyiv,Sweden/Stockholm,Norway/Oslo,Denmark/Copenhagen,Finland/Helsinki,"
    "Iceland/Reykjavik,Romania/Bucharest,Bulgaria/Sofia,Croatia/Zagreb,Serbia/Belgrade,"
    "Slovakia/Bratislava,Slovenia/Ljubljana,Estonia/Tallinn,Latvia/Riga,Lithuania/Vilnius,"
    "the United States/Washington D.C.,the USA/Washington D.C.,Canada/Ottawa,"
    "Mexico/Mexico City,Brazil/Brasilia,Argentina/Buenos Aires,Chile/Santiago,Peru/Lima,"
    "Colombia/Bogota,Venezuela/Caracas,Cuba/Havana,China/Beijing,Japan/Tokyo,"
    "South Korea/Seoul,India/New Delhi,Pakistan/Islamabad,Thailand/Bangkok,Vietnam/Hanoi,"
    "Indonesia/Jakarta,Malaysia/Kuala Lumpur,the Philippines/Manila,Iran/Tehran,Iraq/Baghdad,"
    "Saudi Arabia/Riyadh,Egypt/Cairo,Morocco/Rabat,Algeria/Algiers,Kenya/Nairobi,"
    "Ethiopia/Addis Ababa,Ghana/Accra,Nigeria/Abuja,Australia/Canberra,"
    "New Zealand/Wellington,Nepal/Kathmandu",
    ",",
)
CAPITAL = (
    "What is the capital of {c}?",
    "capital of {c}",
    "what's the capital of {c}?",
    "{c} capital",
    "Which city is the capital of {c}?",
    "the capital of {c}",
    "tell me the capital of {c}",
    "Do you know the capital of {c}?",
    "name the capital of {c}",
    "what is the capital city of {c}",
    "Could you tell me what the capital of {c} is?",
)
AND_OF = ("And of {c}?", "and {c}?", "what about {c}?", "And the capital of {c}?", "how about {c}?")
CITY_OF = (
    "{t} is the capital of which country?",
    "which country has the capital {t}?",
    "{t} is the capital of what?",
    "Of which country is {t} the capital?",
)


def _capital(country: str) -> str:
    return f"The capital of {country} is {CAPITALS[country].rstrip('.')}."


def capitals(phraser: Phraser) -> list[Turn]:
    """The capital of a country, sometimes a second one, sometimes the other way round."""
    rng = phraser.rng
    one, two = rng.sample(list(CAPITALS), 2)
    if rng.random() < 0.1:
        one = rng.choice([c for c in CAPITALS if c[0].isupper() and c != "England"])
        answer = f"{CAPITALS[one]} is the capital of {one}."
        return [Turn(phraser.ask(CITY_OF, t=CAPITALS[one]), answer)]
    turns = [Turn(phraser.ask(CAPITAL, c=one), _capital(one))]
    if rng.random() < 0.25:
        turns.append(Turn(phraser.ask(AND_OF, c=two), _capital(two)))
    return turns


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
LIST_DAYS = (
    "[What are|Which are|Tell me|Name|List|Give me|Say|Can you name|Can you list|Could you list|Please list|Write] [the|all|all the] [days of the week|weekdays|days in a week|seven days of the week|days of a week].",
    "days of the week",
    "weekdays",
    "list the days",
    "the days of the week[|, in order| please]",
    "what are the days of the week?",
    "Monday, Tuesday and so on",
    "which days does a week have?",
    "what days are there in a week?",
    "Can you list all days of the week?",
)
LIST_MONTHS = (
    "[What are|Which are|Tell me|Name|List|Give me|Say|Can you name|Can you list|Could you list|Please list|Write] [the|all|all the] [months of the year|months|months in a year|twelve months|months of a year|12 months].",
    "months of the year",
    "months",
    "list the months",
    "the months of the year[|, in order| please]",
    "what are the months of the year?",
    "which months does a year have?",
    "what months are there in a year?",
    "Can you list the months of the year?",
)
AFTER = (
    "What comes [after|next after|right after] {x}?",
    "[which|what] {kind} [comes|is|follows|comes right|comes next] after {x}?",
    "[the |]{kind} [|right |just ]after {x}",
    "what {kind} is after {x}",
    "which {kind} follows {x}?",
    "<tell>[the {kind}|which {kind} is|which {kind} comes|what comes] [|right |directly ]after {x}.",
    "after {x}",
    "[the |]next {kind} after {x}",
    "what follows {x}?",
    "{x}: what [comes|is] next?",
    "and after {x}?",
    "Tell me the {kind} after {x}.",
)
BEFORE = (
    "What comes [before|right before|just before] {x}?",
    "[which|what] {kind} [comes|is|comes right] before {x}?",
    "[the |]{kind} [|right |just ]before {x}",
    "what {kind} is before {x}",
    "which {kind} precedes {x}?",
    "<tell>[the {kind} right|which {kind} is|which {kind} comes|what comes] before {x}.",
    "before {x}",
    "[the |]previous {kind} before {x}",
    "what is before {x}?",
    "and before {x}?",
    "Tell me the {kind} before {x}.",
)
DAYS_IN = (
    "How many days are [|there ]in {x}?",
    "how many days does {x} have?",
    "days in {x}",
    "[the |]number of days in {x}",
    "how long is {x}?",
    "how many days has {x}?",
    "<tell>[how many days are in|the number of days in] {x}.",
    "how many days [are there |]in the month of {x}?",
    "{x}: how many days?",
    "length of {x} [in days|]",
    "does {x} have 30 or 31 days?",
    "Tell me how many days {x} has.",
)
TOMORROW = (
    "If today is {x}, [what|which] [day |]is tomorrow?",
    "[today is {x}|Today is {x}]. [what|which day] is tomorrow?",
    "today is {x}, what is tomorrow?",
    "if it is {x} today, what day is tomorrow",
    "[what|which] day is tomorrow if today is {x}?",
    "it's {x} today. what day will it be tomorrow?",
    "It is {x}. [What|Which day] is tomorrow?",
    "If it is {x} today, which day is tomorrow?",
)


def calendar(phraser: Phraser) -> list[Turn]:
    """Weekdays and months: all of them, neighbours, and how many days a month has."""
    rng = phraser.rng
    kind = rng.choice(("days", "months", "after", "before", "length", "tomorrow"))
    if kind == "days":
        return [Turn(phraser.ask(LIST_DAYS), f"{', '.join(DAYS)}.")]
    if kind == "months":
        return [Turn(phraser.ask(LIST_MONTHS), f"{', '.join(MONTHS)}.")]
    if kind == "length":
        at = rng.randrange(12)
        answer = f"{MONTHS[at]} has {LENGTHS[at]} days."
        if at == 1:
            answer = "February has 28 days, and 29 in a leap year."
        return [Turn(phraser.ask(DAYS_IN, x=MONTHS[at]), answer)]
    if kind == "tomorrow":
        at = rng.randrange(7)
        answer = f"Tomorrow is {DAYS[(at + 1) % 7]}."
        return [Turn(phraser.ask(TOMORROW, x=DAYS[at]), answer)]
    names, noun = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    at = rng.randrange(len(names))
    step, ways = (1, AFTER) if kind == "after" else (-1, BEFORE)
    answer = f"{names[(at + step) % len(names)]} comes {kind} {names[at]}."
    return [Turn(phraser.ask(ways, x=names[at], kind=noun), answer)]


COLOURS = pairs(
    "the sky/blue,grass/green,snow/white,coal/black,a banana/yellow,a lemon/yellow,blood/red,"
    "a tomato/red,the sun/yellow,the sea/blue,milk/white,chocolate/brown,a carrot/orange,"
    "a pumpkin/orange,a fox/red,a crow/black,a frog/green,a leaf/green,a strawberry/red,"
    "a polar bear/white,a flamingo/pink,salt/white",
    ",",
)
COLOUR = (
    "[What|Which] [colour|color] [is|has] {x}?",
    "what color is {x}?",
    "[the |][colour|color] of {x}",
    "[which|what] [colour|color] does {x} have?",
    "what is the [colour|color] of {x}",
    "{x} [colour|color]",
    "which colour is {x}?",
    "<tell>what [colour|color] {x} [is|has].",
    "what does {x} look like, which [color|colour]?",
    "<tell>the color of {x}.",
    "is {x} red or blue or what color?",
    "Tell me the colour of {x}.",
)
MIXES = {
    "blue and yellow": "green",
    "red and yellow": "orange",
    "red and blue": "purple",
    "red and white": "pink",
    "black and white": "grey",
}
MIX = (
    "What do {x} [make|give|become]?",
    "what [colour|color] do {x} [make|give|become]?",
    "[|please |can you ]mix {x}",
    "[what|which] [color|colour] do you get from {x}?",
    "what [|colour |color ]do [I|you|we] get [if|when] [I|you|we] mix {x}?",
    "{x} mixed",
    "{x} together make what [colour|color]?",
    "mixing {x}",
    "[what|which colour|which color] comes from mixing {x}?",
    "what is {x} mixed?",
    "what happens when you mix {x}?",
    "Which colour do I get when I mix {x}?",
)
RAINBOW = (
    "What are the [colours|colors] [of|in] [the|a] rainbow?",
    "[colours|colors] of the rainbow",
    "rainbow [colours|colors]",
    "[Name|Tell me|Give me|Say|Show me] the [colours|colors] [of|in] [the|a] rainbow.",
    "[which|what] [colours|colors] [are in|does] a rainbow[| have]?",
    "list the rainbow [colors|colours]",
    "what [colors|colours] does the rainbow have?",
    "the rainbow, which [colors|colours]?",
    "rainbow",
    "all the [colours|colors] of the rainbow",
    "<please>[list|name|tell me] [the|all] [colors|colours] of the rainbow.",
    "List the colours of a rainbow.",
)


def colours(phraser: Phraser) -> list[Turn]:
    """The colour of things, mixed colours, the rainbow."""
    rng = phraser.rng
    kind = rng.choice(("thing", "thing", "mix", "rainbow"))
    if kind == "rainbow":
        answer = "Red, orange, yellow, green, blue, indigo and violet."
        return [Turn(phraser.ask(RAINBOW), answer)]
    if kind == "mix":
        pair = rng.choice(tuple(MIXES))
        return [Turn(phraser.ask(MIX, x=pair), f"Mixing {pair} makes {MIXES[pair]}.")]
    thing = rng.choice(tuple(COLOURS))
    name = thing[0].upper() + thing[1:]
    return [Turn(phraser.ask(COLOUR, x=thing), f"{name} is {COLOURS[thing]}.")]


SOUNDS = pairs(
    "dog/woof cat/meow cow/moo sheep/baa pig/oink duck/quack horse/neigh lion/roar bee/buzz "
    "frog/croak owl/hoot mouse/squeak snake/hiss wolf/howl rooster/cock-a-doodle-doo"
)
SOUND = (
    "What does [a|the] {x} say?",
    "what [sound|noise] does [a|the] {x} make?",
    "{x} [sound|noise]",
    "[the |][sound|noise] of a {x}",
    "what do {x}s say?",
    "which sound does [a|the] {x} make?",
    "what is the [sound|noise] of a {x}?",
    "how does a {x} [sound|go]?",
    "<tell>[what a {x} says|the sound of a {x}|what noise a {x} makes].",
    "what noise [do {x}s make|comes from a {x}]?",
    "a {x} says",
    "make the [sound|noise] of a {x}",
    "Which noise does a {x} make?",
)
LEGS = {
    "dog": 4,
    "cat": 4,
    "horse": 4,
    "fox": 4,
    "cow": 4,
    "bird": 2,
    "chicken": 2,
    "human": 2,
    "spider": 8,
    "octopus": 8,
    "ant": 6,
    "bee": 6,
    "fly": 6,
    "snake": 0,
    "fish": 0,
}
LEG = (
    "How many legs does [a|the] {x} have?",
    "how many legs has a {x}?",
    "[the |]legs of a {x}",
    "[the |]number of legs of a {x}",
    "how many legs do {x}s have?",
    "how many legs [are on|on] a {x}?",
    "{x}: how many legs?",
    "{x} legs",
    "<tell>[the number of legs of|how many legs are on] a {x}.",
    "does a {x} have legs?",
    "on how many legs does a {x} walk?",
    "Tell me how many legs a {x} has.",
)


def animals(phraser: Phraser) -> list[Turn]:
    """What animals say and how many legs they have."""
    rng = phraser.rng
    if rng.random() < 0.5:
        animal = rng.choice(tuple(SOUNDS))
        answer = f"The {animal} says {SOUNDS[animal]}."
        return [Turn(phraser.ask(SOUND, x=animal), answer)]
    animal = rng.choice(tuple(LEGS))
    noun = "arms" if animal == "octopus" else "legs"
    return [Turn(phraser.ask(LEG, x=animal), f"It has {LEGS[animal] or 'no'} {noun}.")]


DEFINITIONS = {
    "a fox": "A fox is a small wild animal with red fur, pointed ears and a bushy tail.",
    "a dog": "A dog is an animal that lives with people, and is often called their best friend.",
    "a cat": "A cat is a small furry animal that many people keep as a pet.",
    "the sun": "The sun is the star at the centre of our solar system. It gives us light and heat.",
    "the moon": "The moon is the natural satellite of the Earth. It goes around us in a month.",
    "the earth": "The Earth is the planet we live on, the third one from the sun.",
    "a star": "A star is a huge ball of hot gas that shines, like the sun.",
    "a planet": "A planet is a large round body that goes around a star.",
    "a computer": "A computer is a machine that follows instructions to work with data.",
    "a token": "A token is a piece of text, a word or a part of one, that a language model reads.",
    "a language model": "A language model is a program that predicts the next token of a text.",
    "python": "Python is a popular programming language, known for being easy to read.",
    "a neural network": "A neural network is a program whose numbers are learned from examples.",
    "water": "Water is a clear liquid that all living things need.",
    "rain": "Rain is water that falls from the clouds in drops.",
    "snow": "Snow is frozen water that falls from the clouds in white flakes.",
    "a prime number": "A prime number is a number above 1 that only 1 and itself divide evenly.",
    "a triangle": "A triangle is a shape with three sides and three corners.",
    "a square": "A square is a shape with four equal sides and four right angles.",
    "a book": "A book is a set of pages with text, made to be read.",
}
WHAT_IS = (
    "What is {x}?",
    "what's {x}?",
    "<tell>what {x} is.",
    "define {x}",
    "explain {x}",
    "What do you know about {x}?",
    "tell me about {x}",
    "what does {x} mean?",
    "what exactly is {x}?",
    "describe {x}",
    "[can you|could you|please] [define|describe|explain] {x}",
    "[can you|could you] [tell|say to] me what {x} is?",
    "explain to me what {x} is",
    "{x}?",
    "tell me something about {x}",
    "i want to know what {x} is",
    "[the |]definition of {x}",
    "explain what {x} is",
    "Can you explain what {x} is?",
)
SMALL_FACTS = {
    (
        "How many days are in a week?",
        "days in a week",
        "how many days does a week have?",
    ): "A week has 7 days.",
    (
        "How many months are in a year?",
        "months in a year",
        "how many months does a year have",
    ): "A year has 12 months.",
    (
        "How many days are in a year?",
        "days in a year",
        "how many days does a year have?",
    ): "A year has 365 days, and 366 in a leap year.",
    (
        "How many hours are in a day?",
        "hours in a day",
        "how many hours does a day have",
    ): "A day has 24 hours.",
    (
        "How many minutes are in an hour?",
        "minutes in an hour",
        "how many minutes has an hour?",
    ): "An hour has 60 minutes.",
    (
        "How many seconds are in a minute?",
        "seconds in a minute",
        "how many seconds in a minute?",
    ): "A minute has 60 seconds.",
    (
        "How many continents are there?",
        "number of continents",
        "how many continents",
    ): "There are 7 continents.",
    (
        "Name the continents.",
        "what are the continents?",
        "list the continents",
    ): "Africa, Antarctica, Asia, Australia, Europe, North America and South America.",
    (
        "What are the four seasons?",
        "name the seasons",
        "list the seasons",
    ): "Spring, summer, autumn and winter.",
    (
        "Name the planets.",
        "what are the planets?",
        "list the planets of the solar system",
    ): "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.",
    (
        "What is the biggest planet?",
        "largest planet",
        "which planet is the largest?",
    ): "The biggest planet of the solar system is Jupiter.",
    (
        "What is the largest ocean?",
        "biggest ocean",
        "which ocean is the largest?",
    ): "The largest ocean is the Pacific Ocean.",
    (
        "What is the highest mountain?",
        "highest mountain in the world",
        "tallest mountain",
    ): "The highest mountain in the world is Mount Everest.",
    (
        "How many letters are in the alphabet?",
        "letters in the alphabet",
    ): "The alphabet has 26 letters.",
    (
        "What is the first month of the year?",
        "first month",
        "which month is the first?",
    ): "The first month of the year is January.",
    (
        "What is the last month of the year?",
        "last month of the year",
    ): "The last month of the year is December.",
    ("What are the vowels?", "list the vowels", "name the vowels"): "a, e, i, o and u.",
    (
        "What are the first ten prime numbers?",
        "first 10 primes",
        "list prime numbers",
    ): "2, 3, 5, 7, 11, 13, 17, 19, 23, 29.",
    ("What is pi?", "value of pi", "what is the number pi"): "Pi is about 3.14159.",
}


def definitions(phraser: Phraser) -> list[Turn]:
    """What a few common things are, in one sentence, and some small facts."""
    rng = phraser.rng
    if rng.random() < 0.5:
        ways = rng.choice(tuple(SMALL_FACTS))
        return [Turn(phraser.ask(ways), SMALL_FACTS[ways])]
    thing = rng.choice(tuple(DEFINITIONS))
    return [Turn(phraser.ask(WHAT_IS, x=thing), DEFINITIONS[thing])]


def _written_well(way: str) -> str:
    """Return a question with its capital and its mark."""
    return f"{way[0].upper()}{way[1:].rstrip('?.')}?"


def _known(phraser: Phraser, kind: str) -> list[Turn]:
    """Ask for a fact of the file, half of the time as people who write well ask: what the model
    refuses is mostly written well, and it must not go by that.
    """
    fact = phraser.rng.choice(MORE[kind])
    ways = fact["ways"]
    questions = [_written_well(way) for way in ways[:-1] if QUESTION.match(way)]
    return [Turn(phraser.ask([*questions, *ways]), fact["answer"])]


def world(phraser: Phraser) -> list[Turn]:
    """What strangers ask first: why the sky is blue, who wrote what, the largest and the fastest."""
    return _known(phraser, "facts")


def lists(phraser: Phraser) -> list[Turn]:
    """Five things of a kind."""
    return _known(phraser, "lists")
