"""The draft model reads every token once, whatever happens to the conversation in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPT

from nfox.decoding.costs import Costs
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import RULES, make_rule
from nfox.decoding.sampling import Sampling
from nfox.drafters.common.method import DrafterInputs, WeightSources
from nfox.drafters.lookup import Lookup
from nfox.drafters.none import Autoregressive
from nfox.drafters.spec import SpecOptions, Speculative
from nfox.errors import ModelError
from nfox.models import transformers_target
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget

TARGET, DRAFT = tiny.target(), tiny.draft()
RIGHT = tiny.slow("llama", PROMPT, 24)


@contextmanager
def reads(draft: TransformersTarget) -> Iterator[list[int]]:
    """Count the tokens of every forward of a draft model."""
    widths: list[int] = []
    embedding = draft.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda m, args, out: widths.append(args[0].shape[-1]))
    try:
        yield widths
    finally:
        hook.remove()


def perfect(gamma: int) -> Speculative:
    """A draft model that is the target again."""
    return Speculative(tiny.recast("llama", torch.float64), tiny.VOCABULARY, gamma)


def decode(drafter: Any, prompt: tuple[int, ...] = PROMPT, **more: Any) -> list[int]:
    return tiny.text(tiny.run(TARGET, drafter, prompt, **more))


@pytest.mark.parametrize("accept", RULES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_as_its_own_draft_is_always_right(accept: str, temperature: float) -> None:
    if accept == "typical" and temperature:
        pytest.skip("it may refuse what the target itself would say")
    rule = make_rule(accept, Sampling(temperature, seed=3))
    steps = tiny.run(TARGET, perfect(3), PROMPT, rule=rule)
    assert [len(step.tokens) for step in steps] == [4] * 6


@pytest.mark.parametrize("gamma", [1, 3, 6])
def test_every_token_is_read_once(gamma: int) -> None:
    drafter = perfect(gamma)
    with reads(drafter.draft) as widths:
        text = [*PROMPT, *decode(drafter)]
    # All guesses come true, so what was read is the text up to the last drafted token's parent.
    assert sum(widths) == len(drafter.cache.tokens)
    assert drafter.cache.tokens == text[: sum(widths)]


def test_a_step_reads_what_is_new_and_what_it_drafts() -> None:
    drafter = Speculative(DRAFT, tiny.VOCABULARY, 4)
    with reads(DRAFT) as widths:
        steps = tiny.run(TARGET, drafter, PROMPT)
    assert widths[:2] == [len(PROMPT) - 1, 1]  # the prompt, then its last token, the root
    rest = widths[1:]
    for number, step in enumerate(steps):
        drafted = len(step.tree) - 1
        mine, rest = rest[:drafted], rest[drafted:]
        all_came_true = number > 0 and steps[number - 1].sources[-1] == "bonus"
        # Of a path that came true the last token was drafted, never read.
        assert mine == [2 if all_came_true else 1, *[1] * (drafted - 1)][:drafted]
    assert rest == []
    assert {step.sources[-1] for step in steps} == {"bonus", "corrected"}


def test_it_joins_late() -> None:
    cache, drafter = TARGET.new_cache(), Speculative(DRAFT, tiny.VOCABULARY, 3)
    text = (*PROMPT, *decode(Autoregressive(), cache=cache), 8)
    with reads(DRAFT) as widths:
        assert decode(drafter, text, cache=cache, max_tokens=2) == tiny.slow("llama", text, 2)
    assert widths[0] == len(text) - 1


def test_a_reply_that_is_cancelled_does_not_wait_for_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transformers_target, "CHUNK", 4)
    cache, drafter = TARGET.new_cache(), Speculative(DRAFT, tiny.VOCABULARY, 3)
    text = (*PROMPT, *decode(Autoregressive(), cache=cache), 8)
    with reads(DRAFT) as widths:
        (step,) = tiny.run(
            TARGET, drafter, text, cache=cache, cancelled=lambda: len(drafter.cache.tokens) >= 8
        )
    assert widths == [4, 4]
    assert len(step.tree) == 1
    with reads(DRAFT) as widths:
        assert decode(drafter, text, cache=cache, max_tokens=2) == tiny.slow("llama", text, 2)
    assert sum(widths) == len(text) - 8  # the rest, the root among it


def first_reads(drafter: Speculative, prompt: tuple[int, ...], cache: Any) -> int:
    """Return how many tokens are read for the first proposal to a prompt."""
    with reads(drafter.draft) as widths:
        expected = tiny.slow("llama", prompt, 2)
        assert decode(drafter, prompt, cache=cache, max_tokens=2) == expected
    return sum(widths[:2]) if len(widths) > 1 else sum(widths)


def test_it_catches_up_after_truncation() -> None:
    cache, drafter = TARGET.new_cache(), Speculative(DRAFT, tiny.VOCABULARY, 3)
    decode(drafter, cache=cache)
    assert first_reads(drafter, PROMPT, cache) == 1  # regenerate: only the root is new
    assert first_reads(drafter, (*PROMPT[:5], 40, 41, 42), cache) == 3
    assert first_reads(drafter, (*PROMPT[:5], 40, 43), cache) == 1


def test_it_catches_up_after_another_method_changed_the_text() -> None:
    cache, drafter = TARGET.new_cache(), Speculative(DRAFT, tiny.VOCABULARY, 3)
    decode(drafter, cache=cache, max_tokens=6)
    other = (*PROMPT[:5], *range(40, 60))
    decode(Lookup(), other, cache=cache, max_tokens=6)  # longer than what the draft model knows
    assert first_reads(drafter, (*other, 1), cache) == len(other) + 1 - 5
    kept = drafter.cache.tokens[: len(other) + 1]
    assert kept == [*other, 1]


def test_it_catches_up_after_an_interrupt() -> None:
    cache, drafter = TARGET.new_cache(), Speculative(DRAFT, tiny.VOCABULARY, 3)
    decode(drafter, cache=cache, max_tokens=6)
    longer = (*PROMPT, *RIGHT[:6], 9, 9)
    for line in range(40, 200, 7):
        with tiny.interrupt(line):
            decode(drafter, longer, cache=cache)
        known = drafter.cache.tokens
        assert known[: len(PROMPT)] == list(PROMPT)
        assert decode(drafter, longer, cache=cache, max_tokens=8) == tiny.slow("llama", longer, 8)
        decode(drafter, PROMPT, cache=cache, max_tokens=6)


@pytest.mark.parametrize("size", [tiny.VOCABULARY - 20, tiny.VOCABULARY + 20])
@pytest.mark.parametrize(
    "accept", [pytest.param(a, marks=pytest.mark.slow if a != "exact" else ()) for a in RULES]
)
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_vocabularies_of_different_sizes(size: int, accept: str, temperature: float) -> None:
    """The draft model reads what it does not know, and draws nothing that the target lacks."""
    draft = tiny.target("llama", vocab_size=size)
    sampling = Sampling(temperature, seed=5, repetition_penalty=1.1)
    texts = []
    for drafter in (Speculative(draft, tiny.VOCABULARY, 4), Autoregressive()):
        rule = make_rule(accept, sampling)
        steps = tiny.run(TARGET, drafter, (*PROMPT, 63, 60), rule=rule, max_tokens=24)
        assert all(token < tiny.VOCABULARY for step in steps for token in step.tree.tokens)
        texts.append(tiny.text(steps))
    if accept == "exact" or not temperature:
        assert texts[0] == texts[1]


def test_padding_has_no_probability() -> None:
    draft = tiny.target("llama", vocab_size=tiny.VOCABULARY - 20)
    steps = tiny.run(
        TARGET,
        Speculative(draft, tiny.VOCABULARY, 3),
        PROMPT,
        rule=make_rule("rejection", Sampling(1.0)),
    )
    for step in steps:
        assert step.tree.q is None or step.tree.q[1:, -20:].eq(0).all()
        assert step.tree.q is None or torch.allclose(
            step.tree.q[1:].sum(-1), torch.ones(len(step.tree) - 1).double()
        )


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.3, 1.0])
def test_drafting_stops_where_it_does_not_pay(floor: float) -> None:
    """The token that makes the chain too unlikely stays itself: it has been drawn."""
    budget = NodeBudget(63, tokens_per_second=1.0, draft_seconds=floor)
    drafter = Speculative(DRAFT, tiny.VOCABULARY, 4, 1, budget)
    rule, lengths = make_rule("rejection", Sampling(0.4, seed=1)), set()
    for step in tiny.run(TARGET, drafter, PROMPT, rule=rule, max_tokens=60)[:-3]:
        assert step.tree.q is not None
        chances = step.tree.q[range(1, len(step.tree)), step.tree.tokens[1:]].cumprod(0)
        assert (chances[:-1] >= floor).all()
        assert chances[-1] < floor or len(chances) == 4
        lengths.add(len(chances))
    assert max(lengths) > 1 or floor == 1
    assert len(lengths) > 1 or floor in (0, 1)


@pytest.mark.parametrize("accept", ["exact", "typical"])
def test_the_guesses_that_pay_are_tried(accept: str) -> None:
    """Of all that were drawn: the likeliest, as many as the costs allow, the second before none."""
    costs = Costs({1: 1.0, 2: 1.02, 64: 2.5})
    trees = []
    for budget in (None, NodeBudget(63, costs, 0.5), NodeBudget(63, costs, 2.0)):
        rule = make_rule(accept, Sampling(0.7, seed=4))
        drafter = Speculative(DRAFT, tiny.VOCABULARY, 4, 10, budget)
        # One step from the same place for all of them.
        trees.append(
            [tiny.run(TARGET, drafter, PROMPT[:n], rule=rule)[0].tree for n in range(2, 8)]
        )
    for every, cheap, dear in zip(*trees, strict=True):
        assert len(every) == 41
        assert len(every) > len(cheap) > len(dear)
        known = [
            {tuple(tree.tokens[n] for n in tree.path_to(node)) for node in range(len(tree))}
            for tree in (dear, cheap, every)
        ]
        assert known[0] < known[1] < known[2]


def test_a_plan_amid_a_conversation_forgets_nothing_of_it() -> None:
    drafter = Speculative(DRAFT, tiny.VOCABULARY, is_explicit=False, target=TARGET)
    cache = TARGET.new_cache()
    for length in (9, 14, 20):
        prompt = (*PROMPT, *RIGHT[:length])
        drafter.plan(Costs({1: 1.0, 64: 1.1}))
        with reads(DRAFT) as widths:
            assert decode(drafter, prompt, cache=cache, max_tokens=4) == RIGHT[length : length + 4]
        assert len(prompt) > sum(widths) or length == 9


def test_gamma_zero_is_plain_decoding() -> None:
    drafter = Speculative(DRAFT, tiny.VOCABULARY, 0)
    with reads(DRAFT) as widths:
        steps = tiny.run(TARGET, drafter, PROMPT)
    assert tiny.text(steps) == RIGHT
    assert {len(step.tree) for step in steps} == {1}
    assert widths == []


def test_a_draft_model_with_a_shorter_context_falls_silent() -> None:
    draft = tiny.target("gpt2", max_position_embeddings=20)
    steps = tiny.run(TARGET, Speculative(draft, tiny.VOCABULARY, 3), PROMPT)
    assert tiny.text(steps) == RIGHT
    assert len(steps[0].tree) == 4
    assert len(steps[-3].tree) == 1


def build(target: Any, draft: Any, **vocabularies: dict[str, int]) -> Speculative:
    def named(name: str, model: TransformersTarget) -> LoadedModel:
        words = vocabularies.get(name)
        tokenizer = words and SimpleNamespace(get_vocab=lambda: words)
        return LoadedModel(name, model, tokenizer)

    parts = DrafterInputs(
        named("big", target), weights="small", load=lambda name: named(name, draft)
    )
    return Speculative.build(parts, SpecOptions())


def words(count: int, start: int = 0) -> dict[str, int]:
    return {f"word{number}": number + start for number in range(count)}


def test_sizes_may_differ_tokenizers_may_not() -> None:
    assert build(TARGET, DRAFT, big=words(64), small=words(64)).gamma == 8
    assert build(TARGET, DRAFT, big=words(64), small=words(60)).name == "small"
    assert build(TARGET, DRAFT, big=words(60), small=words(64))
    swapped = words(64) | {"word3": 4, "word4": 3}
    for other in (words(64, start=1), {f"ord{n}": n for n in range(64)}, swapped):
        with pytest.raises(ModelError, match="small has another tokenizer than big"):
            build(TARGET, DRAFT, big=words(64), small=other)


def test_a_few_reserved_tokens_may_have_other_names() -> None:
    """As in Llama 3 and 3.2: four names are new, and so the numbers of 246 others moved on."""
    plain = {f"word{number}": number for number in range(128_000)}
    named = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|python_tag|>"]

    def with_reserved(names: list[str]) -> dict[str, int]:
        rest = (f"<|reserved_special_token_{number}|>" for number in range(256 - len(names)))
        return plain | {token: 128_000 + n for n, token in enumerate([*names, *rest])}

    three, later = with_reserved(named[:2]), with_reserved(named)
    assert sum(three[token] != number for token, number in later.items() if token in three) > 200
    assert build(TARGET, DRAFT, big=three, small=later)
    assert build(TARGET, DRAFT, big=later, small=three | {"<image>": 128_256})
    moved = {token: number + (number >= 100_000) for token, number in plain.items()}
    with pytest.raises(ModelError, match="another tokenizer"):
        build(TARGET, DRAFT, big=three, small=moved)


@pytest.mark.parametrize("size", [48, 63, 65, 80])
def test_without_a_tokenizer_the_size_of_the_vocabulary_decides(size: int) -> None:
    draft = tiny.target("llama", vocab_size=size)
    if abs(size - tiny.VOCABULARY) > 1:
        with pytest.raises(ModelError, match=f"another vocabulary than big: {size} tokens"):
            build(TARGET, draft, big=words(64))
    else:
        assert build(TARGET, draft, big=words(64))
    if size < tiny.VOCABULARY:  # the target's embedding is padded, the draft model's is not
        assert build(TARGET, draft, big=words(48))


def test_it_says_when_drafting_does_not_pay() -> None:
    steep = Costs({1: 1.0, 2: 2.0, 32: 32.0})
    parts = DrafterInputs(
        LoadedModel("big", TARGET), steep, "small", lambda _: LoadedModel("small", DRAFT)
    )
    drafter = Speculative.build(parts, SpecOptions())
    assert "does not pay on this machine" in drafter.describe()
    assert {len(step.tree) for step in tiny.run(TARGET, drafter, PROMPT)} == {1}
    for gamma, said in ((0, "as asked for"), (2, "gamma 2")):
        described = Speculative.build(parts, SpecOptions(gamma)).describe()
        assert said in described and "pay" not in described


def test_what_cannot_draft_is_refused() -> None:
    with pytest.raises(ModelError, match="small cannot draft: its recurrent state"):
        build(TARGET, tiny.target("mamba"))
    with pytest.raises(
        ModelError, match="big is a decoder-only model, the draft model small is an"
    ):
        build(TARGET, tiny.target("t5"))
    with pytest.raises(ModelError, match="no draft model was named"):
        Speculative.build(DrafterInputs(LoadedModel("big", TARGET)), SpecOptions())


def test_its_weights_are_named_or_lie_beside_the_model(tmp_path: Path) -> None:
    assert Speculative.locate(str(tmp_path), WeightSources()) is None
    assert Speculative.locate(str(tmp_path), WeightSources("some/model")) == "some/model"
    beside = tmp_path / "nfox" / "spec"
    beside.mkdir(parents=True)
    assert Speculative.locate(str(tmp_path), WeightSources()) == str(beside)


def test_second_guesses_stand_beside_the_first_and_are_followed() -> None:
    right = tiny.slow("llama", PROMPT, 40)
    drafter = Speculative(DRAFT, tiny.VOCABULARY, 3, 8)
    steps = tiny.run(TARGET, drafter, PROMPT, max_tokens=40)
    assert tiny.text(steps) == right
    assert all(len(step.tree) <= 1 + 8 * 3 and max(step.tree.depths) <= 3 for step in steps)
    aside = [s for s in steps if s.verdict.path != list(range(len(s.verdict.path)))]
    assert aside  # a second guess was the right one
    chain = tiny.run(TARGET, Speculative(DRAFT, tiny.VOCABULARY, 3), PROMPT, max_tokens=40)
    assert len(steps) < len(chain)


@pytest.mark.parametrize("size", [tiny.VOCABULARY - 20, tiny.VOCABULARY, tiny.VOCABULARY + 20])
@pytest.mark.parametrize("floor", [0.0, 0.05])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_a_chain_in_one_call_makes_the_trees_of_many(
    size: int, floor: float, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After refused guesses, amid a conversation that another method went on with, and with ids
    that only one of both models knows.
    """
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "vocab_size": size}
    draft = tiny.recast("llama", torch.bfloat16, **sizes)
    draft.fuse()
    if not draft.is_native:
        pytest.skip(draft.why_not_native)
    told = []
    for in_one_call in (True, False):
        if not in_one_call:
            monkeypatch.setattr(TransformersTarget, "chain_drafter", None)
        drafter = Speculative(draft, tiny.VOCABULARY, 4, 3, NodeBudget(9, draft_seconds=floor))
        cache = TARGET.new_cache()
        rules = (make_rule(sampling=Sampling(temperature, seed=3)) for _ in range(2))
        steps = tiny.run(
            TARGET, drafter, (*PROMPT, 63, 60), cache=cache, max_tokens=30, rule=next(rules)
        )
        longer = (*PROMPT, *tiny.text(tiny.run(TARGET, Lookup(), PROMPT, max_tokens=9)))
        steps += tiny.run(TARGET, drafter, longer, cache=cache, max_tokens=20, rule=next(rules))
        told.append([(step.tree.tokens, step.tree.parents, step.tokens) for step in steps])
    assert told[0] == told[1]
    assert any(len(tokens) > 4 for tokens, *_ in told[0])


def test_replies_that_cannot_draft_in_one_call_have_a_price_of_their_own() -> None:
    draft = tiny.recast("llama", torch.bfloat16, hidden_size=64, intermediate_size=96, head_dim=16)
    draft.fuse()
    if not draft.is_native:
        pytest.skip(draft.why_not_native)
    drafter = Speculative(draft, tiny.VOCABULARY, is_explicit=False, target=TARGET)
    drafter.plan(Costs({1: 1.0, 64: 1.1}))  # nothing is dear beside such forwards
    assert drafter._by_steps is not None and drafter._by_steps[0] == drafter.gamma > 0
    assert drafter._times_by_steps is not None and drafter._times_by_steps >= 1
    drafter._by_steps = 0, NodeBudget(9)
    for accept, sampling in (
        ("exact", Sampling(repetition_penalty=1.2)),
        ("exact", Sampling(1.0, repetition_penalty=1.2)),
        ("rejection", Sampling(1.0)),
        ("typical", Sampling(1.0)),
    ):
        steps = tiny.run(TARGET, drafter, PROMPT, rule=make_rule(accept, sampling))
        assert {len(step.tree) for step in steps} == {1}
    for sampling in (Sampling(), Sampling(1.0, seed=1)):
        steps = tiny.run(TARGET, drafter, PROMPT, rule=make_rule(sampling=sampling))
        assert max(len(step.tree) for step in steps) > 1
