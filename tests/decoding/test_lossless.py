"""A lossless rule emits the target's own distribution, whoever drafts; a biased one is caught.

A long text is decoded from a table model, whose next token depends on the last two. What followed
every pair is then compared with the table by a chi-square test.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import Scattered, Table, restless
from torch import Tensor

from nfox.decoding.drafter import Context, Drafter
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import Rejection, SampleAndMatch, make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Draw, Rule
from nfox.drafters.auto import Auto
from nfox.drafters.common.method import Method
from nfox.drafters.jacobi import Jacobi
from nfox.drafters.lookup import Lookup
from nfox.drafters.none import Autoregressive
from nfox.drafters.spec import Speculative

SIZE = 6
LENGTH = 2000

_generator = torch.Generator().manual_seed(1)
P = torch.randn(SIZE, SIZE, SIZE, generator=_generator)
Q = P + 1.2 * torch.randn(SIZE, SIZE, SIZE, generator=_generator)
TARGET, DRAFT = Table(P), Table(Q)

SAMPLINGS = {
    "cool": Sampling(0.5),
    "plain": Sampling(1.0),
    "hot": Sampling(1.5),
    "top-k": Sampling(1.0, top_k=3),
    "top-p": Sampling(1.0, top_p=0.7),
    "all": Sampling(1.5, top_k=5, top_p=0.9, min_p=0.1),
}


class Siblings(Drafter):
    """A tree of three children and two grandchildren each, drawn from q without replacement."""

    summary = "draws siblings"

    @classmethod
    def build(cls, parts: object, options: object) -> Siblings:
        raise NotImplementedError

    def propose(self, context: Context) -> TokenTree:
        rule = context.rule
        assert isinstance(rule, Rejection)
        tokens, parents, rows = [context.root], [-1], [torch.zeros(SIZE)]
        queue = [(0, context.tokens[-1], 1)]
        while queue:
            node, before, depth = queue.pop(0)
            if depth > min(2, context.max_depth):
                continue
            q = rule.sampling.log_probabilities(Q[before, tokens[node]]).exp()
            count = min(4 - depth, int((q > 0).sum()))
            drawn = torch.multinomial(q, count, generator=rule.generator).tolist()
            for token in drawn:
                queue.append((len(tokens), tokens[node], depth + 1))
                tokens.append(token)
                parents.append(node)
                rows.append(q)
        return TokenTree(tuple(tokens), tuple(parents), torch.stack(rows))


def spec(
    gamma: int,
    floor: float = 0.0,
    branches: int = 1,
    kind: type[Speculative] = Speculative,
    draft: Table = DRAFT,
) -> Speculative:
    """Drafting on costs what a token of this chance is worth."""
    budget = NodeBudget(63, tokens_per_second=1.0, draft_seconds=floor)
    return kind(draft, SIZE, gamma, branches, budget)  # type: ignore[arg-type]


def others() -> dict[str, Method]:
    return {"spec": spec(3), "lookup": Lookup(3), "jacobi": Jacobi(2, 3, 2)}


DRAFTERS: dict[str, Any] = {
    "none": Autoregressive,
    "lookup": lambda: Lookup(3),
    "jacobi": lambda: Jacobi(3),
    "jacobi-pool": lambda: Jacobi(2, 3, 2),
    "jacobi-chains": lambda: Jacobi(3, 3, 2, takes_trees=False),
    "trees": lambda: Scattered(vocabulary=SIZE),
    "spec-0": lambda: spec(0),
    "spec-1": lambda: spec(1),
    "spec-3": lambda: spec(3),
    "spec-stops": lambda: spec(4, 0.4),
    "spec-branches": lambda: spec(3, 0.2, branches=3),
    "siblings": Siblings,
    "auto": lambda: Auto(TARGET, others()),  # type: ignore[arg-type]
    "auto-restless": lambda: restless(Auto(TARGET, others())),  # type: ignore[arg-type]
}


def decode(drafter: Drafter, rule: Rule, length: int = LENGTH) -> list[int]:
    """Return the prompt 0 1 and what follows."""
    return [0, 1, *tiny.text(tiny.run(TARGET, drafter, [0, 1], rule=rule, max_tokens=length))]


def p_value(text: list[int], p: Tensor) -> float:
    """Return how likely a text at least this far from the table is, by chance.

    Cells with fewer than five expected counts are pooled, per pair of tokens before them.
    """
    counts = torch.zeros(SIZE, SIZE, SIZE)
    for a, b, c in zip(text, text[1:], text[2:], strict=False):
        counts[a, b, c] += 1
    if (counts[p == 0] > 0).any():
        return 0.0
    statistic, freedom = 0.0, 0
    for row, probabilities in zip(counts.view(-1, SIZE), p.view(-1, SIZE), strict=True):
        cells = sorted(zip((probabilities * row.sum()).tolist(), row.tolist(), strict=True))
        while len(cells) > 1 and cells[0][0] < 5:
            (expected, seen), (more, others), *rest = cells
            cells = sorted([(expected + more, seen + others), *rest])
        if len(cells) > 1:
            statistic += sum((seen - expected) ** 2 / expected for expected, seen in cells)
            freedom += len(cells) - 1
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def table(sampling: Sampling) -> Tensor:
    return sampling.log_probabilities(P).exp()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_sample_and_match_is_lossless(kind: str) -> None:
    """With plain decoding; that all methods give the same text at one seed is tested below."""
    sampling = SAMPLINGS[kind]
    text = decode(Autoregressive(), make_rule("exact", sampling))
    assert p_value(text, table(sampling)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "all") for name in DRAFTERS),
        # How it is sampled matters most where the guesses are drawn too.
        *((name, "plain") for name in ("spec-3", "spec-stops", "spec-branches", "siblings")),
        *(("spec-3", kind) for kind in ("cool", "hot", "top-k", "top-p")),
        *(("siblings", kind) for kind in ("cool", "top-p")),
    ],
)
def test_rejection_is_lossless(name: str, kind: str) -> None:
    sampling = SAMPLINGS[kind]
    rule = make_rule("rejection", sampling)
    assert p_value(decode(DRAFTERS[name](), rule), table(sampling)) > 1e-4


@pytest.mark.parametrize("size", [SIZE - 3, SIZE + 3])
def test_a_draft_with_another_vocabulary_is_lossless(size: int) -> None:
    """It likes best what the target lacks, or does not know what the target likes."""
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(size, size, size, generator=generator)
    logits[..., SIZE:] += 2
    rule = make_rule("rejection", SAMPLINGS["plain"])
    text = decode(spec(3, draft=Table(logits)), rule, 1200)
    assert p_value(text, table(SAMPLINGS["plain"])) > 1e-4


@pytest.mark.slow
def test_replies_are_drawn_anew() -> None:
    """The first token of many replies: what differs between them is the reply's number alone."""
    for accept in ("exact", "rejection"):
        sampling, counts = Sampling(1.0, seed=3), torch.zeros(SIZE)
        for reply in range(1000):
            rule = make_rule(accept, sampling, reply=reply)
            counts[decode(Autoregressive(), rule, 1)[2]] += 1
        expected = table(sampling)[0, 1] * 1000
        statistic = ((counts - expected) ** 2 / expected).sum()
        freedom = torch.tensor((SIZE - 1) / 2)
        assert float(torch.special.gammaincc(freedom, statistic / 2)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_one_seed_gives_one_text_for_every_method(kind: str) -> None:
    rule = make_rule("exact", SAMPLINGS[kind], reply=5)
    texts = [decode(make(), rule, 200) for name, make in DRAFTERS.items() if name != "siblings"]
    assert all(text == texts[0] for text in texts)


class DropsTheTrigger(Speculative):
    """Leaves out the unlikely token that stopped the draft: biased, because of what it is."""

    def propose(self, context: Context) -> TokenTree:
        tree = super().propose(context)
        if tree.q is not None and float(tree.q[-1, tree.tokens[-1]]) < 0.4:
            q = tree.q[:-1] if len(tree) > 2 else None
            return TokenTree.chain(context.root, tree.tokens[1:-1], q)
        return tree


class SecondChance(Rejection):
    """Tries every child twice, as if the tree had equal siblings."""

    def _try_children(self, tree: TokenTree, children: Any, p: Tensor) -> tuple[int | None, Tensor]:
        node, rest = super()._try_children(tree, children, p)
        return (node, rest) if node is not None else super()._try_children(tree, children, p)


class OneNumber(Rejection):
    """Seeds the generator before every test of acceptance, as a published program does."""

    def _try_children(self, tree: TokenTree, children: Any, p: Tensor) -> tuple[int | None, Tensor]:
        self.generator.manual_seed(self.generator.initial_seed())
        return super()._try_children(tree, children, p)


class WrongQ(Rejection):
    """Draws at one temperature and hands over the q of another."""

    def draw(self, logits: Tensor, past: Any, count: int = 1) -> Draw:
        return super().draw(logits, past)._replace(q=logits.softmax(-1))


class DrawsPerNode(SampleAndMatch):
    """Follows a child if it matches any of two draws."""

    def judge(self, tree: TokenTree, logits: Tensor, past: Any) -> Any:
        judgement = super().judge(tree, logits, past)
        second = self._samples(tree, logits, [*past, *[0] * 10_000])
        for node in range(1, len(tree)):
            if second[tree.parents[node]] == tree.tokens[node]:
                judgement.accepted[node] = True
        return judgement


class Same(Scattered):
    """Always guesses the same tree."""

    def propose(self, context: Context) -> TokenTree:
        paths = [[0, 1], [2, 3], [4]] if context.max_depth > 1 else []
        return TokenTree.from_paths(context.root, paths)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accept", "rule", "drafter"),
    [
        ("rejection", Rejection, lambda: spec(3, 0.4, kind=DropsTheTrigger)),
        ("rejection", SecondChance, lambda: spec(3)),
        ("rejection", OneNumber, lambda: spec(3)),
        ("rejection", WrongQ, lambda: spec(3)),
        ("exact", DrawsPerNode, Same),
    ],
)
def test_a_biased_rule_or_draft_is_detected(accept: str, rule: Any, drafter: Any) -> None:
    sampling = Sampling(0.5)
    biased = make_rule(accept, sampling)
    biased.__class__ = rule
    # In a text twice as long as those in which no bias is to be found, whatever the seed.
    assert p_value(decode(drafter(), biased, 2 * LENGTH), table(sampling)) < 1e-8


def test_lenience_accepts_more_and_is_detected() -> None:
    sampling = Sampling(1.0)
    steps = {}
    for lenience in (1.0, 0.5):
        rule = make_rule("rejection", sampling, lenience=lenience)
        assert rule.lossless == (lenience == 1)
        steps[lenience] = tiny.run(TARGET, spec(3), [0, 1], rule=rule, max_tokens=LENGTH)
    assert len(steps[0.5]) < 0.9 * len(steps[1.0])
    assert p_value([0, 1, *tiny.text(steps[0.5])], table(sampling)) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("accept", "method"), [("rejection", "spec"), ("exact", "trees")])
def test_two_tokens_of_a_real_model(accept: str, method: str) -> None:
    """End to end: the joint distribution of the first two tokens of a tiny Llama."""
    small = {"vocab_size": SIZE, "initializer_range": 0.06, "num_hidden_layers": 1}
    target, draft = tiny.target(**small), tiny.target(**small | {"hidden_size": 16})
    with torch.inference_mode():
        first = target.model(torch.tensor([[1, 2, 3]])).logits[0, -1].softmax(-1)
        texts = torch.tensor([[1, 2, 3, token] for token in range(SIZE)])
        joint = first[:, None] * target.model(texts).logits[:, -1].softmax(-1)
    counts, cache = torch.zeros(SIZE, SIZE), target.new_cache()
    drafter = Speculative(draft, SIZE, 2) if method == "spec" else Scattered(vocabulary=SIZE)
    replies = 400
    for reply in range(replies):
        rule = make_rule(accept, Sampling(1.0), reply=reply)
        a, b = tiny.text(tiny.run(target, drafter, [1, 2, 3], cache=cache, rule=rule, max_tokens=2))
        counts[a, b] += 1
    expected = joint * replies
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((SIZE * SIZE - 1) / 2, dtype=statistic.dtype)
    assert expected.min() > 1
    assert float(torch.special.gammaincc(freedom, statistic / 2)) > 1e-4
