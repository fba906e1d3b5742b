"""The method that chooses: lossless however it changes its mind, and every choice is said."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import tiny
from tiny import PROMPT, restless

from nfox.decoding import generate
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Context
from nfox.decoding.rules import RULES, make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.stats import Stats
from nfox.decoding.tree import TokenTree
from nfox.drafters.auto import Auto
from nfox.drafters.common.arm import Arm
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.common.method import Method
from nfox.drafters.lookup import Lookup
from nfox.drafters.spec import Speculative
from nfox.errors import UsageError

SOURCE = (5, 7, 9, 11, 5, 7)
FLAT = Costs({1: 1.0, 32: 1.5})


def auto(family: str = "llama") -> Auto:
    made = tiny.make("auto", family)
    assert isinstance(made, Auto)
    return made


@pytest.mark.parametrize("family", ["llama", "bloom", "t5"])
def test_changing_the_method_in_every_step_changes_no_token(family: str) -> None:
    target, drafter = tiny.target(family), restless(auto(family))
    source = SOURCE if target.is_encoder_decoder else None
    cache, prompt, choices = target.new_cache(), list(PROMPT), set[str]()
    if source:
        prompt = [0]
    for _ in range(3):
        steps = tiny.run(target, drafter, prompt, cache=cache, source=source, max_tokens=30)
        assert tiny.text(steps) == tiny.slow(family, tuple(prompt), 30, source)
        choices |= {step.choice for step in steps}
        prompt += [*tiny.text(steps), 3, 1, 4]
    names = {arm.name for arm in drafter.selector.arms}
    assert choices >= names | {"lookup"}
    joined = {f"{name}+lookup" for name in names - {"none"}}
    assert (len(choices & joined) > 2) == (target.proposals == "trees")
    assert choices <= names | {"lookup"} | joined


@pytest.mark.parametrize("accept", RULES)
def test_one_seed_gives_one_text_whatever_is_chosen(accept: str) -> None:
    """That of plain decoding; where the text depends on the drafts, that of the first method."""
    texts = []
    for number, drafter in enumerate((auto(), restless(auto()), restless(auto(), 1))):
        rule = make_rule(accept, Sampling(1.0, seed=3))
        steps = tiny.run(tiny.target(), drafter, PROMPT, rule=rule, max_tokens=24)
        texts.append(tiny.text(steps))
        first = next(iter(drafter.others))
        assert number == 0 or ({s.choice for s in steps} == {first}) == rule.follows_drafts
    fixed = first if rule.follows_drafts else "none"
    rule = make_rule(accept, Sampling(1.0, seed=3))
    steps = tiny.run(tiny.target(), tiny.make(fixed), PROMPT, rule=rule, max_tokens=24)
    assert texts == [tiny.text(steps)] * 3


def test_a_drafter_that_was_away_drafts_as_if_it_had_been_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against one that reads all of the text anew for every tree."""
    fresh = {name: tiny.make(name) for name in tiny.methods("llama")}
    compared, ask = dict.fromkeys(fresh, 0), Auto._ask

    def compare(self: Auto, arm: Arm, context: Context) -> TokenTree:
        tree, other = ask(self, arm, context), fresh[arm.name]
        if isinstance(other, HeadsDrafter | Speculative):
            other.rewind(0)
            again = other.propose(context)
            assert (tree.tokens, tree.parents) == (again.tokens, again.parents)
            compared[arm.name] += len(tree) > 1
        return tree

    monkeypatch.setattr(Auto, "_ask", compare)
    drafter, prompt = restless(auto()), list(PROMPT)
    for length in (40, 40, 20):
        prompt += tiny.text(tiny.run(tiny.target(), drafter, prompt, max_tokens=length))
        prompt = [*prompt[:-3], 1, 2]  # the end is taken back
    assert min(compared[name] for name in ("spec", "ctc", "chimera", "medusa")) > 2


def test_what_a_drafter_must_read_first_is_known_when_conversations_alternate() -> None:
    """As in a server, where each has a cache of its own and one drafter serves all."""
    target, rule, seen = tiny.target(), make_rule(), list[dict[str, int]]()
    drafter = restless(auto())
    texts = {name: [*PROMPT, *(chance * 7 % 50 for chance in range(60))] for name in "ab"}
    texts["b"][len(PROMPT) + 10 :] = range(40)
    caches = {name: target.new_cache() for name in texts}

    def pick(missed: dict[Arm, int], room: int) -> Arm:
        seen.append({arm.name: count for arm, count in missed.items()})
        return next(arm for arm in missed if arm.name == method)

    drafter.selector.pick = pick  # type: ignore[method-assign, assignment]
    drafter.selector.best_lengths = lambda arm, reach: (0, 0)  # type: ignore[method-assign]
    for method in ("spec", "chimera", "ctc"):
        for name in "abab":
            cache, text = caches[name], texts[name]
            cache.truncate(0)
            target.read(text, cache)
            drafter.rewind(len(text))  # all of it was in this cache
            for _ in range(2):
                drafter.propose(Context(cache, 5, [], [], 9, rule))
        shared, last = len(PROMPT) + 10, len(texts["b"])
        first, again, *_, other, other_again = seen[-8:]
        assert first[method] >= len(texts["a"]) - shared and other[method] == last - shared
        assert max(again[method], other_again[method]) <= 1
        assert {seen[-1][name] for name in ("none", "medusa", "jacobi")} == {0}


class Echo(Method):
    """Proposes what it was told; keeps what it saw of its last tree."""

    def __init__(self, paths: list[list[int]]) -> None:
        self.paths = paths
        self.seen: list[tuple[list[int], list[int]]] = []

    @classmethod
    def build(cls, inputs: object, options: object) -> Echo:
        raise NotImplementedError

    def propose(self, context: Context) -> TokenTree:
        self.seen.append((list(context.path), list(context.target_tokens)))
        return TokenTree.from_paths(context.root, self.paths)


def test_a_drafter_sees_what_became_of_its_own_tree_alone() -> None:
    echo, cache = Echo([[7, 8], [9]]), tiny.context([5, 1, 5], 1).cache
    drafter = restless(Auto(tiny.target(), {"echo": echo, "lookup": Lookup(4)}))
    arm = next(arm for arm in drafter.selector.arms if arm.name == "echo")
    beside = iter([(0, 3), (0, 0), (2, 0), (0, 0), (0, 0)])
    drafter.selector.pick = lambda missed, room: arm  # type: ignore[method-assign]
    drafter.selector.best_lengths = lambda arm, reach: next(beside)  # type: ignore[method-assign]

    def step(path: list[int], target_tokens: list[int]) -> TokenTree:
        return drafter.propose(Context(cache, 1, path, target_tokens, 20, make_rule()))

    joined = step([], [])
    assert joined.tokens[:4] == (1, 7, 8, 9)
    assert joined.tokens[4:] == (5, 1)  # what followed the same words before, behind it
    assert drafter.choice == "echo+lookup"
    step([0, 4, 5], [5, 10, 11, 12, 1, 13])  # the other guesses were right
    assert drafter.choice == "echo"
    step([0, 1, 2], [7, 8, 3, 4])
    assert drafter.choice == "lookup"
    step([0], [3, 4, 5])
    step([0, 3], [9, 4, 5, 6])
    assert echo.seen == [([], []), ([0], [5, 10, 11, 12]), ([], []), ([0, 3], [9, 4, 5, 6])]


class Clock:
    """Tells the parts of steps as if drafting took half of a forward, or as much as was told."""

    draft = 0.5

    def __init__(self) -> None:
        self.parts = iter([self.draft, 1.0, 0.01, 0.01, 0.01])

    def split(self) -> float:
        return next(self.parts)


def timed(monkeypatch: pytest.MonkeyPatch, draft: float) -> None:
    monkeypatch.setattr(generate, "_Timer", type("Timer", (Clock,), {"draft": draft}))


def test_every_choice_is_in_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 0.5)
    drafter, stats = auto(), Stats()
    for step in tiny.run(tiny.target(), drafter, PROMPT, max_tokens=80):
        stats.add(step)
        assert step.choice in {arm.name for arm in drafter.selector.arms} | {"lookup"} or (
            step.choice.endswith("+lookup")
        )
    assert sum(stats.choices.values()) == stats.steps
    assert stats.spec("auto")["choices"] == stats.choices
    assert all(f"{name} {count}" in drafter.describe() for name, count in stats.choices.items())
    plain, silent = Stats(), tiny.run(tiny.target(), tiny.make("spec"), PROMPT)
    plain.add(silent[0])
    assert silent[0].choice == ""
    assert "choices" not in plain.spec("spec")


@pytest.mark.parametrize("accept", ["rejection", "typical"])
def test_steps_are_described_where_one_method_drafts_throughout(accept: str) -> None:
    drafter, choices = auto(), list[str]()
    for rule in (make_rule(), make_rule(accept, Sampling(1.0))):
        steps = tiny.run(tiny.target(), drafter, PROMPT, rule=rule, max_tokens=60)
        choices += [step.choice for step in steps]
    for name, count in Counter(choices[-64:]).items():
        assert f"{name} {count}" in drafter.describe()


def test_where_nothing_pays_decoding_is_plain_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed(monkeypatch, 30.0)

    class Wrong(Echo):
        def propose(self, context: Context) -> TokenTree:
            return TokenTree.chain(context.root, [63])

    drafter = Auto(tiny.target(), {"echo": Wrong([])})
    drafter.selector.use_costs(FLAT)
    draw = random.Random(0)
    for _ in range(3):
        prompt = [draw.randrange(60) for _ in range(20)]
        steps = tiny.run(tiny.target(), drafter, prompt, max_tokens=100)
    assert {step.choice for step in steps[-64:]} == {"none"}
    assert "plain decoding at present, since nothing else pays" in drafter.describe()


def test_text_that_repeats_itself_is_copied_beside_a_drafters_guesses_or_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that says the same eight words for ever, and a drafter that knows half of them."""
    timed(monkeypatch, 0.05)
    drafter = auto()
    drafter.selector.use_costs(FLAT)
    prompt = [*PROMPT, *tiny.slow("llama", PROMPT, 60), *PROMPT]
    choices: list[str] = []
    for _ in range(3):
        steps = tiny.run(tiny.target(), drafter, prompt, max_tokens=50)
        assert tiny.text(steps) == tiny.slow("llama", tuple(prompt), 50)
        choices += [step.choice for step in steps]
    assert any("lookup" in choice for choice in choices)


def test_it_chooses_from_what_was_asked_for() -> None:
    found: Any = tiny.make("auto", methods="spec+lookup")
    assert list(found.others) == ["spec", "lookup"]
    with pytest.raises(UsageError, match="'none' is no method that drafts") as error:
        tiny.make("auto", methods="lookup+none")
    assert "spec" in error.value.hint


def test_without_any_other_method_decoding_is_plain() -> None:
    for accept in RULES:
        rule = make_rule(accept, Sampling(1.0))
        steps = tiny.run(tiny.target(), Auto(tiny.target(), {}), PROMPT, rule=rule)
        assert {(len(step.tree), step.choice) for step in steps} == {(1, "none")}
