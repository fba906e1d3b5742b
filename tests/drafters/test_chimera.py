"""Chimera: what its depths see, what is kept from step to step, and the published mistakes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPT
from torch import Tensor
from torch.nn import functional

from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Context
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import make_rule
from nfox.decoding.tree_shapes import TreeShape
from nfox.drafters import chimera
from nfox.drafters.chimera import _GAINED, Chimera, ChimeraConfig, ChimeraHeads, NativeHops
from nfox.drafters.common.guesses import Guesses
from nfox.errors import ModelError
from nfox.files.hub import HubOptions
from nfox.heads import state_cache
from nfox.heads.base import IGNORE, TextBatch, select_positions
from nfox.heads.checkpoint import INFO_FILE
from nfox.heads.trigrams import trigrams_around
from nfox.models.options import LoadedModel
from nfox.models.packed_layers import pack_layers

SIZE, WORDS = 32, tiny.VOCABULARY
TOKENS = [*PROMPT, 40, 11, 2, 7, 63, 0, 8, 8, 8, 30]


def heads(**sizes: Any) -> ChimeraHeads:
    """Random heads for the tiny llama; nothing in them is 0."""
    torch.manual_seed(5)
    made = ChimeraHeads(ChimeraConfig(hidden_size=SIZE, vocab_size=WORDS, num_heads=4, **sizes))
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    return made.double()


def started(**sizes: Any) -> ChimeraHeads:
    """Heads as training starts with them."""
    torch.manual_seed(5)
    made = ChimeraHeads(ChimeraConfig(hidden_size=SIZE, vocab_size=WORDS, **sizes)).double()
    made.prepare_training(tiny.target())
    return made


def drafter(made: ChimeraHeads) -> Chimera:
    return Chimera(tiny.target(), made.eval().requires_grad_(False), TreeShape(()))


def read(*texts: list[int]) -> TextBatch:
    ids = torch.tensor(texts)
    return TextBatch(ids, tiny.target().hidden_states(ids), ids.clone())


def propose(made: Chimera, tokens: list[int]) -> list[list[int]]:
    """What is proposed when all but the last token have been read, and that is the root."""
    cache = tiny.target().new_cache()
    tiny.target().read(tokens[:-1], cache)
    return made.guess(Context(cache, tokens[-1], [], [], 9, make_rule()), 3).tokens[:4]


def everywhere(text: TextBatch) -> tuple[Tensor, Tensor]:
    """All places, and that all of them are wanted."""
    return select_positions(torch.ones_like(text.ids, dtype=torch.bool))


def predicted_states(made: ChimeraHeads, text: TextBatch) -> Tensor:
    """[K, B, T, D] the states predicted for all depths."""
    with torch.no_grad():
        depths = made.predict_depths(text, tiny.target(), *everywhere(text))
        return torch.stack([states for states, _ in depths])


@pytest.mark.parametrize(
    "sizes",
    [
        {"trigram": False},
        {"own_vocabulary": True},
        {"rank": 3 * SIZE},
        {"head_dim": 6, "num_attention_heads": 5, "intermediate_size": 7, "rope_theta": 50.0},
    ],
)
def test_every_layout_trains_on_what_it_proposes_with(sizes: dict[str, Any]) -> None:
    made = heads(**sizes)
    together = made.top_tokens(read(TOKENS), tiny.target(), 3)[0]
    kept = drafter(made)
    for end in range(2, len(TOKENS) + 1):
        assert propose(kept, TOKENS[:end]) == together[end - 2].tolist()


def test_the_edges_of_trigrams_repeat_the_first_token() -> None:
    trigrams = trigrams_around(torch.tensor([[4, 5, 6, 7]]))
    assert trigrams[0, :3].tolist() == [[4, 4, 5], [4, 5, 6], [5, 6, 7]]


def test_other_paths_are_guessed_after_as_if_they_were_the_likeliest() -> None:
    """What follows them is what training finds where it drafts these tokens."""
    made, cache = heads(), tiny.target().new_cache()
    tiny.target().read(TOKENS[:-1], cache)
    guesses = drafter(made).guess(Context(cache, TOKENS[-1], [], [], 9, make_rule()), 3)
    logits = made.logits

    def after(tokens: list[int]) -> list[int]:
        given, found = iter([*tokens, 0]), torch.empty(0)

        def drafting(*arguments: Any) -> Tensor:
            nonlocal found
            found = logits(*arguments)
            return functional.one_hot(torch.tensor([next(given)]), WORDS).expand_as(found).double()

        made.logits = drafting  # type: ignore[method-assign]
        depths = made.predict_depths(read(TOKENS), tiny.target(), *everywhere(read(TOKENS)))
        for _ in range(1 + len(tokens)):
            next(depths)
        return found[-2].topk(3).indices.tolist()

    paths = [path for path in guesses.branches if len(path) < 4]
    assert len(paths) == 1 + 3 + 4 + 4
    assert {len(set(path)) for path in paths} == {0, 1, 2}
    for path in paths:
        assert guesses.tokens_after(path) == after([*tokens_of(path, guesses)])


def test_depths_beyond_the_last_head_are_guessed_with_it() -> None:
    made, deeper = heads(), ChimeraHeads(ChimeraConfig(hidden_size=SIZE, num_heads=8)).double()
    weights = made.state_dict()
    last = {name: weight for name, weight in weights.items() if name.startswith("heads.3.")}
    for head in range(4, 8):
        weights |= {name.replace(".3.", f".{head}."): weight for name, weight in last.items()}
    deeper.load_state_dict(weights)
    context = Context(tiny.target().new_cache(), TOKENS[-1], [], [], 20, make_rule())
    tiny.target().read(TOKENS[:-1], context.cache)
    guesses, expected = (drafter(one).guess(context, 3) for one in (made, deeper))
    assert len(guesses.tokens) == 8
    assert guesses.tokens == expected.tokens[:8]


def tokens_of(path: tuple[int, ...], guesses: Guesses) -> tuple[int, ...]:
    """The tokens of a path of ranks."""
    return tuple(guesses.tokens_after(path[:i])[rank] for i, rank in enumerate(path))


def native_drafter(**sizes: Any) -> Chimera:
    """The drafter of a target in bfloat16 with the native library."""
    target = tiny.recast("llama", torch.bfloat16, head_dim=16)
    target.fuse()
    if not target.is_native:
        pytest.skip(target.why_not_native)
    made = heads(head_dim=16, **sizes).bfloat16().requires_grad_(False)
    pack_layers(made)
    return Chimera(target, made, TreeShape(()))


@pytest.mark.parametrize("sizes", [{"rank": 32}, {"rank": 32, "trigram": False}, {"rank": 96}])
def test_hops_of_the_native_library_are_the_hops(sizes: dict[str, Any]) -> None:
    """In pieces: more states are read at once than the table of the native ones has room for."""
    native, plain = native_drafter(**sizes), native_drafter(**sizes)
    plain._native = plain.vocabulary, None
    assert isinstance(native.native, NativeHops) and plain.native is None
    text, cache = [(7 * i * i + i) % WORDS for i in range(60)], native.target.new_cache()
    for start, end in ((0, 3), (3, 4), (4, 50), (50, 53)):
        native.target.read(text[start:end], cache)
        context = Context(cache, text[end], [], [], 9, make_rule())
        found, expected = (one.guess(context, 3) for one in (native, plain))
        assert len(found.tokens) == len(expected.tokens) == 8
        chances, others = (
            {tokens_of(path, g): g.branches[path][1] for path in g.branches}
            for g in (found, expected)
        )
        same = chances.keys() & others.keys()  # rounding may decide which drafts are continued
        assert len(same) > 0.7 * len(others)
        for tokens in same:
            torch.testing.assert_close(chances[tokens], others[tokens], atol=0.03, rtol=0.05)


def test_where_the_library_does_not_compute_all_of_it_torch_does() -> None:
    assert native_drafter(own_vocabulary=True).native is None


@pytest.mark.parametrize("trigram", [True, False])
def test_the_ablation_asks_with_the_last_token_only(trigram: bool) -> None:
    encode = heads(trigram=trigram).grams
    one, other, last = (
        encode(torch.tensor(tokens), tiny.target()) for tokens in ([1, 2, 3], [4, 5, 3], [1, 2, 4])
    )
    assert torch.equal(one, other) != trigram
    assert not torch.equal(one, last)


def test_a_depth_sees_the_past_and_nothing_that_comes_later() -> None:
    changed = [*TOKENS[:12], (TOKENS[12] + 1) % WORDS, *TOKENS[13:]]
    one, other = predicted_states(heads(), read(TOKENS)), predicted_states(heads(), read(changed))
    same = (one - other).abs().amax((0, 1, 3)) < 1e-12
    assert same[:11].all()
    assert not same[11:].any()  # at place 11 it is the root, from then on the past


def test_later_depths_see_the_earlier_drafts_of_their_own_place_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The published mask hid them; and the drafts of other places are not there when proposing."""
    made, text, place = heads(), read(TOKENS), 9
    before = predicted_states(made, text)
    after_attention, calls = made.encoder.after_attention, []

    def moved(rows: Tensor, attended: Tensor) -> Tensor:
        states = after_attention(rows, attended)
        calls.append(1)
        return states.index_fill(1, torch.tensor([place]), 0.7) if len(calls) == 1 else states

    tokens = [
        logits.argmax(-1)
        for _, logits in made.predict_depths(text, tiny.target(), *everywhere(text))
    ]

    def as_before(head: int, *_: object) -> Tensor:
        return torch.nn.functional.one_hot(tokens[head], WORDS).double()

    monkeypatch.setattr(made.encoder, "after_attention", moved)
    monkeypatch.setattr(made, "logits", as_before)  # so that trigrams stay what they were
    differs = (predicted_states(made, text) - before).abs().amax((1, 3)) > 1e-9
    assert differs.nonzero().tolist() == [[depth, place] for depth in range(4)]


def test_another_draft_changes_its_own_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made, text, place = heads(), read(TOKENS), 9
    before, logits = predicted_states(made, text), made.logits

    def other(head: int, *rest: Any) -> Tensor:
        found = logits(head, *rest)
        return found.index_copy(0, torch.tensor([place]), -found[[place]]) if head == 0 else found

    monkeypatch.setattr(made, "logits", other)
    differs = (predicted_states(made, text) - before).abs().amax((1, 3)) > 1e-9
    assert differs.nonzero().tolist() == [[depth, place] for depth in range(1, 4)]


def test_places_that_are_not_learned_are_left_out_and_change_nothing() -> None:
    text = read(TOKENS, TOKENS[::-1])
    learned = torch.zeros_like(text.ids, dtype=torch.bool)
    learned[0, [2, 5, 9]], learned[1, 7] = True, True
    places, real = select_positions(learned)
    assert places.shape == (2, 3)
    made, target = heads(), tiny.target()
    with torch.no_grad():
        few = [logits for _, logits in made.predict_depths(text, target, places, real)]
        every = [logits for _, logits in made.predict_depths(text, target, *everywhere(text))]
    for some, all_of_them in zip(few, every, strict=True):
        torch.testing.assert_close(some, all_of_them[learned.flatten()])


def test_texts_of_a_batch_do_not_see_each_other() -> None:
    made, other = heads(), [(token + 9) % WORDS for token in TOKENS]
    both = predicted_states(made, read(TOKENS, other))
    for row, text in enumerate((TOKENS, other)):
        torch.testing.assert_close(both[:, row], predicted_states(made, read(text))[:, 0])


@pytest.mark.slow
def test_who_joins_late_proposes_what_it_would_have_proposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a text longer than its cache at first, which it reads in pieces."""
    monkeypatch.setattr(state_cache, "CHUNK", 50)
    tokens = [(i * i + 3 * i) % WORDS for i in range(300)]
    made, target, cache = heads(), tiny.target(), tiny.target().new_cache()
    kept = drafter(made)
    for end in range(1, len(tokens)):
        target.read(tokens[end - 1 : end], cache)
        context = Context(cache, tokens[end], [], [], 9, make_rule())
        rows = kept.guess(context, 3).tokens
        if end % 37 == 0:
            assert drafter(made).guess(context, 3).tokens == rows
    assert rows[:4] == made.top_tokens(read(tokens), target, 3)[0, -2].tolist()


def test_a_past_that_was_changed_meanwhile_is_forgotten() -> None:
    kept, changed = drafter(heads()), [*TOKENS[:7], 50, *TOKENS[8:]]
    for tokens in (TOKENS, changed, TOKENS[:5], TOKENS, changed[:9]):
        kept.rewind(3)
        assert propose(kept, tokens) == propose(drafter(heads()), tokens)


def test_no_more_depths_than_the_tree_and_the_limit() -> None:
    made, context_of = drafter(heads()), tiny.target().new_cache()
    tiny.target().read(TOKENS, context_of)
    for depth, room, expected in ((4, 9, 4), (2, 9, 2), (4, 3, 3)):
        made.shape = TreeShape(tuple((0,) * n for n in range(1, depth + 1)))
        context = Context(context_of, 1, [], [], room, make_rule())
        assert len(made.guess(context, 2).tokens) == expected


def test_no_depth_is_predicted_for_nodes_that_cannot_pay_nor_if_itself_is_too_dear() -> None:
    made, cache = drafter(heads()), tiny.target().new_cache()
    made._accuracy = [[1.0]]
    tiny.target().read(TOKENS, cache)
    context = Context(cache, 1, [], [], 9, make_rule())
    chances = made.guess(context, 1).probabilities
    for depth in range(1, 4):
        before, sure = (math.prod(row[0] for row in chances[:end]) for end in (depth - 1, depth))
        # A depth gains so much of what the guess before it is more likely than one that just pays.
        dear = 0.99 * before * _GAINED / (1 + _GAINED)
        for costs, draft, speed in (
            ({1: 1.0, 2: 2.0}, 0.0, 1.001 * sure),
            ({1: 1.0, 2: 1.0}, 1.0, dear),
        ):
            made.budget = NodeBudget(5, Costs(costs), tokens_per_second=speed, draft_seconds=draft)
            assert len(made.guess(context, 1).tokens) == depth


def test_a_depth_is_predicted_where_its_head_is_right_often_enough_after_right_drafts() -> None:
    made, cache = drafter(heads()), tiny.target().new_cache()
    tiny.target().read(TOKENS, cache)
    context = Context(cache, 1, [], [], 9, make_rule())
    chances = made.guess(context, 1).probabilities
    first = chances[0][0]
    for accuracy, expected in ([0.9, 0.6, 0.0], 2), ([0.0, 0.6, 0.0], 2), ([0.9, 0.4, 0.9], 1):
        made._accuracy = [[rate] for rate in accuracy]
        free = Costs({1: 1.0, 2: 1.0})
        speed = 0.5 * _GAINED * first
        made.budget = NodeBudget(5, free, tokens_per_second=speed, draft_seconds=1.0)
        made.budget.min_chance = 0.0
        assert len(made.guess(context, 1).tokens) == expected


def test_no_gradient_reaches_the_base_nor_an_earlier_depth() -> None:
    target, made = tiny.recast("llama", torch.float64), started(num_heads=3)
    made.prepare_training(target)
    target.model.get_input_embeddings().requires_grad_(True)  # the published ones were trained
    loss, _ = made.loss(read(TOKENS), target)
    loss.backward()
    assert all(weight.grad is None for weight in target.model.parameters())
    assert all(weight.grad is not None for weight in made.parameters())
    text = read(TOKENS)
    (first, _), (_, logits), _ = made.predict_depths(text, target, *everywhere(text))
    first.retain_grad()
    logits.sum().backward()
    assert first.grad is None


def test_each_part_of_the_loss_counts_by_its_weight() -> None:
    text, parts = read(TOKENS), ("ce", "hidden_loss", "logit_loss")
    found = []
    for part in parts:
        made = started(**{name: float(name == part) for name in parts})
        loss, numbers = made.loss(text, tiny.target())
        found.append(loss.item())
        heads_only = sum(numbers[f"head{k}_loss"] for k in range(1, 5))
        assert loss.item() == pytest.approx(heads_only if part == "ce" else numbers[part])
    whole, _ = started(ce=1.0, hidden_loss=2.0, logit_loss=3.0).loss(text, tiny.target())
    assert whole.item() == pytest.approx(found[0] + 2 * found[1] + 3 * found[2])


def test_the_hidden_loss_does_not_depend_on_the_size_of_states() -> None:
    one, other = torch.randn(5, SIZE), torch.randn(5, SIZE)
    small = chimera._distance(one, other)
    torch.testing.assert_close(chimera._distance(100 * one, 100 * other), small)
    assert chimera._distance(one, one) == 0


def test_heads_are_measured_by_the_labels_and_by_the_bases_own_choice() -> None:
    made, target, text = heads(), tiny.target(), read(TOKENS)
    text.labels[:, :8] = IGNORE
    _, numbers = made.loss(text, target)
    guesses, own = made.top_tokens(text, target, 5)[0], target.unembed(text.hidden)[0].argmax(-1)
    for k in range(1, 5):
        places = range(max(8 - k - 1, 0), len(TOKENS) - k - 1)  # whose label is not ignored
        said = [guesses[t, k - 1].tolist() for t in places]
        for name, wanted in (("", text.labels[0]), ("_base", own.roll(1))):
            right = [int(wanted[t + k + 1]) for t in places]
            for rank in range(1, 6):
                among = sum(word in five[:rank] for five, word in zip(said, right, strict=True))
                found = numbers[f"head{k}{name}_top{rank}"]
                assert found == pytest.approx(among / len(places))


def test_training_starts_from_the_lm_head_and_the_size_of_the_targets_states() -> None:
    target, text, made = tiny.target(), read(TOKENS), started(own_vocabulary=True)
    one, other = text.hidden[0], text.hidden[0].flip(0)
    both = target.unembed(one) + target.unembed(other)
    torch.testing.assert_close(made.logits(1, one, other, target), both)
    small = started()
    torch.testing.assert_close(small.logits(1, one, other, target), target.unembed(other))
    sizes = [
        states.square().mean().sqrt() for states in (predicted_states(small, text), text.hidden)
    ]
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_weights_in_float32_learn_from_a_base_in_bfloat16() -> None:
    target, tokens = tiny.recast("llama", torch.bfloat16), torch.tensor([TOKENS])
    made = ChimeraHeads(ChimeraConfig(hidden_size=SIZE, vocab_size=WORDS))
    made.prepare_training(target)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        loss, _ = made.loss(TextBatch(tokens, target.hidden_states(tokens), tokens), target)
    loss.backward()
    assert loss.isfinite()
    for weight in made.parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


def test_a_second_layer_is_refused_not_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    shutil.copytree(tiny.heads_folder("chimera"), folder)
    about = json.loads((folder / INFO_FILE).read_text())
    about["config"]["num_layers"] = 2
    (folder / INFO_FILE).write_text(json.dumps(about))
    with pytest.raises(ModelError, match="num_layers"):
        Chimera.load_heads(LoadedModel("the target", tiny.target()), str(folder), HubOptions())


def test_the_demos_heads_are_small() -> None:
    with torch.device("meta"):
        made = ChimeraHeads(ChimeraConfig(hidden_size=384, vocab_size=4096, num_heads=4))
    assert 2 * sum(weight.numel() for weight in made.parameters()) < 4_000_000
