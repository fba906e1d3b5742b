"""Mistakes of published programs for speculative and Jacobi decoding, each one a test here.

Leviathan's and Chen's rule is widely copied from LLMSpeculativeSampling, Jacobi decoding from
Consistency_LLM. What is listed in their issues or found in their code must not come back.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPT

from nfox import drafters
from nfox.decoding.rules import RULES, Rejection, Typical, make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import verify
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.jacobi import Jacobi
from nfox.drafters.spec import Speculative
from nfox.reply import Settings

METHODS = tiny.methods("llama")
HEADS = [name for name in METHODS if issubclass(drafters.method_class(name), HeadsDrafter)]
RIGHT = tiny.slow("llama", PROMPT, 24)


def perfect(gamma: int = 6) -> tiny.Oracle:
    return tiny.Oracle([*PROMPT, *RIGHT], gamma)


# Speculative sampling.


def test_the_end_of_text_ends_the_text() -> None:
    end = RIGHT[9]
    first = RIGHT.index(end)
    for drafter in (perfect(), *(tiny.make(method) for method in METHODS)):
        steps = tiny.run(tiny.target(), drafter, PROMPT, stop_ids={end})
        assert tiny.text(steps) == RIGHT[: first + 1]
        assert steps[-1].finish == "stop"


@pytest.mark.parametrize("most", range(1, 9))
def test_no_step_overshoots_the_limit(most: int) -> None:
    assert len(tiny.text(tiny.run(tiny.target(), perfect(), PROMPT, max_tokens=most))) == most


@pytest.mark.parametrize("accept", RULES)
def test_token_zero_can_be_drawn(accept: str) -> None:
    """As a draft, as the target's own token, and from what is left after a refusal."""
    logits = torch.tensor([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    seen = set()
    for seed in range(60):
        rule = make_rule(accept, Sampling(1.0, seed=seed))
        assert rule.draw(logits[0], [1]).tokens[0] in range(3)
        verdict = verify(TokenTree.chain(1, [seed % 3]), logits, rule, [1])
        seen.add((len(verdict.path), verdict.next_token))
    assert {(1, 0), (2, 0)} <= seen


def test_a_residual_without_mass_is_no_nan() -> None:
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf]] * 2)
    q = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    rule = make_rule("rejection", Sampling(1.0))
    for tree in (TokenTree.chain(2, [0], q), TokenTree.chain(2, [1]), TokenTree.chain(2)):
        assert verify(tree, logits, rule, []).next_token == 0


def test_every_test_of_acceptance_has_its_own_random_number(monkeypatch: Any) -> None:
    drawn: list[float] = []
    rand = torch.rand

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        drawn.append(float(number := rand(*args, **kwargs)))
        return number

    monkeypatch.setattr("nfox.decoding.rules.torch.rand", watched)
    rule = make_rule("rejection", Sampling(1.0, seed=1))
    drafter = Speculative(tiny.draft(), tiny.VOCABULARY, 4)
    tiny.run(tiny.target(), drafter, PROMPT, rule=rule)
    assert len(drawn) > 10
    assert len(set(drawn)) == len(drawn)


def test_seed_zero_is_a_seed() -> None:
    texts = []
    for seed in (0, 0, 1):
        for accept in ("exact", "rejection"):
            torch.manual_seed(len(texts))  # the global generator has no say
            rule = make_rule(accept, Sampling(1.0, seed=seed))
            drafter = Speculative(tiny.draft(), tiny.VOCABULARY, 3)
            texts.append(tiny.text(tiny.run(tiny.target(), drafter, PROMPT, rule=rule)))
    assert texts[:2] == texts[2:4]
    assert texts[0] != texts[4]
    assert texts[1] != texts[5]


def test_the_global_generator_stays_untouched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for method in METHODS:
        for accept in RULES:
            rule = make_rule(accept, Sampling(1.0))
            drafter = tiny.make(method)
            tiny.run(tiny.target(), drafter, PROMPT, rule=rule, max_tokens=6)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("accept", RULES)
@pytest.mark.parametrize("method", METHODS)
def test_temperature_zero_divides_by_nothing(method: str, accept: str) -> None:
    rule = make_rule(accept, Sampling(0.0, top_k=3, top_p=0.5, min_p=0.1))
    steps = tiny.run(tiny.target(), tiny.make(method), PROMPT, rule=rule)
    assert tiny.text(steps) == RIGHT


def test_gamma_reaches_the_drafter() -> None:
    for gamma in (0, 1, 5):
        made = tiny.make("spec", gamma=gamma)
        steps = tiny.run(tiny.target(), made, PROMPT)
        assert max(steps[0].tree.depths) == gamma
        made = tiny.make("lookup", gamma=gamma)
        assert max(len(s.tree) for s in tiny.run(tiny.target(), made, PROMPT * 2)) == gamma + 1


def test_only_new_tokens_are_counted() -> None:
    """Neither the prompt nor what stands behind the end of the text."""
    end = RIGHT[2]
    first = RIGHT.index(end)
    steps = tiny.run(tiny.target(), perfect(8), PROMPT, stop_ids={end})
    assert [len(step.tokens) for step in steps] == [first + 1]
    assert len(steps[0].sources) == first + 1
    assert steps[0].sources == ("accepted",) * (first + 1)


def test_p_and_q_are_processed_alike() -> None:
    """q is what was really sampled from: with top-k and top-p, not the raw softmax."""
    sampling = Sampling(0.7, top_k=4, top_p=0.9, min_p=0.02, repetition_penalty=1.3)
    rule = make_rule("rejection", sampling)
    assert isinstance(rule, Rejection)
    logits, past = torch.randn(12), [3, 4]
    q = rule.draw(logits, past).q
    expected = sampling.log_probabilities(sampling.penalise(logits, past)).exp()
    torch.testing.assert_close(q, expected)


def test_bloom_needs_no_special_case() -> None:
    right = tiny.slow("bloom", PROMPT, 24)
    steps = tiny.run(tiny.target("bloom"), tiny.make("spec", "bloom"), PROMPT)
    assert tiny.text(steps) == right
    assert len(steps) < 24


def test_a_draft_is_no_worse_for_being_cached() -> None:
    """The draft model's own past is the text, so it drafts what it would draft from scratch."""
    drafter = Speculative(tiny.draft(), tiny.VOCABULARY, 3)
    text = list(PROMPT)
    for step in tiny.run(tiny.target(), drafter, PROMPT):
        drafted: list[int] = []
        with torch.inference_mode():
            for _ in range(len(step.tree) - 1):
                ids = torch.tensor([[*text, *drafted]])
                drafted.append(int(tiny.draft().model(ids).logits[0, -1].argmax()))
        assert list(step.tree.tokens[1:]) == drafted
        text += step.tokens


# Medusa's typical acceptance.


def test_epsilon_and_delta_are_not_swapped_where_nothing_is_said() -> None:
    rule = make_rule("typical", Sampling(1.0))
    assert isinstance(rule, Typical)
    assert (rule.epsilon, rule.delta) == (0.09, 0.3)
    assert (Settings().epsilon, Settings().delta) == (0.09, 0.3)
    for chance, accepted in ((0.12, True), (0.08, False)):  # the others are too rare to matter
        logits = torch.tensor([[1 - chance, chance, 0.0]]).log().expand(2, -1)
        verdict = verify(TokenTree.chain(2, [1]), logits, rule, [2])
        assert (len(verdict.path) == 2) == accepted


@pytest.mark.slow
def test_typical_acceptance_samples() -> None:
    for method in HEADS:
        texts = set()
        for seed in range(4):
            rule = make_rule("typical", Sampling(1.0, seed=seed))
            steps = tiny.run(tiny.target(), tiny.make(method), PROMPT, rule=rule)
            texts.add(tuple(tiny.text(steps)))
        assert len(texts) == 4


# Jacobi decoding.


@pytest.mark.parametrize("window", [1, 5, 16])
def test_every_pass_commits_a_token_and_none_behind_the_end(window: int) -> None:
    right = tiny.slow("gpt2", PROMPT, 40)
    end = right[30]
    steps = tiny.run(tiny.target("gpt2"), Jacobi(window), PROMPT, max_tokens=40, stop_ids={end})
    assert tiny.text(steps) == right[: right.index(end) + 1]
    assert all(step.tokens for step in steps)


def test_a_block_does_not_overshoot() -> None:
    for most in range(1, 20):
        steps = tiny.run(tiny.target("gpt2"), Jacobi(16), PROMPT, max_tokens=most)
        assert len(tiny.text(steps)) == most


def test_the_end_of_text_in_the_prompt_ends_nothing() -> None:
    end = RIGHT[9]
    prompt = (*PROMPT, end, 4, end, 8)
    right = tiny.slow("llama", prompt, 24)
    cut = right[: right.index(end) + 1] if end in right else right
    for method in METHODS:
        steps = tiny.run(tiny.target(), tiny.make(method), prompt, stop_ids={end})
        assert tiny.text(steps) == cut


@pytest.mark.parametrize("method", METHODS)
def test_a_later_turn_does_not_read_the_conversation_again(method: str) -> None:
    target, cache, drafter = tiny.target(), tiny.target().new_cache(), tiny.make(method)
    widths: list[int] = []
    prompt = PROMPT
    embedding = target.model.get_input_embeddings()
    for turn in range(3):
        hook = embedding.register_forward_hook(lambda m, a, out: widths.append(a[0].shape[-1]))
        steps = tiny.run(target, drafter, prompt, cache=cache, max_tokens=8)
        hook.remove()
        new = widths[0] if turn else 0
        assert new <= 3  # what had not been read of the reply, and the next question's start
        widths.clear()
        prompt = (*prompt, *tiny.text(steps), 20 + turn, 6)


def test_jacobi_samples() -> None:
    texts = set()
    for seed in range(4):
        rule = make_rule("exact", Sampling(1.0, seed=seed))
        steps = tiny.run(tiny.target(), Jacobi(4), PROMPT, rule=rule)
        texts.add(tuple(tiny.text(steps)))
    assert len(texts) == 4
