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
    "<please>count [|up |out ][|loud ]to {b}[| for me].",
    "count to {b}",
    "Count to {b}.",
    "count up to {b}",
    "Can you count to {b}?",
    "count till {b}",
    "count [up|on] till {b}",
    "<please>count [from 1|from one|starting at 1|1|starting from 1] to {b}[| for me].",
    "[the |all |all the |]numbers [|from ]1 to {b}",
    "1 to {b}",
    "count all the way to {b}",
    "Let us count to {b}.",
    "count with me to {b}",
    "<give> [the|all|all the] numbers [from 1 to|up to|till|until] {b}.",
    "Could you count until {b} for me?",
)
COUNT_FROM = (
    "<please>count [|up ]from {a} [|up ]to {b}[| for me].",
    "count from {a} to {b}",
    "count {a} to {b}",
    "{a} to {b}",
    "from {a} to {b}",
    "[the |all |all the |]numbers [|from ]{a} [to|up to|until|till] {b}",
    "<give> [the|all|all the|] numbers [from {a} to|between {a} and|{a} to] {b}.",
    "[all |the |]numbers between {a} and {b}",
    "<please>count from {a} [until|till] {b}.",
    "start at {a} and count to {b}",
    "<please>start with {a} and count [up |]to {b}.",
    "<please>count [between {a} and|everything from {a} to|all numbers from {a} to] {b}.",
    "<give> [the|all] whole numbers from {a} to {b}[|, {b} included|, with both|, ends included].",
    "Give me all numbers between {a} and {b}, both included.",
)
COUNT_DOWN = (
    "<please>count [down|backwards|backward|back|in reverse] from {a}[| for me].",
    "countdown from {a}",
    "count down from {a}",
    "[a |]countdown [from|of] {a}",
    "<please>count [down|backwards|backward|] from {a} [down |]to [1|one].",
    "{a} [down |]to 1",
    "count {a} [down |]to 1",
    "[do|make|start|give me|begin] a countdown from {a}",
    "numbers from {a} down to 1",
    "<give> the numbers from {a} down to 1.",
    "<please>[do|make|start] a countdown [from|that starts at|starting at] {a}.",
    "Could you do a countdown from {a} for me?",
)
COUNT_BY = (
    "<please>count by {s}s [|up ]to {b}[| for me].",
    "<please>count [|up ]to {b} by {s}s.",
    "<please>count in {s}s [|up ][to|till] {b}.",
    "<please>count in steps of {s} [|up ]to {b}.",
    "count by {s}s to {b}",
    "by {s}s to {b}",
    "<please>count [|up ]to {b} in steps of {s}.",
    "<please>count [|up ]to {b} in {s}s.",
    "every {s} up to {b}",
    "<please>skip count by {s}s [to|till|up to] {b}.",
    "[steps of {s}|{s}s] up to {b}",
    "<give> the multiples of {s} [up to|till|until] {b}.",
    "<please>count with a step of {s} [to|till|up to] {b}.",
    "Could you count by {s}s until {b}?",
)
COUNTS_TO = "I can only count to 100."
STEP_WORDS = {2: "two", 3: "three", 5: "five", 10: "ten"}


def _listing(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) + "."


def counting(phraser: Phraser) -> list[Turn]:
    """Counting up, down, between two numbers and by steps, up to 100."""
    rng = phraser.rng
    kind = rng.choice(("to", "from", "down", "by", "to"))
    if rng.random() < 0.08:
        ways = rng.choice((COUNT_TO, COUNT_TO, COUNT_DOWN, COUNT_FROM))
        far = rng.choice((200, 500, 1000, 10_000, 1_000_000, rng.randint(101, 9999)))
        slots = (
            {"a": rng.randint(1, far - 1), "b": far} if ways is COUNT_FROM else {"a": far, "b": far}
        )
        return [Turn(phraser.ask(ways, **slots), COUNTS_TO)]
    if kind == "to":
        b = rng.choice((5, 10, 10, 20, 50, 100, 100, rng.randint(2, 30), rng.randint(31, 100)))
        return [Turn(phraser.ask(COUNT_TO, b=b), _listing(range(1, b + 1)))]
    if kind == "from":
        a = rng.randint(0, 85)
        b = min(100, a + rng.choice((rng.randint(3, 15), rng.randint(10, 40))))
        return [Turn(phraser.ask(COUNT_FROM, a=a, b=b), _listing(range(a, b + 1)))]
    if kind == "down":
        a = rng.choice((5, 10, 10, 20, rng.randint(3, 25), rng.randint(26, 100)))
        return [Turn(phraser.ask(COUNT_DOWN, a=a), _listing(range(a, 0, -1)))]
    step = rng.choice(tuple(STEP_WORDS))
    b = step * rng.randint(4, min(25, 100 // step))
    shown = rng.choice((str(step), STEP_WORDS[step]))
    return [Turn(phraser.ask(COUNT_BY, s=shown, b=b), _listing(range(step, b + 1, step)))]


BIGGER = (
    "[Which|What|Which one|Which number|Which of them|Tell me which|Tell me which one] is [bigger|larger|greater|more|the bigger one|the larger one|the greater one|the bigger number|the greater number][,|:|] {a} or {b}?",
    "{a} or {b}, [bigger|larger|which is bigger|which is larger|what is more|which one is greater]?",
    "[Is|is] {a} [bigger|larger|greater|more] than {b}?",
    "bigger: {a} or {b}?",
    "[compare|Compare] {a} and {b}[|.]",
    "[Which is|What is|Tell me] the [larger|bigger|greater] of {a} and {b}?",
    "of {a} and {b}, which [is|one is] [bigger|larger|greater]?",
    "Which one is the larger number, {a} or {b}?",
)
NEXT = (
    "What comes [after|next after|right after] {a}?",
    "what number [comes|is] after {a}?",
    "which number follows {a}?",
    "[the |]number [|right |just ]after {a}",
    "<tell>[the number|which number is|what comes|which number comes|what number is] after {a}.",
    "after {a}",
    "[the |]next number after {a}",
    "[what|which number] is [next|one more] after {a}?",
    "<tell>the next number after {a}.",
    "[the |]number that [follows|comes after|is right after|comes right after] {a}",
    "[what|which number] [follows|is one more than|comes directly after] {a}?",
    "Tell me the number right after {a}.",
)
BEFORE = (
    "What comes [before|right before|just before] {a}?",
    "what number [comes|is] before {a}?",
    "which number precedes {a}?",
    "[the |]number [|right |just ]before {a}",
    "<tell>[the number|which number is|what comes|which number comes|what number is] before {a}.",
    "before {a}",
    "which number is [|directly |just ]before {a}?",
    "[what|which number] is one less than {a}?",
    "[the |]previous number before {a}",
    "number that [precedes|comes before|is right before|comes right before] {a}",
    "[what|which number] comes directly before {a}?",
    "Tell me the number right before {a}.",
)
EVEN = (
    "Is {a} [even or odd|odd or even|an even number|an odd number]?",
    "[even or odd|odd or even][:|,|] {a}",
    "{a}[:|,|] [even or odd|odd or even]?",
    "Is the number {a} [even or odd|odd or even]?",
    "[Is|is] {a} [even|odd]?",
    "<tell>if {a} is [even or odd|odd or even].",
    "[What|Which] is {a}, [even or odd|odd or even]?",
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
    "{n} has {a} {t} and [buys|gets|finds|wins|is given|receives|collects|picks up] {b} more. [How many {t}|Now how many {t}|So how many {t}|How many] does {n} have [now|in total|altogether|in all|]?",
    "{n} has {a} {t}. [A friend|Mum|The teacher|A neighbour|Dad] gives {n} {b} more. [How many {t}|Now how many {t}|So how many {t}|How many] does {n} have [now|in total|altogether|in all|]?",
    "If {n} has {a} {t} and [gets|buys|adds|finds] {b} more, how many {t} are there [|now|in total]?",
    "{n} had {a} {t} and then [found|bought|got|won|made] {b} more. How many {t} [in total|does {n} have now|are there now|in all]?",
    "[There are|There were] {a} {t} [in the box|in a bag|on the desk|on the shelf|in the drawer]. {n} [puts|put] {b} more [in it|there|with them]. How many {t} are [there now|there in total|there]?",
    "[There are|I see] {a} {t} [in a box|in the bag|on the shelf|on the floor] and {n} [puts {b} more there|brings {b} more|adds {b} more|adds {b} to them]. How many {t} are [there now|there|there in total]?",
    "{n} has {a} {t} and {b} [other |more |red |new |old |]{t}. How many {t} [does {n} have|are there] in [total|all]?",
    "{n} puts {a} {t} and {b} {t} together. How many {t} [are there|is that]?",
    "I have {a} {t} and [buy|get|find] {b} more. How many {t} do I have [now|in total|]?",
    "There are {a} {t} on the table and {n} adds {b}. How many {t} are on the table?",
)
LOSS = (
    "{n} has {a} {t} and [gives away|loses|sells|eats|breaks|drops|gives] {b}. How many {t} are [left|still there|there now]?",
    "{n} has {a} {t}. {n} [loses|sells|gives away|drops|throws away|uses] {b} of them. How many {t} does {n} [have left|still have|have now]?",
    "If {n} has {a} {t} and [sells|loses|gives away|uses|gives me] {b}, how many {t} [are left|remain|does {n} have left]?",
    "{n} had {a} {t} [and|but] [lost|sold|gave away|dropped|used] {b} [of them|]. How many {t} [are left|does {n} have left|does {n} still have|does {n} have now]?",
    "[There are|There were] {a} {t} [on the table|in the box|in a bag|on the shelf]. {n} [takes|takes away|removes|took] {b} [of them|]. How many {t} are [left|still there|there now]?",
    "{n} had {a} {t} and [gave|sold|sent|lent] {b} to [a neighbour|Dad|a brother|the teacher|me]. How many {t} are left?",
    "I have {a} {t} and [give away|lose|sell] {b}. How many {t} do I have [left|now]?",
    "From {a} {t}, {n} takes {b}. How many {t} [are left|remain]?",
    "{n} had {a} {t} and gave {b} to a friend. How many {t} remain?",
)
GROUPS = (
    "{n} has {a} [bags|boxes|packs|jars|baskets] [with|of] {b} {t} [each|in each|in every one]. How many {t} [does {n} have|are there|is that] [|in total|in all|altogether]?",
    "There are {a} [boxes|bags|baskets|shelves] with {b} {t} [in each|each|in every one]. How many {t} are there [|in total|in all|altogether]?",
    "If {n} [buys|has|gets|makes] {a} [packs|bags|boxes] of {b} {t}, how many {t} [is that|are there|does {n} have]?",
    "{n} [buys|packs|gets|sells] {a} [bags|packs|baskets] [with|of] {b} {t} each. How many {t} are [in the bags|there|in them]?",
    "{a} [friends|children|people] have {b} {t} each. How many {t} [do they have|are there] [|in total|altogether]?",
    "{n} puts {b} {t} into each of {a} [boxes|bags|baskets]. How many {t} [are there|is that] [|in all|in total]?",
    "Each [box|bag|pack] has {b} {t}. [{n} has {a} of them|There are {a} of them]. How many {t} [are there|is that]?",
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
