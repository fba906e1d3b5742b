"""Skills with numbers: counting, sums, differences, products, tables, comparing."""

from collections.abc import Sequence

from skills.base import Phraser, Turn

ADD = (
    "What is {a} + {b}?",
    "{a} + {b}",
    "{a}+{b}",
    "{a}+{b}=",
    "{a} + {b} = ?",
    "what's {a}+{b}?",
    "How much is {a} plus {b}?",
    "{a} plus {b}",
    "Add {a} and {b}.",
    "Calculate {a} + {b}.",
    "What is {a} plus {b}?",
    "Can you add {a} and {b}?",
    "What is the sum of {a} and {b}?",
    "Compute {a}+{b}",
    "do you know what {a} + {b} is?",
    "sum {a} and {b}",
    "Tell me what {a} plus {b} makes.",
)
SUB = (
    "What is {a} - {b}?",
    "{a} - {b}",
    "{a}-{b}",
    "{a}-{b}=",
    "what's {a} - {b}?",
    "How much is {a} minus {b}?",
    "{a} minus {b}",
    "Subtract {b} from {a}.",
    "Calculate {a} - {b}.",
    "What is {a} minus {b}?",
    "Take {b} away from {a}.",
    "What is left if I take {b} from {a}?",
    "Compute {a}-{b}",
    "Tell me what {a} minus {b} makes.",
)
MUL = (
    "What is {a} x {b}?",
    "{a} x {b}",
    "{a}*{b}",
    "{a} * {b}",
    "what's {a} times {b}?",
    "How much is {a} times {b}?",
    "{a} times {b}",
    "Multiply {a} by {b}.",
    "{a}x{b}=",
    "Calculate {a} * {b}.",
    "What is {a} times {b}?",
    "What is {a} multiplied by {b}?",
    "What is the product of {a} and {b}?",
    "Compute {a}*{b}",
    "Tell me what {a} times {b} makes.",
)
DIV = (
    "What is {a} / {b}?",
    "{a} / {b}",
    "{a}/{b}",
    "what's {a} divided by {b}?",
    "How much is {a} divided by {b}?",
    "{a} divided by {b}",
    "Divide {a} by {b}.",
    "Calculate {a} / {b}.",
    "What is {a} divided by {b}?",
    "Compute {a}/{b}",
    "Tell me what {a} divided by {b} makes.",
)
AND = ("And {what}?", "and {what}", "what about {what}?", "now {what}", "{what}")


def add_steps(a: int, b: int) -> str:
    """a + b, at once when small, else tens and ones apart."""
    if a <= 20 and b <= 20:
        return f"{a} + {b} = {a + b}"
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return (
        f"{a // 10 * 10} + {b // 10 * 10} = {tens}, {a % 10} + {b % 10} = {ones}, "
        f"{tens} + {ones} = {tens + ones}. So {a} + {b} = {tens + ones}"
    )


def sub_steps(a: int, b: int) -> str:
    """a - b with b <= a, at once when small, else the tens of b first, then its ones."""
    if a <= 20 or b <= 9:
        return f"{a} - {b} = {a - b}"
    rest = a - b // 10 * 10
    return f"{a} - {b // 10 * 10} = {rest}, {rest} - {b % 10} = {a - b}. So {a} - {b} = {a - b}"


def mul_steps(a: int, b: int) -> str:
    """a * b, at once inside the 12 x 12 table, else the tens of a first."""
    if a <= 12 and b <= 12:
        return f"{a} x {b} = {a * b}"
    tens, ones = a // 10 * 10 * b, a % 10 * b
    return (
        f"{a // 10 * 10} x {b} = {tens}, {a % 10} x {b} = {ones}, "
        f"{tens} + {ones} = {a * b}. So {a} x {b} = {a * b}"
    )


def _with_follow_up(
    phraser: Phraser, first: Turn, what: str, answer: str, share: float = 0.15
) -> list[Turn]:
    """Now and then a second question that leans on the first one."""
    if phraser.rng.random() >= share:
        return [first]
    return [first, Turn(phraser.ask(AND, what=what), answer)]


def _pair(phraser: Phraser, small: int, large: int) -> tuple[int, int]:
    """Two numbers, half the time both small."""
    top = small if phraser.rng.random() < 0.5 else large
    return phraser.rng.randint(0, top), phraser.rng.randint(0, top)


def addition(phraser: Phraser) -> list[Turn]:
    """Sums up to 99 + 99, and of three small numbers."""
    if phraser.rng.random() < 0.1:
        x, y, z = (phraser.rng.randint(1, 10) for _ in range(3))
        answer = f"{x} + {y} = {x + y}, {x + y} + {z} = {x + y + z}."
        return [Turn(phraser.ask(ADD, a=f"{x} + {y}", b=z), answer)]
    a, b = _pair(phraser, 20, 99)
    c, d = _pair(phraser, 20, 99)
    first = Turn(phraser.ask(ADD, a=a, b=b), f"{add_steps(a, b)}.")
    return _with_follow_up(phraser, first, f"{c} + {d}", f"{add_steps(c, d)}.")


def subtraction(phraser: Phraser) -> list[Turn]:
    """Differences of numbers up to 99; below zero only for small ones."""
    if phraser.rng.random() < 0.08:
        small, large = sorted(_pair(phraser, 20, 20))
        answer = f"{small} - {large} = {small - large}."
        return [Turn(phraser.ask(SUB, a=small, b=large), answer)]
    b, a = sorted(_pair(phraser, 20, 99))
    d, c = sorted(_pair(phraser, 20, 99))
    first = Turn(phraser.ask(SUB, a=a, b=b), f"{sub_steps(a, b)}.")
    return _with_follow_up(phraser, first, f"{c} - {d}", f"{sub_steps(c, d)}.")


def multiplication(phraser: Phraser) -> list[Turn]:
    """The 12 x 12 table, and two digits times one."""
    rng = phraser.rng
    if rng.random() < 0.75:
        a, b = rng.randint(0, 12), rng.randint(0, 12)
    else:
        a, b = rng.randint(13, 99), rng.randint(2, 9)
    c, d = rng.randint(1, 12), rng.randint(1, 12)
    first = Turn(phraser.ask(MUL, a=a, b=b), f"{mul_steps(a, b)}.")
    return _with_follow_up(phraser, first, f"{c} x {d}", f"{mul_steps(c, d)}.")


def division(phraser: Phraser) -> list[Turn]:
    """Divisions inside the 12 x 12 table, a few of them with a remainder."""
    if phraser.rng.random() < 0.15:
        a, b = phraser.rng.randint(3, 50), phraser.rng.randint(2, 10)
        rest = f" with a remainder of {a % b}" if a % b else ""
        return [Turn(phraser.ask(DIV, a=a, b=b), f"{a} / {b} = {a // b}{rest}.")]
    b, quotient = phraser.rng.randint(1, 12), phraser.rng.randint(1, 12)
    a = b * quotient
    return [Turn(phraser.ask(DIV, a=a, b=b), f"{a} / {b} = {quotient}.")]


TOO_BIG = (
    "I am a very small model and cannot do that calculation. I can only handle small whole numbers."
)
SIGNS = (ADD, SUB, MUL, DIV)


def too_big(phraser: Phraser) -> list[Turn]:
    """Calculations with numbers that are too large to get right."""
    rng = phraser.rng
    ways = rng.choice(SIGNS)
    a, b = rng.randint(100, 10 ** rng.randint(3, 6)), rng.randint(13, 10 ** rng.randint(2, 5))
    if rng.random() < 0.3:
        ways, a, b = MUL, rng.randint(13, 99), rng.randint(13, 99)
    elif rng.random() < 0.2:
        a, b = b, a
    return [Turn(phraser.ask(ways, a=a, b=b), TOO_BIG)]


TABLE = (
    "Give me the {a} times table.",
    "{a} times table",
    "Multiplication table of {a}",
    "Write the multiplication table of {a}.",
    "Show me the table of {a}.",
    "table of {a}",
    "What is the times table for {a}?",
    "the {a} times table, please",
    "table for {a}",
    "Can you print the {a} times table?",
)


def table(phraser: Phraser) -> list[Turn]:
    """One multiplication table, a line for each product up to ten."""
    a = phraser.rng.randint(1, 12)
    lines = "\n".join(f"{a} x {i} = {a * i}" for i in range(1, 11))
    return [Turn(phraser.ask(TABLE, a=a), lines)]


COUNT_TO = (
    "Count to {b}.",
    "count to {b}",
    "Can you count to {b}?",
    "count up to {b}",
    "Count from 1 to {b}.",
    "count 1 to {b}",
    "Could you count to {b}?",
    "can you count up to {b}?",
    "Please count to {b}.",
    "numbers from 1 to {b}",
    "Could you count until {b} for me?",
)
COUNT_FROM = (
    "Count from {a} to {b}.",
    "count from {a} to {b}",
    "count {a} to {b}",
    "Can you count from {a} to {b}?",
    "numbers from {a} to {b}",
    "give me the numbers from {a} to {b}",
    "all numbers between {a} and {b}",
    "list the numbers {a} to {b}",
    "Give me all numbers between {a} and {b}, both included.",
)
COUNT_DOWN = (
    "Count down from {a}.",
    "countdown from {a}",
    "Count backwards from {a}.",
    "Count down from {a} to 1.",
    "Can you count backward from {a}?",
    "count from {a} down to 1",
    "Could you do a countdown from {a} for me?",
)
COUNT_BY = (
    "Count by {s}s to {b}.",
    "Count to {b} by {s}s.",
    "count in {s}s up to {b}",
    "Count in steps of {s} to {b}.",
    "count by {s}s up to {b}",
    "count to {b} in steps of {s}",
    "Could you count by {s}s until {b}?",
)
STEP_WORDS = {2: "two", 3: "three", 5: "five", 10: "ten"}


def _listing(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) + "."


def counting(phraser: Phraser) -> list[Turn]:
    """Counting up, down, between two numbers and by steps."""
    rng = phraser.rng
    kind = rng.choice(("to", "from", "down", "by", "to"))
    if kind == "to":
        b = rng.choice((5, 10, 10, 20, rng.randint(2, 30)))
        return [Turn(phraser.ask(COUNT_TO, b=b), _listing(range(1, b + 1)))]
    if kind == "from":
        a = rng.randint(0, 80)
        b = a + rng.randint(3, 15)
        return [Turn(phraser.ask(COUNT_FROM, a=a, b=b), _listing(range(a, b + 1)))]
    if kind == "down":
        a = rng.choice((5, 10, 10, rng.randint(3, 25)))
        return [Turn(phraser.ask(COUNT_DOWN, a=a), _listing(range(a, 0, -1)))]
    step = rng.choice(tuple(STEP_WORDS))
    b = step * rng.randint(4, 12)
    shown = rng.choice((str(step), STEP_WORDS[step]))
    return [Turn(phraser.ask(COUNT_BY, s=shown, b=b), _listing(range(step, b + 1, step)))]


BIGGER = (
    "Which is bigger, {a} or {b}?",
    "which number is larger: {a} or {b}?",
    "{a} or {b}, bigger?",
    "Is {a} bigger than {b}?",
    "what is more, {a} or {b}?",
    "Which is greater, {a} or {b}?",
    "Which one is the larger number, {a} or {b}?",
)
NEXT = (
    "What comes after {a}?",
    "what number comes after {a}?",
    "which number follows {a}?",
    "number after {a}",
    "Tell me the number after {a}.",
    "which number is after {a}?",
    "next number after {a}",
    "Tell me the number right after {a}.",
)
BEFORE = (
    "What comes before {a}?",
    "what number comes before {a}?",
    "which number precedes {a}?",
    "number before {a}",
    "Tell me the number before {a}.",
    "which number is before {a}?",
    "Tell me the number right before {a}.",
)
EVEN = (
    "Is {a} even or odd?",
    "is {a} odd or even?",
    "even or odd: {a}",
    "{a} even or odd?",
    "Is the number {a} even or odd?",
    "Tell me whether {a} is even or odd.",
)


def comparing(phraser: Phraser) -> list[Turn]:
    """Which number is bigger, even or odd, next or before."""
    rng = phraser.rng
    kind = rng.choice(("bigger", "next", "before", "even"))
    a, b = rng.sample(range(1, 100), 2)
    if kind == "bigger":
        answer = f"{max(a, b)} is bigger than {min(a, b)}."
        return [Turn(phraser.ask(BIGGER, a=a, b=b), answer)]
    if kind == "next":
        return [Turn(phraser.ask(NEXT, a=a), f"{a + 1} comes after {a}.")]
    if kind == "before":
        return [Turn(phraser.ask(BEFORE, a=a), f"{a - 1} comes before {a}.")]
    return [Turn(phraser.ask(EVEN, a=a), f"{a} is {'odd' if a % 2 else 'even'}.")]


NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lucy", "Max", "Emma", "Leo", "Nina", "Paul", "Eva")
THINGS = ("apples", "books", "pens", "coins", "eggs", "balls", "cards", "cookies", "stamps")
GAIN = (
    "{n} has {a} {t} and buys {b} more. How many {t} does {n} have now?",
    "{n} has {a} {t}. A friend gives {n} {b} more. How many {t} does {n} have?",
    "If {n} has {a} {t} and gets {b} more, how many {t} are there?",
    "{n} had {a} {t} and then found {b} more. How many {t} in total?",
    "There are {a} {t} on the table and {n} adds {b}. How many {t} are on the table?",
)
LOSS = (
    "{n} has {a} {t} and gives away {b}. How many {t} are left?",
    "{n} has {a} {t}. {n} loses {b} of them. How many {t} does {n} have left?",
    "If {n} has {a} {t} and sells {b}, how many {t} are left?",
    "{n} had {a} {t} and gave {b} to a friend. How many {t} remain?",
)
GROUPS = (
    "{n} has {a} bags with {b} {t} each. How many {t} does {n} have?",
    "There are {a} boxes with {b} {t} in each. How many {t} are there in total?",
    "If {n} buys {a} packs of {b} {t}, how many {t} is that?",
    "{n} fills {a} boxes with {b} {t} each. How many {t} are in the boxes?",
)


def word_problem(phraser: Phraser) -> list[Turn]:
    """One-step problems in words, with the sum written out."""
    rng = phraser.rng
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    kind = rng.choice(("gain", "loss", "groups"))
    slots = {"n": name, "t": things}
    if kind == "gain":
        a, b = _pair(phraser, 20, 60)
        return [Turn(phraser.ask(GAIN, a=a, b=b, **slots), f"{add_steps(a, b)} {things}.")]
    if kind == "loss":
        b, a = sorted(_pair(phraser, 20, 60))
        return [Turn(phraser.ask(LOSS, a=a, b=b, **slots), f"{sub_steps(a, b)} {things}.")]
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return [Turn(phraser.ask(GROUPS, a=a, b=b, **slots), f"{mul_steps(a, b)} {things}.")]
