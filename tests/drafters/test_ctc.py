"""CTC: sums over alignments against all alignments, and the mistakes of the published program."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPT, VOCABULARY
from torch import Tensor
from training import job, learn

from nfox.decoding import tree_shapes
from nfox.decoding.drafter import Context
from nfox.decoding.rules import make_rule
from nfox.drafters.ctc import CTC, CTCConfig, CTCHeads
from nfox.errors import ModelError, UsageError
from nfox.files.hub import HubOptions
from nfox.heads.base import IGNORE, TextBatch
from nfox.heads.checkpoint import INFO_FILE
from nfox.heads.ctc_alignment import (
    collapse,
    ctc_loss,
    likeliest_prefixes,
    longest_prefix,
    rank_tokens,
)
from nfox.models.options import LoadedModel

WORDS, SLOTS = 3, 5
# nothing is left out
EVERY: dict[str, Any] = {"beam_width": 1000, "tokens_per_slot": 1000, "min_probability": 0.0}


def spoken(seed: int, words: int = WORDS, slots: int = SLOTS) -> Tensor:
    """Random [S, V + 1] log-probabilities, now and then nearly sure of something."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(slots, words + 1, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


def alignments(slots: Tensor) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield the text and the probability of every alignment."""
    blank = slots.shape[1] - 1
    for said in product(range(blank + 1), repeat=len(slots)):
        merged = [token for i, token in enumerate(said) if i == 0 or token != said[i - 1]]
        chance = sum(float(slots[i, token]) for i, token in enumerate(said))
        yield tuple(t for t in merged if t != blank), float(torch.tensor(chance).exp())


def texts(slots: Tensor) -> dict[tuple[int, ...], float]:
    """Return the probability of every text."""
    found: dict[tuple[int, ...], float] = {}
    for text, chance in alignments(slots):
        found[text] = found.get(text, 0.0) + chance
    return found


def starts(slots: Tensor, depth: int) -> dict[tuple[int, ...], float]:
    """Return for every prefix the probability of the texts that start with it."""
    found: dict[tuple[int, ...], float] = {}
    for text, chance in texts(slots).items():
        for length in range(1, min(depth, len(text)) + 1):
            found[text[:length]] = found.get(text[:length], 0.0) + chance
    return found


def loss(slots: Tensor, text: Sequence[int], padding: int = 0) -> Tensor:
    labels = torch.tensor([[*text, *[0] * padding]])
    heard = torch.cat([labels, torch.tensor([[slots.shape[1] - 1]])], dim=1)
    return ctc_loss(slots[:, heard[0]][None], labels, torch.tensor([len(text)]))[0]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_loss_is_a_sum_over_all_alignments(length: int) -> None:
    slots = spoken(length)
    known = texts(slots)
    for text in product(range(WORDS), repeat=length):
        for padding in (0, 1, 3):
            found = loss(slots, text, padding)
            if text in known:
                assert float((-found).exp()) == pytest.approx(known[text], rel=1e-5), text
            else:  # more equal neighbours than these slots have blanks for
                assert float(found) == 0, text


def test_the_loss_and_its_gradient_are_those_of_pytorch() -> None:
    labels = torch.tensor([[1, 1, 2, 0], [0, 2, 2, 2], [4, 4, 4, 4], [3, 1, 1, 0]])
    lengths = torch.tensor([4, 2, 4, 1])
    logits = torch.randn(4, 6, 8, dtype=torch.float64, requires_grad=True)
    gradients = []
    for ours in (True, False):
        said = logits.log_softmax(-1)
        if ours:
            heard = torch.cat([labels, torch.full((4, 1), 7)], dim=1)[:, None].expand(-1, 6, -1)
            found = ctc_loss(said.gather(-1, heard), labels, lengths)
        else:
            sizes = torch.full((4,), 6)
            found = torch.nn.functional.ctc_loss(
                said.transpose(0, 1), labels, sizes, lengths, 7, "none", zero_infinity=True
            )
        gradients.append(torch.autograd.grad(found.sum(), logits)[0])
        gradients[-1] = torch.cat([gradients[-1].flatten(), found.detach()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_repeats_are_merged_before_blanks_are_dropped() -> None:
    a, b, blank = 0, 1, 9
    said = [
        [a, blank, a, b, b],
        [a, a, blank, blank, b],
        [blank] * 5,
        [blank, a, blank, a, a],
        [a, b, a, b, a],
    ]
    right = [[a, a, b], [a, b, blank], [blank] * 3, [a, a, blank], [a, b, a]]
    assert collapse(torch.tensor(said), blank, 3).tolist() == right


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_wide_search_finds_every_prefix_and_its_probability(depth: int) -> None:
    for seed in range(4):
        found, right = likeliest_prefixes(spoken(seed), depth, **EVERY), starts(spoken(seed), depth)
        assert {p for p, chance in found.items() if chance > 0} == right.keys()
        for prefix, chance in right.items():
            assert found[prefix] == pytest.approx(chance, rel=1e-5)


@pytest.mark.parametrize("beam", [1, 3, 12])
def test_a_narrow_search_says_too_little_and_never_too_much(beam: int) -> None:
    for seed in range(10):
        slots = spoken(seed, words=6)
        right = likeliest_prefixes(slots, SLOTS, **EVERY)
        found = likeliest_prefixes(slots, SLOTS, beam, 3)
        assert all(chance <= right[prefix] * (1 + 1e-9) for prefix, chance in found.items())
        assert list(found.values()) == sorted(found.values(), reverse=True)
        order = list(found)
        for number, prefix in enumerate(order):
            assert len(prefix) == 1 or prefix[:-1] in order[:number]


@pytest.mark.slow
def test_the_search_as_it_is_finds_what_matters() -> None:
    """With the default widths, nearly all of the probability that the best tree has."""
    for seed in range(10):
        slots = (3 * spoken(seed, words=40, slots=7)).log_softmax(-1)
        best = list(likeliest_prefixes(slots, 4, **EVERY | {"tokens_per_slot": 20}).values())[:16]
        assert sum(list(likeliest_prefixes(slots, 4).values())[:16]) > 0.97 * sum(best)


def sure(*said: int, words: int = WORDS) -> Tensor:
    """Slots that hardly say anything but this."""
    one_each = torch.nn.functional.one_hot(torch.tensor(said), words + 1)
    return (20.0 * one_each).log_softmax(-1)


def test_genuine_repeats_can_be_drafted() -> None:
    blank = WORDS
    assert next(iter(longest_prefix(likeliest_prefixes(sure(1, blank, 1, blank, 1), 3), 3))) == 1
    assert longest_prefix(likeliest_prefixes(sure(1, blank, 1, blank, 1), 3), 3) == (1, 1, 1)
    assert longest_prefix(likeliest_prefixes(sure(1, 1, 1, 1, 1), 3), 1) == (1,)
    found = likeliest_prefixes(sure(1, 1, 2, 2, blank), 3)
    assert [prefix for prefix, chance in found.items() if chance > 0.5] == [(1,), (1, 2)]


def test_nothing_but_blanks_drafts_nothing() -> None:
    assert likeliest_prefixes(sure(*[WORDS] * SLOTS), 3) == {}


@pytest.mark.parametrize("token", [0, VOCABULARY - 1])
def test_every_token_can_be_drafted_since_none_is_the_blank(token: int) -> None:
    slots = sure(token, VOCABULARY, token, words=VOCABULARY)
    assert longest_prefix(likeliest_prefixes(slots, 4), 2) == (token, token)


def test_the_chain_is_the_path_that_keeps_most() -> None:
    found = {(1,): 0.5, (2,): 0.4, (2, 3): 0.4, (1, 1): 0.2, (2, 3, 1): 0.1}
    assert longest_prefix(found, 1) == (1,)
    assert longest_prefix(found, 2) == (2, 3)
    assert longest_prefix(found, 9) == (2, 3, 1)
    assert longest_prefix({}, 3) == ()


@pytest.mark.parametrize("width", [1, 4, VOCABULARY])
def test_guesses_of_a_depth_are_different_tokens_by_their_probability(width: int) -> None:
    slots = spoken(1, words=VOCABULARY)
    found, _ = rank_tokens(slots, 4, width)
    assert [len(set(row)) for row in found] == [width] * 4
    exact = starts(spoken(2), 3)
    for depth, row in enumerate(rank_tokens(spoken(2), 3, WORDS)[0]):
        chances = [0.0] * WORDS
        for prefix, chance in exact.items():
            chances[prefix[-1]] += chance * (len(prefix) == depth + 1)
        assert row == sorted(range(WORDS), key=lambda token: -chances[token])


def heads(**sizes: Any) -> CTCHeads:
    target = tiny.target()
    config = {"hidden_size": target.hidden_size, "vocab_size": VOCABULARY, "num_heads": 3} | sizes
    torch.manual_seed(0)
    made = CTCHeads(CTCConfig(**config)).double()
    made.prepare_training(target)
    return made


def read(tokens: Sequence[int], labels: Tensor | None = None) -> TextBatch:
    cache = tiny.target().new_cache()
    tiny.target().read(tokens, cache)
    ids = torch.tensor([list(tokens)])
    return TextBatch(ids, cache.hidden[None].clone(), ids.clone() if labels is None else labels)


def brute_loss(made: CTCHeads, text: TextBatch) -> float:
    """Place by place, as the definition has it."""
    found, past = [], made.project_past(text.hidden)
    for at in range(text.ids.shape[1] - 2):
        wanted = text.labels[0, at + 2 : at + 2 + made.config.num_heads].tolist()
        wanted = wanted[: wanted.index(IGNORE)] if IGNORE in wanted else wanted
        if wanted:
            root, place = text.ids[:, at + 1 : at + 2], torch.tensor([[at]])
            logits = made.logits(text.hidden[:, [at]], root, place, past, tiny.target())
            found.append(float(loss(logits[0, 0].detach().log_softmax(-1), wanted)))
    return sum(found) / len(found)


@pytest.mark.parametrize("slots", [0, 4, 3])
def test_the_loss_is_a_mean_of_places_with_fewer_labels_at_ends(slots: int) -> None:
    """Also where the labels do not fit into the slots, which must not give a NaN."""
    made, tokens = heads(slots=slots), [*PROMPT, 7, 7, 7, 7, 1]
    labels = torch.tensor([tokens])
    labels[:, 5] = labels[:, 12] = IGNORE
    text = read(tokens, labels)
    total, _ = made.loss(text, tiny.target())
    total.backward()
    assert total.item() == pytest.approx(brute_loss(made, text))
    assert all(bool(w.grad.isfinite().all()) for w in made.parameters() if w.grad is not None)


def test_a_batch_is_learned_as_its_texts() -> None:
    made, rows = heads(), [[*PROMPT, 7], [*PROMPT[::-1], 4]]
    parts = [read(row) for row in rows]
    parts[1].labels[:, 3:] = IGNORE
    names = ("ids", "hidden", "labels")
    together = TextBatch(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
    alone = [made.loss(part, tiny.target())[0].item() for part in parts]
    both = made.loss(together, tiny.target())[0].item()
    assert both == pytest.approx((9 * alone[0] + 1 * alone[1]) / 10)


def test_of_many_places_some_are_drawn_as_the_seed_says() -> None:
    text, losses = read([*PROMPT, *PROMPT, *PROMPT]), []
    for seed in (0, 0, 1):
        made = heads(places=5)
        torch.manual_seed(seed)
        losses.append(made.loss(text, tiny.target())[0].item())
    assert losses[0] == losses[1] != losses[2]
    assert heads(places=28).loss(text, tiny.target())[0].item() == pytest.approx(
        heads().loss(text, tiny.target())[0].item()
    )


def test_the_blank_is_outside_the_vocabulary() -> None:
    made, text = heads(), read(PROMPT)
    place = torch.tensor([[4]])
    past = made.project_past(text.hidden)
    logits = made.logits(text.hidden[:, [4]], text.ids[:, [5]], place, past, tiny.target())
    assert logits.shape == (1, 1, 2 * 3 - 1, VOCABULARY + 1)


def test_a_place_sees_the_past_and_the_root_and_nothing_later() -> None:
    made, text = heads(), read(PROMPT)
    at = torch.tensor([[4]])

    def logits(hidden: Tensor, root: int) -> Tensor:
        past = made.project_past(hidden)
        return made.logits(hidden[:, [4]], torch.tensor([[root]]), at, past, tiny.target())

    first = logits(text.hidden, 3)
    for place, seen in ((0, True), (4, True), (5, False), (9, False)):
        changed = text.hidden.clone()
        changed[:, place] += 1
        assert torch.equal(logits(changed, 3), first) != seen
    assert not torch.equal(logits(text.hidden, 4), first)


def test_no_gradient_reaches_the_base() -> None:
    target, made = tiny.recast("llama", torch.float64), heads()
    target.model.requires_grad_(True)
    text = read([*PROMPT, *PROMPT])
    target.model.get_output_embeddings().requires_grad_(False)
    made.loss(text, target)[0].backward()
    assert all(weight.grad is None for weight in target.model.parameters())
    assert all(weight.grad is not None for weight in made.parameters())


def drafter(**options: Any) -> CTC:
    made = tiny.make("ctc", **options)
    assert isinstance(made, CTC)
    return made


def context(tokens: Sequence[int], root: int, room: int = 9, family: str = "llama") -> Context:
    cache = tiny.target(family).new_cache()
    tiny.target(family).read(tokens, cache)
    return Context(cache, root, [], [], room, make_rule())


@pytest.mark.parametrize("room", [1, 2, 3, 9])
@pytest.mark.parametrize("nodes", [1, 6, 30])
def test_the_tree_is_the_likeliest_prefixes(nodes: int, room: int) -> None:
    made, seen = drafter(nodes=nodes), context(PROMPT, 8, room)
    tree, depth = made.propose(seen), min(room, 3)
    found = list(likeliest_prefixes(made._slots(seen), depth))[:nodes]
    paths = {tuple(tree.tokens[n] for n in tree.path_to(node)) for node in range(1, len(tree))}
    assert paths == {(8, *prefix) for prefix in found}
    assert len(tree) == len(found) + 1 <= nodes + 1
    assert max(tree.depths) <= depth


def test_the_first_drafted_token_may_be_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = sure(8, VOCABULARY, 8, words=VOCABULARY)
    monkeypatch.setattr(CTC, "_slots", lambda drafter, context: slots)
    assert drafter(nodes=2).propose(context(PROMPT, 8)).tokens == (8, 8, 8)


def test_where_the_slots_are_blank_nothing_is_drafted(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = sure(*[VOCABULARY] * 5, words=VOCABULARY)
    monkeypatch.setattr(CTC, "_slots", lambda drafter, context: slots)
    assert drafter().propose(context(PROMPT, 8)).tokens == (8,)
    assert tiny.text(tiny.run(tiny.target(), drafter(), PROMPT)) == tiny.slow("llama", PROMPT, 24)


def test_without_the_collapse_every_slot_is_a_depth_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the published loss was compared with: repeats and blanks cost drafted tokens."""
    slots = sure(4, 4, VOCABULARY, 5, 6, words=VOCABULARY)
    monkeypatch.setattr(CTC, "_slots", lambda drafter, context: slots)
    assert drafter(nodes=3).propose(context(PROMPT, 8)).tokens[:4] == (8, 4, 5, 6)
    raw = drafter(nodes=2, collapse=False)
    assert raw.propose(context(PROMPT, 8)).tokens[:3] == (8, 4, 4)
    assert tiny.text(tiny.run(tiny.target(), raw, PROMPT)) == tiny.slow("llama", PROMPT, 24)


def test_who_joins_late_or_comes_back_proposes_the_same() -> None:
    tokens = [*PROMPT, *tiny.slow("llama", PROMPT, 12)]
    always, rule, cache = drafter(), make_rule(), tiny.target().new_cache()
    for at in range(1, len(tokens)):
        tiny.target().read(tokens[at - 1 : at], cache)
        seen = Context(cache, tokens[at], [], [], 9, rule)
        tree, late = always.propose(seen), drafter().propose(seen)
        assert (tree.tokens, tree.parents) == (late.tokens, late.parents)
    other = [*tokens[:9], 60, 61, 62]
    for text in (other, tokens[:15], other[:10], tokens):
        always.rewind(4)  # of what it says the drafter believes nothing: it compares
        tree, late = always.propose(context(text, 5)), drafter().propose(context(text, 5))
        assert (tree.tokens, tree.parents) == (late.tokens, late.parents)
        assert always.state_cache.tokens == text


def test_heads_of_unknown_accuracy_draft_too() -> None:
    assert len(tree_shapes.fastest_shape(CTC.prior_accuracy, None, max_nodes=20)) == 20


def test_more_layers_are_kept_too() -> None:
    """What is remembered is one pair of keys and values for every layer."""
    torch.manual_seed(1)
    layers = heads(num_layers=2).eval().requires_grad_(False)
    made = CTC(tiny.target(), layers, tree_shapes.TreeShape.chain(3))
    text = read([*PROMPT, 3, 8])
    together = made.heads.top_tokens(text, tiny.target(), 4)[0]
    for at in range(1, 11):
        seen = context(text.ids[0, : at + 1].tolist(), int(text.ids[0, at + 1]))
        assert made.guess(seen, 4).tokens == together[at].tolist()


def test_slots_too_few_for_the_tokens_are_refused(tmp_path: Path) -> None:
    for slots in (0, 3, 9):
        CTCConfig(hidden_size=8, num_heads=3, slots=slots)
    with pytest.raises(UsageError, match="--ctc_slots: 2 slots cannot say 4 tokens"):
        learn(tmp_path, job("ctc", config={"num_heads": 4, "slots": 2}, model="./absent"))
    folder = shutil.copytree(tiny.heads_folder("ctc"), tmp_path / "heads")
    said = json.loads((folder / INFO_FILE).read_text())
    said["config"]["slots"] = 2
    (folder / INFO_FILE).write_text(json.dumps(said))
    with pytest.raises(ModelError, match="2 slots cannot say 3 tokens"):
        CTC.load_heads(LoadedModel("the target", tiny.target()), str(folder), HubOptions())
