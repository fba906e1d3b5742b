"""What is true of all trained heads: training, proposing, checkpoints, and their errors."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPT, VOCABULARY

from nfox import drafters
from nfox.decoding import tree_shapes
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Context
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.common.method import DrafterInputs, WeightSources
from nfox.errors import ModelError, UsageError
from nfox.files.atomic import read_tensors, write_tensors
from nfox.files.hub import HubOptions
from nfox.heads import checkpoint
from nfox.heads.base import IGNORE, TextBatch, measure_accuracy
from nfox.models.options import LoadedModel

CLASSES = {name: drafters.method_class(name) for name in drafters.method_names()}
METHODS = [name for name, method in CLASSES.items() if issubclass(method, HeadsDrafter)]
TREES = [name for name in tiny.DECODERS if tiny.FAMILIES[name].proposals == "trees"]

pytestmark = pytest.mark.parametrize("method", METHODS)


def found(method: str) -> type[HeadsDrafter]:
    made = drafters.method_class(method)
    assert issubclass(made, HeadsDrafter)
    return made


def read(tokens: list[int], family: str = "llama", **labels: Any) -> TextBatch:
    """A text as the target of a family has read it."""
    target = tiny.target(family)
    cache = target.new_cache()
    target.read(tokens, cache)
    ids = torch.tensor([tokens])
    return TextBatch(ids, cache.hidden[None].clone(), labels.get("labels", ids))


def fresh(method: str, family: str = "llama", **sizes: Any) -> Any:
    """New heads for the target of a family, as training starts with."""
    target, made = tiny.target(family), found(method).heads_class
    sizes = {"hidden_size": target.hidden_size, "vocab_size": target.vocabulary_size} | sizes
    torch.manual_seed(0)
    heads = made(made.Config(num_heads=3, **sizes)).to(target.dtype)
    heads.prepare_training(target)
    return heads


# Of a family the heads see what it hands over of its last layer, whichever of them look.
@pytest.mark.parametrize("family", tiny.sweep(["llama", "mistral", "gemma3", "gpt2", "mixtral"]))
def test_training_sees_what_proposing_sees(method: str, family: str) -> None:
    """At every place of a text, the guesses made while training are those that are proposed."""
    target, drafter = tiny.target(family), tiny.make(method, family)
    tokens = [*PROMPT, *tiny.slow(family, PROMPT, 12)]
    together = drafter.heads.top_tokens(read(tokens, family), target, 4)[0]
    cache, rule = target.new_cache(), make_rule()
    for at in range(len(tokens) - 1):
        target.read(tokens[at : at + 1], cache)
        context = Context(cache, tokens[at + 1], [], [], 8, rule)
        proposed = drafter.guess(context, 4).tokens[: len(together[at])]
        assert proposed == together[at].tolist(), f"at {at}"


@pytest.mark.slow
def test_the_loss_falls_and_the_frozen_target_stays(method: str) -> None:
    target, heads = tiny.target(), fresh(method)
    before = [weight.clone() for weight in target.model.parameters()]
    text = read([*PROMPT, *tiny.slow("llama", PROMPT, 40)])
    optimizer = torch.optim.AdamW(heads.parameters(), lr=3e-2)
    losses = []
    for _ in range(60):
        loss, _ = heads.loss(text, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    for weight, was in zip(target.model.parameters(), before, strict=True):
        assert torch.equal(weight, was)
    accuracy = measure_accuracy(heads.eval(), target, [text], 3)
    assert accuracy[0][0] > 0.7


def test_a_text_without_labels_gives_zero_and_no_nan(method: str) -> None:
    heads = fresh(method)
    tokens = list(PROMPT)
    text = read(tokens, labels=torch.full((1, len(tokens)), IGNORE))
    loss, _ = heads.loss(text, tiny.target())
    loss.backward()
    assert float(loss.detach()) == 0
    for weight in heads.parameters():
        assert weight.grad is None or bool(weight.grad.isfinite().all())


def test_only_what_is_labelled_is_learned(method: str) -> None:
    """Other tokens at places that are not learned, after all that is, do not change the loss."""
    heads, tokens = fresh(method), [*PROMPT, *PROMPT]
    labels = torch.tensor([tokens])
    labels[:, len(PROMPT) :] = IGNORE
    changed = read(tokens[: len(PROMPT)] + [(t + 5) % VOCABULARY for t in PROMPT], labels=labels)
    one, _ = heads.loss(read(tokens, labels=labels), tiny.target())
    other, _ = heads.loss(changed, tiny.target())
    assert one.item() == pytest.approx(other.item())


def test_accuracy_counts_the_labelled_places(method: str) -> None:
    heads, text = fresh(method), read([*PROMPT, *PROMPT])
    accuracy = measure_accuracy(heads, tiny.target(), [text, text], VOCABULARY)
    assert len(accuracy) == 3
    for row in accuracy:
        assert len(row) == VOCABULARY
        assert sum(row) <= 1 + 1e-3


def test_heads_on_disk_are_found_beside_their_base(method: str, tmp_path: Path) -> None:
    made = found(method)
    assert made.locate(str(tmp_path), WeightSources()) is None
    beside = tmp_path / "nfox" / method
    shutil.copytree(tiny.heads_folder(method), beside)
    assert made.locate(str(tmp_path), WeightSources()) == str(beside)
    assert made.locate("another/model", WeightSources(heads=str(beside))) == str(beside)
    assert checkpoint.base_of(str(beside)) == "llama"


def test_heads_survive_writing_and_reading(method: str, tmp_path: Path) -> None:
    heads = fresh(method).to(torch.bfloat16)
    about = checkpoint.HeadsInfo(method=method, base="x", config=heads.config.model_dump())
    checkpoint.write(tmp_path / "heads", about, heads.state_dict())
    assert checkpoint.read_info(str(tmp_path / "heads")) == about
    again, _ = found(method).load_heads(
        LoadedModel("x", tiny.target()), str(tmp_path / "heads"), HubOptions()
    )
    assert again.state_dict().keys() == heads.state_dict().keys()
    for name, weight in heads.state_dict().items():
        assert torch.equal(again.state_dict()[name].to(weight.dtype), weight)


@pytest.mark.parametrize("damage", ["cut", "missing", "foreign", "not json", "other base", "names"])
def test_damaged_heads_are_refused_in_one_line(method: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    shutil.copytree(tiny.heads_folder(method), folder)
    weights, about = folder / checkpoint.WEIGHTS_FILE, folder / checkpoint.INFO_FILE
    said = json.loads(about.read_text())
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif damage == "missing":
        weights.unlink()
    elif damage == "foreign":
        shutil.copy(tiny.heads_folder(method, num_heads=2) / checkpoint.WEIGHTS_FILE, weights)
    elif damage == "not json":
        about.write_text("{")
    elif damage == "other base":
        about.write_text(json.dumps(said | {"config": said["config"] | {"hidden_size": 7}}))
    else:
        about.write_text(json.dumps(said | {"config": said["config"] | {"feet": 4}}))
    with pytest.raises(ModelError) as caught:
        found(method).load_heads(
            LoadedModel("the target", tiny.target()), str(folder), HubOptions()
        )
    assert "\n" not in str(caught.value)


def changed_heads(method: str, folder: Path, **changes: Any) -> Path:
    """Copy heads, with other fields in the config that they say they have."""
    shutil.copytree(tiny.heads_folder(method), folder)
    about = folder / checkpoint.INFO_FILE
    said = json.loads(about.read_text())
    about.write_text(json.dumps(said | {"config": said["config"] | changes}))
    return folder


def test_the_weights_decide_before_layers_are_made(method: str, tmp_path: Path) -> None:
    """Any number in a config is refused at once or leaves the text as it is: nothing is made or
    filled that the file does not hold.
    """
    target = tiny.target()
    right = tiny.slow("llama", PROMPT, 4)
    fields = found(method).heads_class.Config.model_fields
    wrong: list[Any] = [10**9, 10**30, 10**6, 0, 1.5, "7", None]
    numbers = [name for name, field in fields.items() if field.annotation is not bool]
    refused = 0
    for name, value in itertools.product(numbers, wrong):
        place = changed_heads(method, tmp_path / f"{name}-{wrong.index(value)}", **{name: value})
        parts = DrafterInputs(LoadedModel("x", target), weights=str(place))
        try:
            drafter = found(method).build(parts, found(method).options(nodes=3))
        except ModelError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert tiny.text(tiny.run(target, drafter, PROMPT, max_tokens=4)) == right
    assert refused > len(numbers) * len(wrong) / 2


@pytest.mark.parametrize("damage", ["missing", "unexpected", "nan", "inf", "integers", "shape"])
def test_weights_that_are_not_whole_are_named(method: str, damage: str, tmp_path: Path) -> None:
    folder = changed_heads(method, tmp_path / "heads")
    file = folder / checkpoint.WEIGHTS_FILE
    weights = read_tensors(file)
    name = max(weights)
    if damage == "missing":
        del weights[name]
    elif damage == "unexpected":
        weights[name := "one.more.weight"] = torch.ones(2)
    elif damage == "integers":
        weights[name] = weights[name].to(torch.int32)
    elif damage == "shape":
        weights[name] = weights[name].flatten()[:-1]
    else:
        weights[name].view(-1)[-1] = float(damage)
    write_tensors(file, weights)
    with pytest.raises(ModelError, match=re.escape(name)) as caught:
        found(method).load_heads(LoadedModel("x", tiny.target()), str(folder), HubOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accuracy", [[2.0]]),
        ("accuracy", [[]]),
        ("accuracy", [[float("nan")]]),
        ("training", {"base_fingerprint": ["x"]}),
        ("training", {"base_fingerprint": [[1.0]]}),
        ("training", {"joint": [1]}),
        ("base", 5),
        ("config", []),
    ],
)
def test_what_training_does_not_write_is_refused(
    method: str, field: str, value: Any, tmp_path: Path
) -> None:
    folder = changed_heads(method, tmp_path / "heads")
    about = folder / checkpoint.INFO_FILE
    about.write_text(json.dumps(json.loads(about.read_text()) | {field: value}))
    with pytest.raises(ModelError, match=field):
        found(method).load_heads(LoadedModel("x", tiny.target()), str(folder), HubOptions())


def test_accuracies_deeper_than_the_heads_count_for_nothing(method: str) -> None:
    drafter = tiny.make(method)
    drafter.choose_tree(drafter.options(), [[0.5]] * 9, None)
    assert drafter.shape.depth == drafter.heads.config.num_heads


def test_a_tree_that_was_named_is_cut_once_and_stays_whatever_forwards_cost(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = tiny.make(method, tree="mc_sim_7b_63")
    shape, warnings = drafter.shape, len(caplog.records)
    drafter.plan(Costs({1: 1.0, 32: 90.0}))
    assert drafter.shape == shape
    assert len(caplog.records) == warnings


def test_heads_for_another_model_say_for_which(method: str, tmp_path: Path) -> None:
    folder = tiny.heads_folder(method, hidden_size=16)
    with pytest.raises(ModelError, match="was trained for llama"):
        found(method).load_heads(
            LoadedModel("the target", tiny.target()), str(folder), HubOptions()
        )


def test_a_published_tree_is_cut_where_the_heads_end(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = tiny.make(method, tree="eagle_25")  # 4, 8, 8, 3 and 2 nodes on its levels; 3 heads
    if method != "ctc":  # which has a tree of its own, with as many nodes
        assert max(len(path) for path in drafter.shape.paths) == 3
    assert len(drafter.shape) == 4 + 8 + 8
    assert "5 deep, the heads draft 3 ahead: 20 of its 25 nodes" in caplog.text


def test_a_tree_of_a_file_that_is_deeper_than_the_heads_is_refused(
    method: str, tmp_path: Path
) -> None:
    file = tmp_path / "tree.json"
    file.write_text("[[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]")
    with pytest.raises(UsageError, match="4 deep"):
        tiny.make(method, tree=str(file))


@pytest.mark.parametrize("family", ["llama", "gemma2", "bloom"])
def test_one_seed_gives_the_text_of_plain_decoding(method: str, family: str) -> None:
    target, texts = tiny.target(family), []
    for name in (method, "none"):
        rule = make_rule("exact", Sampling(0.9, top_k=20, seed=4), reply=2)
        steps = tiny.run(target, tiny.make(name, family), PROMPT, rule=rule, max_tokens=40)
        texts.append(tiny.text(steps))
    assert texts[0] == texts[1]


def test_a_target_that_takes_chains_gets_chains(method: str) -> None:
    drafter = tiny.make(method, "bloom")
    steps = tiny.run(tiny.target("bloom"), drafter, PROMPT)
    assert all(step.tree.is_chain for step in steps)
    assert max(len(step.tree) for step in steps) > 1


def test_missing_heads_name_the_command_that_trains_them(method: str) -> None:
    parts = DrafterInputs(LoadedModel("some/model", tiny.target()))
    with pytest.raises(ModelError) as caught:
        drafters.build_drafter(method, {}, parts, WeightSources())
    assert f"nfox train {method}" in str(caught.value.hint)


def test_guesses_come_with_how_sure_they_are(method: str) -> None:
    """The chances of all tokens of a depth, or all but the end of the text there, make up 1."""
    target, drafter = tiny.target(), tiny.make(method)
    cache = target.new_cache()
    target.read(PROMPT, cache)
    guesses = drafter.guess(Context(cache, 3, [], [], 9, make_rule()), target.vocabulary_size)
    for row in guesses.probabilities:
        assert row == sorted(row, reverse=True)
        assert all(0 <= chance <= 1 for chance in row)
        assert sum(row) <= 1 + 1e-5


def test_a_tree_grows_by_what_its_guesses_promise(method: str) -> None:
    """Under budget there is nothing in it that does not pay; without them as much as allowed."""
    target, drafter = tiny.target(), tiny.make(method)
    cache = target.new_cache()
    target.read(PROMPT, cache)
    context = Context(cache, 3, [], [], 9, make_rule())
    free = drafter.propose(context)
    assert len(free) > 20
    sizes = [len(free)]
    for rate in (1e-3, 0.03, 1.0):
        drafter.budget = NodeBudget(63, Costs({1: 1.0, 2: 2.0}), rate)
        sizes.append(len(drafter.propose(context)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_heads_draft_where_guesses_pay_though_depths_counted_apart_do_not(method: str) -> None:
    """What pays is judged by the guesses of every step, and not given up beforehand."""
    drafter = tiny.make(method)
    depth = drafter.heads.config.num_heads
    drafter.measure_draft_seconds = lambda: 0.4 * drafter.max_depth / depth
    unsure = [[0.2]] * depth
    flat, steep = {1: 1.0, 32: 1.0}, {1: 1.0, 32: 32.0}
    drafter.choose_tree(drafter.options(), unsure, Costs(flat))
    assert drafter.shape.paths == tree_shapes.TreeShape.chain(drafter.max_depth).paths
    assert not drafter.idle
    assert drafter.budget.depth_cost == pytest.approx(0.4 / depth)
    drafter.choose_tree(drafter.options(tree="measured"), unsure, Costs(flat))
    assert not drafter.shape
    drafter.choose_tree(drafter.options(), unsure, Costs(steep))
    assert not drafter.shape and drafter.idle


def test_a_fixed_tree_is_charged_for_the_depths_that_it_has(method: str) -> None:
    """Trees that grow in every step may be deeper; what that takes is none of its business."""
    drafter, costs = tiny.make(method), Costs({1: 1.0, 8: 1.25, 64: 2.2})
    depth = drafter.heads.config.num_heads
    accuracy = [[0.6, 0.1]] * depth
    drafter.measure_draft_seconds = lambda: 0.1 * drafter.max_depth
    drafter.choose_tree(drafter.options(tree="measured"), accuracy, costs)
    expected = tree_shapes.fastest_shape(accuracy, costs, 0.1 * depth, max_width=drafter.max_width)
    assert drafter.shape == expected


def test_the_largest_tree_has_all_nodes_that_are_allowed_whatever_they_cost(method: str) -> None:
    steep = Costs({1: 1.0, 64: 640.0})
    drafter = tiny.make(method)
    drafter.measure_draft_seconds = lambda: 0.1
    for nodes in (9, 40):
        drafter.choose_tree(drafter.options(tree="largest", nodes=nodes), [[0.2]], steep)
        drafter.plan(steep)
        trees = [step.tree for step in tiny.run(tiny.target(), drafter, PROMPT)]
        assert {len(tree) for tree in trees[:-4]} == {1 + nodes}


@pytest.mark.parametrize("tree", ["auto", "largest", "measured", "tree.json"])
def test_any_tree_gives_the_text_of_plain_decoding(
    method: str, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tree.json").write_text("[[0], [1], [2], [0, 0], [2, 1], [0, 0, 3]]")
    texts = [
        tiny.text(tiny.run(tiny.target(), drafter, PROMPT, max_tokens=30))
        for drafter in (tiny.make(method, tree=tree, nodes=20), tiny.make("none"))
    ]
    assert texts[0] == texts[1]


def test_no_tree_is_cut_that_was_not_asked_to_be(method: str, tmp_path: Path) -> None:
    """The largest tree is drafted whole; more nodes are refused, and named."""
    ranks = itertools.product(range(7), repeat=2)
    paths = [*((rank,) for rank in range(7)), *ranks, *((0, 0, rank) for rank in range(7))]
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(paths))
    assert len(tiny.make(method, tree=str(file)).shape) == len(paths) == 63
    for nodes in (-1, 64, 200):
        with pytest.raises(UsageError, match=f"nodes must be 0 to 63, not {nodes}"):
            tiny.make(method, nodes=nodes)


def test_the_tree_is_bounded_by_nodes_and_by_cost(method: str) -> None:
    assert len(tiny.make(method, nodes=5).shape) <= 5
    assert len(tiny.make(method, nodes=0).shape) == 0
    assert isinstance(tiny.make(method).shape, tree_shapes.TreeShape)
