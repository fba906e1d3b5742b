"""Greedy decoding gives the target's own text, whatever drafts, stops or interrupts it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import cycle
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPT
from torch import Tensor
from transformers.cache_utils import Cache

from nfox.decoding.cache import KVCache
from nfox.decoding.drafter import Context, Drafter
from nfox.decoding.generate import Limits, Prompt, generate
from nfox.decoding.rules import make_rule
from nfox.decoding.tree import TokenTree
from nfox.drafters.none import Autoregressive
from nfox.errors import ContextError, UsageError
from nfox.models.transformers_target import TransformersTarget

LLAMA = tiny.methods("llama")


def cases(*others: str) -> list[Any]:
    """Return families with methods: one of each kind of memory with all, each other with two.

    What is special about a family is how it reads a proposal and forgets what was wrong in it. A
    draft model of its own kind proposes chains, and forgets too; the second method goes round.
    """
    chosen = {family: tiny.methods(family) for family in tiny.KINDS}
    rounds = cycle(method for method in LLAMA if method not in ("none", "spec"))
    chosen |= {other: ["spec", next(rounds)] for other in others if other not in chosen}
    return [
        pytest.param(*family.values, method, marks=family.marks)
        for family in tiny.sweep(chosen)
        for method in chosen[family.values[0]]
    ]


CASES = cases(*tiny.DECODERS)
INTERRUPTED = cases()
# Windows in some layers only, and masks that are added, are undone in their own ways too.
UNDONE = cases("mistral-eager", "qwen2-mixed", "gemma3", "mpt")
SHORT = 6  # tokens: several steps of every method


def answer(family: str, prompt: Sequence[int], length: int = 24) -> list[int]:
    return tiny.slow(family, tuple(prompt), length)


@pytest.mark.parametrize("family", tiny.sweep(tiny.DECODERS))
def test_reference_is_the_text_of_transformers(family: str) -> None:
    assert answer(family, PROMPT, 40) == tiny.theirs(family, PROMPT, 40)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_greedy_text_is_the_targets_over_turns_with_one_cache(family: str, method: str) -> None:
    target, drafter, prompt = tiny.target(family), tiny.make(method, family), PROMPT
    cache = target.new_cache()
    for turn in range(3):
        steps = tiny.run(target, drafter, prompt, cache=cache, max_tokens=16)
        assert tiny.text(steps) == answer(family, prompt, 16)
        assert cache.tokens == [*prompt, *tiny.text(steps)][: len(cache.tokens)]
        prompt = (*prompt, *tiny.text(steps), 11 + turn, 4)


@pytest.mark.parametrize("family", tiny.sweep(tiny.DECODERS))
def test_random_trees_do_not_change_the_text(family: str) -> None:
    target, prompt = tiny.target(family), PROMPT
    if target.proposals != "trees":
        pytest.skip("takes no trees")
    cache, drafter = target.new_cache(), tiny.Scattered()
    branches = 0
    for turn in range(3):
        right = answer(family, prompt, 40)
        drafter.text = [*prompt, *right]
        steps = tiny.run(target, drafter, prompt, cache=cache, max_tokens=40)
        assert tiny.text(steps) == right
        branches += sum(step.verdict.path != list(range(len(step.verdict.path))) for step in steps)
        prompt = (*prompt, *right, 11 + turn, 4)
    assert branches > 9  # accepted rows really had to be moved


@pytest.mark.parametrize(
    "family", [f for f in tiny.DECODERS if tiny.FAMILIES[f].proposals != "nothing"]
)
@pytest.mark.parametrize("gamma", [0, 1, 4])
def test_an_oracle_is_always_believed(family: str, gamma: int) -> None:
    right = answer(family, PROMPT, 20)
    steps = tiny.run(
        tiny.target(family), tiny.Oracle([*PROMPT, *right], gamma), PROMPT, max_tokens=20
    )
    assert tiny.text(steps) == right
    assert [len(step.tokens) for step in steps] == [gamma + 1] * (20 // (gamma + 1))
    assert all(step.sources == ("accepted",) * gamma + ("bonus",) for step in steps)


def test_a_wrong_guess_is_corrected_and_no_guess_is_not() -> None:
    right = answer("llama", PROMPT, 8)
    guesses = [*right[:2], (right[2] + 1) % tiny.VOCABULARY, *right[3:]]
    steps = tiny.run(tiny.target(), tiny.Oracle([*PROMPT, *guesses], 4), PROMPT, max_tokens=8)
    assert steps[0].tokens == tuple(right[:3])
    assert steps[0].sources == ("accepted", "accepted", "corrected")
    assert steps[0].verdict.path == [0, 1, 2]
    plain = tiny.run(tiny.target(), tiny.Oracle((), 0), PROMPT, max_tokens=8)
    assert {step.sources for step in plain} == {("bonus",)}


@cache
def of_every_method(family: str) -> list[Drafter]:
    """Return a drafter of each method, which has drafted elsewhere before."""
    return [tiny.make(method, family) for method in tiny.methods(family)]


@pytest.mark.parametrize(("family", "method"), UNDONE)
def test_regenerate_undo_and_a_change_of_method(family: str, method: str) -> None:
    target, cache = tiny.target(family), tiny.target(family).new_cache()
    kept, others = tiny.make(method, family), of_every_method(family)
    longer = (*PROMPT, *answer(family, PROMPT, 9), 12, 30)
    undone = (*PROMPT[:6], 40, 2)
    for number, prompt in enumerate((PROMPT, longer, longer, PROMPT, undone, longer, PROMPT)):
        # Each joins late, and misses what the other did.
        for drafter in (kept, others[number % len(others)]):
            steps = tiny.run(target, drafter, prompt, cache=cache, max_tokens=SHORT)
            assert tiny.text(steps) == answer(family, prompt, SHORT)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2-mixed", "bloom", "mamba", "jamba"])
def test_a_prompt_is_read_in_chunks(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = (*PROMPT, *answer(family, PROMPT), 4, 9)
    whole = answer(family, prompt)
    monkeypatch.setattr("nfox.models.transformers_target.CHUNK", 7)
    assert tiny.text(tiny.run(tiny.target(family), tiny.make("none", family), prompt)) == whole


class Failing(Drafter):
    """Another drafter that is interrupted at the n-th proposal, before or after it proposed."""

    summary = "fails"

    def __init__(self, inner: Drafter, number: int, after: bool) -> None:
        self.inner, self.left, self.after = inner, number, after

    @classmethod
    def build(cls, parts: object, options: object) -> Failing:
        raise NotImplementedError

    def propose(self, context: Context) -> TokenTree:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        tree = self.inner.propose(context)
        if self.left == 0:
            raise KeyboardInterrupt
        return tree

    def rewind(self, length: int) -> None:
        self.inner.rewind(length)


def goes_on(family: str, drafter: Drafter, cache: KVCache, number: int) -> None:
    """Check that another prompt, one with a common start, is answered as if nothing happened."""
    prompt = [(*PROMPT, 8), (*PROMPT[:4], 3), PROMPT][number % 3]
    steps = tiny.run(tiny.target(family), drafter, prompt, cache=cache, max_tokens=SHORT)
    assert tiny.text(steps) == answer(family, prompt, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), INTERRUPTED)
def test_an_interrupt_inside_propose(family: str, method: str) -> None:
    drafter, cache = tiny.make(method, family), tiny.target(family).new_cache()
    for number in range(1, 7):
        failing = Failing(drafter, (number + 1) // 2, after=number % 2 == 0)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tiny.target(family), failing, PROMPT, cache=cache)
        goes_on(family, drafter, cache, number)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), INTERRUPTED)
def test_an_interrupt_inside_a_forward(
    family: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first layer and the second: of the prefill, of a step, of the draft model."""
    target, draft = tiny.target(family), tiny.draft(family)
    drafter, cache = tiny.make(method, family), target.new_cache()
    left = 0

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    def update(
        self: Cache, keys: Tensor, values: Tensor, layer: int, *more: object, **named: object
    ) -> object:
        if layer == 1 and self is not cache.past:  # a draft model may be run without its modules
            count()
        return own(self, keys, values, layer, *more, **named)

    own = Cache.update
    monkeypatch.setattr(Cache, "update", update)
    layers = [second_layer(model) for model in (target, draft)]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        for number in (1, 2, 3, 5, 8):
            left = number
            with pytest.raises(KeyboardInterrupt):
                tiny.run(target, drafter, (*PROMPT, number), cache=cache)
            goes_on(family, drafter, cache, number)
    finally:
        for hook in hooks:
            hook.remove()


def second_layer(target: TransformersTarget) -> torch.nn.Module:
    lists = [
        m for m in target.model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 2
    ]
    return lists[0][1]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), INTERRUPTED)
def test_an_interrupt_at_any_line(family: str, method: str) -> None:
    target, drafter = tiny.target(family), tiny.make(method, family)
    cache = target.new_cache()
    first = 1 + 3 * LLAMA.index(method)  # the lines of all methods together lie close
    for number in range(first, 400, 26 if family in ("llama", "mamba") else 61):
        prompt = (*PROMPT[: 3 + number % 7], number % 60, 5)
        with tiny.interrupt(number):
            tiny.run(target, drafter, prompt, cache=cache, max_tokens=6)
        goes_on(family, drafter, cache, number)


@pytest.mark.parametrize("method", LLAMA)
def test_a_reply_can_be_abandoned_between_steps(method: str) -> None:
    target, drafter, cache = tiny.target(), tiny.make(method), tiny.target().new_cache()
    for number in range(1, 5):
        steps = generate(
            target, drafter, Prompt(tuple(PROMPT)), cache=cache, rule=make_rule(), limits=Limits(24)
        )
        for _ in range(number):
            next(steps)
        steps.close()
        goes_on("llama", drafter, cache, number)


@pytest.mark.slow
@pytest.mark.parametrize("method", LLAMA)
def test_a_stop_token_ends_the_reply_wherever_it_stands(method: str) -> None:
    right = answer("llama", PROMPT)
    own = tiny.make(method)
    for end in dict.fromkeys(right[:12]):  # several steps of every method
        cut = right[: right.index(end) + 1]
        for drafter in (own, tiny.Oracle([*PROMPT, *right], 6)):
            steps = tiny.run(tiny.target(), drafter, PROMPT, stop_ids={end})
            assert tiny.text(steps) == cut
            last = "stop" if cut[-1] == end else "length"
            assert [step.finish for step in steps] == [None] * (len(steps) - 1) + [last]
            assert all(len(step.tokens) == len(step.sources) for step in steps)


@pytest.mark.parametrize("method", LLAMA)
@pytest.mark.parametrize("most", [0, 1, 2, 5, 8])
def test_never_more_than_max_tokens(method: str, most: int) -> None:
    right = answer("llama", PROMPT)
    for drafter in (tiny.make(method), tiny.Oracle([*PROMPT, *right], 6)):
        steps = tiny.run(tiny.target(), drafter, PROMPT, max_tokens=most)
        assert tiny.text(steps) == right[:most]
        assert [step.finish for step in steps][-1:] == ["length"][:most]


@pytest.mark.parametrize("method", LLAMA)
def test_the_context_is_filled_to_its_end_and_no_further(method: str) -> None:
    limit = len(PROMPT) + 7
    for drafter in (tiny.make(method), tiny.Oracle([*PROMPT, *answer("llama", PROMPT)], 5)):
        cache = tiny.target().new_cache()
        steps = tiny.run(tiny.target(), drafter, PROMPT, cache=cache, max_context=limit)
        # The last token is decided by a full context, and need not be read.
        assert tiny.text(steps) == answer("llama", PROMPT)[:8]
        assert steps[-1].finish == "context"
        assert len(cache.tokens) == limit


def test_the_models_own_context_is_the_limit() -> None:
    target = tiny.target("gpt2", max_position_embeddings=16)
    steps = tiny.run(target, tiny.Oracle((), 0), PROMPT)
    assert (steps[-1].finish, len(tiny.text(steps))) == ("context", 16 - len(PROMPT) + 1)
    with pytest.raises(ContextError, match="17 tokens, the context holds 16"):
        tiny.run(target, tiny.Oracle((), 0), range(17), max_context=99)


def test_a_prompt_of_one_token_and_one_that_fills_the_context() -> None:
    for method in LLAMA:
        for length in (1, len(PROMPT)):
            steps = tiny.run(tiny.target(), tiny.make(method), PROMPT[:length], max_context=10)
            expected = answer("llama", PROMPT[:length])[: 11 - length]
            assert tiny.text(steps) == expected


@pytest.mark.parametrize("asked", [1, 2, 5])
def test_the_caller_can_stop_before_every_forward(asked: int) -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls >= asked

    cache = tiny.target().new_cache()
    steps = tiny.run(tiny.target(), tiny.make("none"), PROMPT, cache=cache, cancelled=stop)
    assert len(tiny.text(steps)) == max(asked - 2, 0)  # the first question is before the prefill
    assert calls == asked
    assert tiny.text(tiny.run(tiny.target(), tiny.make("none"), PROMPT, cache=cache)) == (
        answer("llama", PROMPT)
    )


def test_steps_say_what_was_drafted_and_where_the_time_went() -> None:
    right = answer("llama", PROMPT)
    drafter = tiny.Scattered([*PROMPT, *right])
    for step in tiny.run(tiny.target(), drafter, PROMPT, keep_logits=True):
        assert step.logits is not None
        assert step.logits.shape == (len(step.tree), tiny.VOCABULARY)
        assert step.logits.argmax(-1).tolist() == step.verdict.target_tokens
        assert step.tokens[-1] == step.verdict.target_tokens[step.verdict.path[-1]]
        times = vars(step.times).values()
        assert min(times) >= 0
        assert step.times.total == pytest.approx(sum(times))


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="no tokens"):
        tiny.run(tiny.target("llama"), Autoregressive(), ())
