"""Acceptance rules on trees small enough to judge by hand."""

from __future__ import annotations

import random
import weakref
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nfox.decoding import rules
from nfox.decoding.rules import RULES, Greedy, Rejection, Typical, make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.target import token_range
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import verify
from nfox.errors import UsageError

SIZE = 6
TREE = TokenTree.from_paths(0, [[1, 2], [3, 4, 5], [2]])


def logits_for(tree: TokenTree, choices: list[int]) -> Tensor:
    """Return [N, V] logits whose largest ones are `choices`."""
    logits = torch.randn(len(tree), SIZE)
    logits[range(len(tree)), choices] = 9.0
    return logits


@pytest.mark.parametrize("accept", RULES)
def test_at_temperature_zero_every_rule_is_the_greedy_one(accept: str) -> None:
    for choices, path, next_token in [
        ([3, 0, 0, 4, 5, 1, 0], [0, 3, 4, 5], 1),  # the whole branch
        ([3, 2, 0, 0, 0, 0, 0], [0, 3], 0),  # 2 is right below 1, but 1 is refused
        ([5, 2, 0, 4, 5, 0, 0], [0], 5),
        ([2, 0, 0, 0, 0, 0, 4], [0, 6], 4),
    ]:
        rule = make_rule(accept, Sampling())
        verdict = verify(TREE, logits_for(TREE, choices), rule, [4])
        assert isinstance(rule, Greedy)
        assert (verdict.path, verdict.next_token, list(verdict.target_tokens)) == (
            path,
            next_token,
            choices,
        )
        assert rule.draw(logits_for(TREE, choices)[0], [4]).tokens == [choices[0]]


def test_a_rule_tells_the_noise_that_it_draws_by() -> None:
    torch.manual_seed(3)
    logits, past = torch.randn(len(TREE), SIZE), [4, 4]
    rule = make_rule("exact", Sampling(0.8))
    for node, token in enumerate(rule.judge(TREE, logits, past).target_tokens):
        noise = rule.noise_at(len(past) + 1 + TREE.depths[node])
        assert noise is not None
        row = torch.from_numpy(noise.of_tokens(token_range(SIZE)).copy())
        assert int((logits[node] / noise.temperature + row).argmax()) == token
    for accept, sampling in (
        ("exact", Sampling()),
        ("rejection", Sampling(0.8)),
        ("typical", Sampling(0.8)),
    ):
        assert make_rule(accept, sampling).noise_at(3) is None


@pytest.mark.parametrize(
    "sampling", [Sampling(0, repetition_penalty=1.5), Sampling(0.8, repetition_penalty=1.5)]
)
def test_the_penalty_follows_each_path(sampling: Sampling) -> None:
    """A node's row is penalised for the past, the root and the path to it: not for siblings."""
    torch.manual_seed(2)
    logits, past = torch.randn(len(TREE), SIZE), [4, 4]
    at_once = make_rule("exact", sampling).judge(TREE, logits, past).target_tokens
    for node in range(len(TREE)):
        path = [TREE.tokens[n] for n in TREE.path_to(node)]
        before = [*past, *path[:-1]]
        alone = make_rule("exact", sampling).judge(
            TokenTree.chain(path[-1]), logits[node : node + 1], before
        )
        assert list(alone.target_tokens) == [at_once[node]]
        # A draft model with the same logits draws the same token there.
        assert make_rule("exact", sampling).draw(logits[node], [*before, path[-1]]).tokens == [
            at_once[node]
        ]


@pytest.mark.parametrize("penalty", [0.7, 1.3])
def test_the_penalty_is_to_the_last_bit_that_of_each_row_alone(penalty: float) -> None:
    """For paths that repeat the past, themselves or neither, and where there is no past."""
    chance = random.Random(4)
    sampling = Sampling(1.0, repetition_penalty=penalty)
    for dtype in (torch.float32, torch.float64):
        for _ in range(20):
            paths = [[chance.randrange(SIZE) for _ in range(4)] for _ in range(5)]
            tree = TokenTree.from_paths(chance.randrange(SIZE), paths)
            past = [chance.randrange(SIZE) for _ in range(chance.randrange(4))]
            logits = torch.randn(len(tree), SIZE, dtype=dtype)
            before = logits.clone()
            penalised = rules._penalised(sampling, tree, logits, past)
            for node in range(len(tree)):
                seen = [*past, *(tree.tokens[ancestor] for ancestor in tree.path_to(node))]
                assert torch.equal(penalised[node], sampling.penalise(logits[node], seen))
            assert torch.equal(logits, before)


def test_a_long_past_is_looked_at_once_for_all_nodes() -> None:
    class Past(list[int]):
        looks = 0

        def __iter__(self) -> Iterator[int]:
            self.looks += 1
            return super().__iter__()

    past = Past([1, 2] * 100)
    for temperature in (0.0, 1.0):
        past.looks = 0
        rule = make_rule("exact", Sampling(temperature, repetition_penalty=1.3))
        rule.judge(TREE, torch.randn(len(TREE), SIZE), past)
        assert past.looks == 1


def test_sampling_chooses_alike_for_all_nodes_at_one_position() -> None:
    rule = make_rule("exact", Sampling(1.0, seed=4))
    logits = torch.randn(SIZE).expand(len(TREE), SIZE)
    choices = rule.judge(TREE, logits, [1, 1]).target_tokens
    for depth in range(4):
        assert len({c for c, d in zip(choices, TREE.depths, strict=True) if d == depth}) == 1


@pytest.mark.parametrize("accept", ["exact", "typical"])
def test_tokens_are_drawn_where_they_are_asked_for(
    accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, after accepted nodes only, and the same after all others when one asks later."""
    drawn, sample = [], Sampling.sample

    def counted(self: Sampling, logits: Any, noise: Any) -> int:
        drawn.append(logits)
        return sample(self, logits, noise)

    monkeypatch.setattr(Sampling, "sample", counted)
    rule, logits, past = make_rule(accept, Sampling(1.0)), torch.randn(len(TREE), SIZE), [4]
    judged = rule.judge(TREE, logits, past)
    judging = [n for n, accepted in enumerate(judged.accepted) if accepted and n in TREE.parents]
    assert len(drawn) == (0 if accept == "typical" else len(judging))
    past.append(5)  # as the loop does, before the next step asks
    part = judged.target_tokens[2:5]
    assert (len(judged.target_tokens), len(part)) == (len(TREE), 3)
    tokens = list(judged.target_tokens)
    assert list(part) == tokens[2:5]
    assert len(drawn) == len(TREE)
    assert list(rule.judge(TREE, logits, [4]).target_tokens) == tokens


def test_a_verdict_keeps_no_logits_once_it_is_released() -> None:
    logits = torch.randn(len(TREE), SIZE)
    kept = weakref.ref(logits)
    verdict = verify(TREE, logits, make_rule("exact", Sampling(1.0)), [4])
    del logits
    verdict.release()
    assert kept() is None and len(verdict.target_tokens) == len(TREE)
    with pytest.raises(RuntimeError, match="node 3 is asked for after"):
        verdict.target_tokens[3]
    verify(TREE, logits_for(TREE, [0] * len(TREE)), make_rule("exact"), [4]).release()


def test_where_p_equals_q_everything_is_accepted() -> None:
    sampling = Sampling(1.0)
    for seed in range(200):
        torch.manual_seed(seed)
        rule = make_rule("rejection", Sampling(1.0, seed=seed))
        logits = 3 * torch.randn(4, SIZE)
        drawn = [rule.draw(row, []) for row in logits[:3]]
        q = torch.stack([torch.zeros(SIZE), *(one.q for one in drawn if one.q is not None)])
        tree = TokenTree.chain(0, [one.tokens[0] for one in drawn], q)
        assert verify(tree, logits, rule, []).path == [0, 1, 2, 3]
    torch.testing.assert_close(q[1:], sampling.log_probabilities(logits[:3]).exp())


def test_a_token_the_target_never_takes_is_refused() -> None:
    logits = torch.zeros(2, SIZE)
    logits[:, 3] = -torch.inf
    for q in (None, torch.full((2, SIZE), 1 / SIZE)):
        for seed in range(50):
            rule = make_rule("rejection", Sampling(1.0, seed=seed))
            verdict = verify(TokenTree.chain(0, [3], q), logits, rule, [])
            assert verdict.path == [0]
            assert verdict.next_token != 3


def test_a_residual_of_no_mass_leaves_the_target_itself() -> None:
    """p = q up to rounding: nothing is left of max(p - q, 0), and nothing is divided by zero."""
    rule = make_rule("rejection", Sampling(1.0))
    assert isinstance(rule, Rejection)
    logits = torch.tensor([[0.0, 1.0, -torch.inf]] * 2)
    p = logits[0].softmax(-1)
    q = torch.stack([torch.zeros(3), p * 1.001])  # everywhere at least p
    for _ in range(3000):
        verdict = verify(TokenTree.chain(0, [1], q), logits, rule, [])
        assert verdict.next_token in (0, 1)


def test_one_token_with_all_the_mass() -> None:
    logits = torch.full((3, SIZE), -torch.inf)
    logits[:, 2] = 0
    for accept in RULES:
        rule = make_rule(accept, Sampling(1.0))
        assert verify(TokenTree.chain(0, [2, 2]), logits, rule, []).path == [0, 1, 2]
        assert verify(TokenTree.chain(0, [1, 2]), logits, rule, []).next_token == 2


def slow_typical(
    tree: TokenTree, logits: Tensor, sampling: Sampling, eps: float, delta: float
) -> list[int]:
    """Return the path of Medusa's rule, straight from its formula."""
    p = sampling.log_probabilities(logits.double()).exp()
    best, best_key = [0], (0, 0.0)
    for leaf in range(len(tree)):
        path, score, fine = tree.path_to(leaf), 0.0, True
        for parent, node in pairwise(path):
            entropy = -sum(x * torch.log(x + 1e-5) for x in p[parent])
            chance = p[parent, tree.tokens[node]]
            fine &= bool(chance > min(eps, delta * torch.exp(-entropy)))
            score += float(chance.log())
        if fine and (len(path) - 1, score) > best_key:
            best, best_key = path, (len(path) - 1, score)
    return best


@pytest.mark.parametrize("sampling", [Sampling(0.7), Sampling(1.0), Sampling(1.0, top_p=0.8)])
def test_typical_acceptance_is_medusas_formula(sampling: Sampling) -> None:
    torch.manual_seed(1)
    depths = []
    for eps, delta in [(0.09, 0.3), (0.3, 0.6), (0.01, 0.1)]:
        rule = make_rule("typical", sampling, epsilon=eps, delta=delta)
        for _ in range(40):
            logits = 2 * torch.randn(len(TREE), SIZE)
            path = verify(TREE, logits, rule, [1]).path
            assert path == slow_typical(TREE, logits, sampling, eps, delta)
            depths.append(len(path))
    assert set(depths) == {1, 2, 3, 4}


def test_typical_takes_the_likelier_of_equally_long_paths() -> None:
    tree = TokenTree.from_paths(0, [[1], [2], [3]])
    logits = torch.tensor([[0.0, 2.0, 3.0, 2.5, 0.0, 0.0]] * 4)
    assert verify(tree, logits, make_rule("typical", Sampling(1.0)), []).path == [0, 2]


def test_typical_goes_on_as_exact_does() -> None:
    torch.manual_seed(3)
    logits = torch.randn(len(TREE), SIZE)
    rules = [make_rule(accept, Sampling(1.0, seed=8), reply=2) for accept in ("typical", "exact")]
    typical, exact = (list(rule.judge(TREE, logits, [1]).target_tokens) for rule in rules)
    assert typical == exact


@pytest.mark.parametrize("accept", RULES)
def test_every_rule_takes_the_logarithm_of_p_once_where_it_needs_it(
    accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, log_probabilities = [], Sampling.log_probabilities

    def counted(self: Sampling, logits: Tensor) -> Tensor:
        calls.append(logits.shape[:-1].numel())
        return log_probabilities(self, logits)

    monkeypatch.setattr(Sampling, "log_probabilities", counted)
    judged = make_rule(accept, Sampling(1.0)).judge(TREE, torch.randn(len(TREE), SIZE), [1])
    on_path = [1] * sum(judged.accepted)
    assert calls == {"rejection": on_path, "typical": [len(TREE)], "exact": []}[accept]


def test_whether_a_rule_is_lossless_cannot_be_set() -> None:
    assert not {field.name for rule in (Typical, Rejection) for field in fields(rule)} & {
        "lossless"
    }


def test_rules_say_whether_they_are_lossless() -> None:
    warm = Sampling(1.0)
    assert make_rule("exact", warm).lossless
    assert make_rule("rejection", warm).lossless
    assert not make_rule("rejection", warm, lenience=0.9).lossless
    assert not make_rule("typical", warm).lossless
    assert isinstance(make_rule("typical", warm), Typical)
    assert make_rule("typical", Sampling()).lossless  # then it is the greedy rule


@pytest.mark.parametrize(
    "options",
    [
        {"accept": "hopeful"},
        {"accept": "rejection", "lenience": 0.0},
        {"accept": "rejection", "lenience": 1.5},
        {"accept": "exact", "lenience": 0.5},
        {"accept": "typical", "epsilon": 0.0},
        {"accept": "typical", "epsilon": 1.5},
        {"accept": "typical", "delta": -0.3},
    ],
)
def test_bad_settings_are_refused(options: dict[str, float | str]) -> None:
    for sampling in (Sampling(), Sampling(1.0)):
        with pytest.raises(UsageError):
            make_rule(sampling=sampling, **options)  # type: ignore[arg-type]
