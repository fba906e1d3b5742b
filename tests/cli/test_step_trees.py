"""The trees of /steps, read back from what is drawn, against the trees that were drafted."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace

import pytest
import torch
from rich.text import Text

from nfox.cli.display import tree_rows
from nfox.cli.display.console import CleanConsole
from nfox.cli.display.step_table import print_table
from nfox.cli.display.step_trees import print_trees, print_whole
from nfox.cli.display.steps import StepRecord, StepRecorder
from nfox.cli.display.theme import Screen, make_screen
from nfox.cli.display.tree_rows import Branch
from nfox.cli.options.chat import DisplayArguments
from nfox.decoding.drafter import StepTimes
from nfox.decoding.generate import Step
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Verdict

VOCABULARY = 40
TOKEN = re.compile(r"<(\d+)>(?: x(\d+))?(?: p=([-.e\d]+)(?: q=([-.e\d]+))?)?")
MARKS = {"✓": "accepted", "✗": "refused", "ᵀ": "own"}


class Numbers:
    """Spells tokens as their ids."""

    def decode(self, ids: list[int]) -> str:
        return "".join(f"<{token}>" for token in ids)


def screen(*, ascii: bool = False) -> Screen:
    return make_screen(replace(DisplayArguments(), ascii=ascii), io.StringIO())


def drawn(records: list[StepRecord], width: int, *, whole: int = 0, ascii: bool = False) -> str:
    """Return what is printed of the steps, or of the step `whole`."""
    console = CleanConsole(file=io.StringIO(), width=width)
    if whole:
        print_whole(whole, records, screen(ascii=ascii), console)
    else:
        print_trees(records, screen(ascii=ascii), console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def some_step(chance: random.Random, *, size: int = 14, choice: str = "") -> Step:
    """Return a step in which every token is another one, judged at random; some end the reply."""
    count = chance.randint(1, size)
    bushy = chance.random()
    parents = [max(0, n - 1) if chance.random() > bushy else chance.randrange(n)
               for n in range(1, count)]  # fmt: skip
    tokens = chance.sample(range(VOCABULARY), count + 1)
    q = torch.rand(count, VOCABULARY) if chance.random() < 0.5 else None
    tree = TokenTree(tuple(tokens[:count]), (-1, *parents), q)
    path = [0]
    while chance.random() < 0.8 and (
        below := [n for n in range(count) if tree.parents[n] == path[-1]]
    ):
        path.append(chance.choice(below))
    accepted = [tokens[n] for n in path[1:]]
    cut = chance.randint(1, len(accepted)) if accepted and chance.random() < 0.3 else None
    emitted = accepted[:cut] if cut else [*accepted, tokens[count]]
    sources = ["accepted"] * len(accepted[:cut]) + ["corrected"] * (cut is None)
    logits = torch.randn(count, VOCABULARY, dtype=torch.float64) * 3
    verdict = Verdict(path, tokens[count], [tokens[count]] * count)
    times = StepTimes(1e-3, 2e-3, 0, 0, 0)
    return Step(tuple(emitted), tuple(sources), tree, verdict, times, None, logits, choice)  # type: ignore[arg-type]


def recorded(steps: list[Step]) -> list[StepRecord]:
    recorder = StepRecorder(Numbers())
    for step in steps:
        recorder.add(step)
    return recorder.records


def outcomes(step: Step) -> dict[int, str]:
    """Return what became of every drafted token, by what the loop says of the step."""
    kept = list(step.tokens[: step.sources.count("accepted")])
    found = {}
    for n, (token, parent) in enumerate(zip(step.tree.tokens, step.tree.parents, strict=True)):
        way = [step.tree.tokens[node] for node in step.tree.path_to(n)][1:]
        if not way:
            continue
        is_judged = way[:-1] == kept[: len(way) - 1] and len(way) <= len(step.tokens)
        refused = "refused" if is_judged else "unjudged"
        found[token] = "accepted" if way == kept[: len(way)] else refused
        assert parent >= 0
    return found


@pytest.mark.parametrize("seed", range(60))
def test_one_step_is_drawn_whole(seed: int) -> None:
    """Every token is below the one it follows, with its own mark and probabilities."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    step = some_step(chance)
    [record] = recorded([step])
    tree, tokens = step.tree, step.tree.tokens
    rows = drawn([record], 2000, whole=1).splitlines()[2:]
    last, follows, marks, numbers = {-1: tokens[0]}, {}, {}, {}
    for row in rows:
        depth = (len(row) - len(row.lstrip("│ ├└"))) // 2 - 1
        mark, before = "", last[depth - 1]
        for part in row.lstrip("│ ├└").split(" ─ "):
            mark = MARKS.get(part[0], mark)
            found = TOKEN.search(part)
            assert found is not None
            token = int(found[1])
            assert token not in follows
            follows[token], marks[token], before = before, (mark, part[0]), token
            numbers[token] = found[3], found[4]
            last[depth] = token
    expected = {tokens[n]: tokens[tree.parents[n]] for n in range(1, len(tree))}
    kept = outcomes(step)
    if step.sources[-1] != "accepted":
        own = step.tokens[-1]
        expected[own] = (tokens[0], *step.tokens)[len(step.tokens) - 1]
        assert marks[own] == ("own", "ᵀ")
    assert follows == expected
    p = step.logits.softmax(-1) if step.logits is not None else torch.empty(0)
    for n in range(1, len(tree)):
        outcome, (mark, first) = kept[tokens[n]], marks[tokens[n]]
        assert mark == outcome if outcome != "unjudged" else first == "<"
        is_judged = outcome != "unjudged"
        assert numbers[tokens[n]] == (
            f"{float(p[tree.parents[n], tokens[n]]):.3g}" if is_judged else None,
            f"{float(tree.q[n, tokens[n]]):.3g}" if is_judged and tree.q is not None else None,
        )


@pytest.mark.parametrize("width", [30, 80])
@pytest.mark.parametrize("seed", range(20))
def test_steps_are_folded_to_the_screen_and_nothing_is_uncounted(seed: int, width: int) -> None:
    chance = random.Random(seed)
    torch.manual_seed(seed)
    steps = [some_step(chance, size=30, choice=chance.choice(["", "a"])) for _ in range(12)]
    records = recorded(steps)
    text = drawn(records, width)
    assert all(len(row) <= width for row in text.splitlines())
    blocks = re.split(r"^ *(\d+)(?:-(\d+))?  ", text, flags=re.MULTILINE)[1:]
    number = 0
    for first, end, block in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
        assert int(first) == number + 1
        number = int(end or first)
        shown = TOKEN.findall(block)
        of_block = steps[int(first) - 1 : number]
        own = [s.tokens[-1] for s in of_block if s.sources[-1] != "accepted"]
        if end:
            assert not any(len(step.tree) > 1 for step in of_block)
        if width == 80:  # where no row is so deep that it is cropped
            more = sum(map(int, re.findall(r"and (\d+) more", block)))
            drafted = sum(len(step.tree) - 1 for step in of_block)
            assert sum(int(times or 1) for _, times, *_ in shown) + more == drafted + len(own)
        said = [int(token) for token, *_ in shown]
        emitted = [token for step in of_block for token in step.tokens]
        assert [token for token in said if token in emitted] == emitted or width < 80
    assert number == len(steps)


def chain(drafted: list[int], accepted: int, own: int) -> Step:
    """Return a step of a chain."""
    tree = TokenTree.chain(0, drafted)
    path = list(range(accepted + 1))
    tokens = (*drafted[:accepted], own)
    sources = (*["accepted"] * accepted, "corrected" if accepted < len(drafted) else "bonus")
    logits = torch.zeros(len(tree), VOCABULARY)
    for n in range(len(tree) - 1):
        logits[n, drafted[n]] = (99.0, 1.0, -99.0)[(n >= accepted) + (n > accepted)]
    logits[accepted, own] = 4.0
    times = StepTimes(1e-3, 2e-3, 0, 0, 0)
    verdict = Verdict(path, own, [own] * len(tree))
    return Step(tokens, sources, tree, verdict, times, None, logits)  # type: ignore[arg-type]


def test_chains_stand_in_one_row_and_repeated_tokens_are_counted() -> None:
    records = recorded(
        [chain([1, 2, 3, 9, 9, 9, 9, 4], 2, 5), *[chain([], 0, 6)] * 3, chain([7], 1, 8)]
    )
    assert drawn(records, 80).splitlines() == [
        "  1  └ ✓ <1> ─ <2>",
        "       ├ ✗ <3> 3% ─ <9> x4 ─ <4>",
        "       └ ᵀ <5> 57%",
        "2-4  ᵀ <6> <6> <6>",
        "  5  └ ✓ <7> ─ ᵀ <8> 58%",
    ]
    assert drawn(records, 30).splitlines()[1] == "       ├ ✗ <3> 3%  and 5 more"
    rows = drawn(records, 80, ascii=True)
    assert "|-x <3> 3% - <9> x4 - <4>" in rows and "`-T <5> 57%" in rows and rows.isascii()
    assert drawn(records, 40, whole=1).splitlines()[-4:] == [
        "└ ✓ <1> p=1 ─ <2> p=1",
        "  ├ ✗ <3> p=0.0285 ─ <9> ─ <9> ─ <9>",
        "  │   ─ <9> ─ <4>",
        "  └ ᵀ <5> p=0.573",
    ]


def test_the_longest_chain_is_drawn() -> None:
    drafted = [n % 30 + 1 for n in range(1200)]
    records = recorded([chain(drafted, accepted, 35) for accepted in (0, 600, 1200)])
    refused, *_ = drawn(records, 80).splitlines()
    assert refused.startswith("1  ├ ✗ <1> 3% ─ <2>") and refused.endswith("more")
    shown = refused.count("<")
    assert refused.endswith(f"and {1200 - shown} more")
    assert drawn(records, 80, whole=2).count("<") == 1200 + 1 + 1  # and the target's, and the root


def test_many_refused_guesses_are_few_rows() -> None:
    paths = [[n, n + 20] for n in range(1, 9)] + [[n] for n in range(9, 20)]
    tree = TokenTree.from_paths(0, paths)
    logits = torch.zeros(len(tree), VOCABULARY)
    step = Step((30,), ("corrected",), tree, Verdict([0], 30, []), StepTimes(0, 0, 0, 0, 0), None,
                logits)  # fmt: skip
    rows = drawn(recorded([step]), 60).splitlines()
    assert rows == [
        "1  ├ ✗ <1> 3% ─ <21>",
        "   ├ ✗ <2> 3% ─ <22>",
        "   ├ ✗ <3> 3% ─ <23>",
        "   ├ ✗ <9> 3%  <10> 3%  <11> 3%  <12> 3%  and 17 more",
        "   └ ᵀ <30> 3%",
    ]


def test_what_follows_the_end_is_not_refused() -> None:
    step = chain([1, 2, 3], 2, 5)
    ended = replace(step, tokens=(1,), sources=("accepted",))
    records = recorded([ended])
    assert drawn(records, 80).splitlines() == ["1  └ ✓ <1>", "     └ and 2 more"]
    assert drawn(records, 80, whole=1).splitlines()[2:] == ["└ ✓ <1> p=1", "  └ <2> ─ <3>"]
    console = CleanConsole(file=io.StringIO(), width=80)
    print_table(records, screen(), console)
    row = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert "1/3" in row and row.split()[-1] == "…" and "<2>" not in row


def test_without_logits_there_are_no_probabilities() -> None:
    records = recorded([replace(chain([1, 2], 1, 5), logits=None)])
    assert drawn(records, 80).splitlines() == ["1  └ ✓ <1>", "     ├ ✗ <2>", "     └ ᵀ <5>"]
    assert "p=" not in drawn(records, 80, whole=1)


def test_a_token_that_steers_a_terminal_does_not() -> None:
    class Nasty(Numbers):
        def decode(self, ids: list[int]) -> str:
            return "".join("\x1b[31m\n \u202e" for _ in ids)

    recorder = StepRecorder(Nasty())
    recorder.add(chain([1, 2], 1, 5))
    text = drawn(recorder.records, 80) + drawn(recorder.records, 80, whole=1)
    assert "\x1b" not in text and "\u202e" not in text and "✓ [31m↵·" in text


@pytest.mark.parametrize("ascii", [False, True])
def test_a_row_without_room_says_that_it_was_cut(ascii: bool) -> None:
    symbols = screen(ascii=ascii).symbols
    branch = Branch("x ", " - ", [(Text("a long token 29%"), 1)])
    narrow, wide = (str(*tree_rows.drawn([branch], symbols, width)) for width in (16, 40))
    assert wide.endswith("29%")
    assert len(narrow) == 16 and narrow.endswith(symbols.ellipsis)
    assert wide.startswith(narrow.removesuffix(symbols.ellipsis))
