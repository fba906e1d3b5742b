"""Medusa: the published layouts, and the mistakes of the published program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from nfox import drafters
from nfox.drafters.common import published_trees
from nfox.drafters.common.method import DrafterInputs, WeightSources
from nfox.drafters.medusa import Medusa, MedusaConfig, MedusaHeads
from nfox.errors import ModelError
from nfox.files.hub import HubOptions
from nfox.heads.base import TextBatch
from nfox.heads.checkpoint import base_of
from nfox.models.options import LoadedModel

SIZE, WORDS = 32, tiny.VOCABULARY


def published(place: Path, file: str, *, own: bool = True, heads: int = 5, layers: int = 1) -> Path:
    """Write heads as the published program does; its configs say 2 heads where 5 are stored."""
    place.mkdir()
    config = {"base_model_name_or_path": "lmsys/vicuna-7b-v1.3", "medusa_num_heads": 2}
    (place / "config.json").write_text(json.dumps(config | {"medusa_num_layers": layers}))
    torch.manual_seed(1)
    weights = {}
    for k in range(heads):
        for i in range(layers):
            weights[f"{k}.{i}.linear.weight"] = torch.randn(SIZE, SIZE)
            weights[f"{k}.{i}.linear.bias"] = torch.randn(SIZE)
        if own:
            weights[f"{k}.{layers}.weight"] = torch.randn(WORDS, SIZE)
    if file.endswith(".pt"):
        torch.save(weights, place / file)
    else:
        save_file(weights, place / file)
    return place


@pytest.mark.parametrize("file", ["medusa_lm_head.pt", "medusa_lm_head.safetensors"])
@pytest.mark.parametrize(("own", "layers"), [(True, 1), (True, 2), (False, 1)])
def test_both_published_layouts_are_read(tmp_path: Path, file: str, own: bool, layers: int) -> None:
    place = str(published(tmp_path / "heads", file, own=own, layers=layers))
    assert base_of(place) == "lmsys/vicuna-7b-v1.3"
    assert Medusa.locate("lmsys/vicuna-7b-v1.3", WeightSources(heads=place)) == place
    heads, about = Medusa.load_heads(LoadedModel("the target", tiny.target()), place, HubOptions())
    assert about.base == "lmsys/vicuna-7b-v1.3"
    assert heads.config.num_heads == 5  # what is stored, not what the config says
    assert (heads.config.num_layers, heads.config.own_vocabulary) == (layers, own)
    parts = DrafterInputs(LoadedModel("the target", tiny.target()))
    drafter = drafters.build_drafter("medusa", {}, parts, WeightSources(heads=place))
    assert drafter.forecast == (1, ()), "what others measured elsewhere says nothing here"
    steps = tiny.run(tiny.target(), drafter, tiny.PROMPT)
    assert tiny.text(steps) == tiny.slow("llama", tiny.PROMPT, 24)
    assert max(len(step.tree) for step in steps) > 10


def test_a_head_computes_what_the_paper_says(tmp_path: Path) -> None:
    place = published(tmp_path / "heads", "medusa_lm_head.pt")
    heads, _ = Medusa.load_heads(LoadedModel("the target", tiny.target()), str(place), HubOptions())
    weights = torch.load(place / "medusa_lm_head.pt", weights_only=True)
    h = torch.randn(SIZE, dtype=torch.float64)
    for k in range(5):
        w = {name: weight.double() for name, weight in weights.items()}
        z = w[f"{k}.0.linear.weight"] @ h + w[f"{k}.0.linear.bias"]
        expected = w[f"{k}.1.weight"] @ (h + z * torch.sigmoid(z))
        assert torch.allclose(heads.logits(h, tiny.target())[k], expected)


def test_blocks_do_not_share_weights() -> None:
    heads = MedusaHeads(MedusaConfig(hidden_size=SIZE, vocab_size=WORDS, num_layers=3))
    assert len({weight.data_ptr() for weight in heads.parameters()}) == 4 * 3 * 2


def test_heads_start_as_the_base_itself() -> None:
    target = tiny.target()
    config = MedusaConfig(hidden_size=SIZE, vocab_size=WORDS, own_vocabulary=True)
    hidden = torch.randn(3, SIZE, dtype=torch.float64)
    for own in (True, False):
        heads = MedusaHeads(config.model_copy(update={"own_vocabulary": own})).double()
        heads.prepare_training(target)
        for k in range(4):
            assert torch.allclose(heads.logits(hidden, target)[:, k], target.unembed(hidden))


def test_head_k_counts_decay_to_the_k_in_the_loss() -> None:
    target, ids = tiny.target(), torch.tensor([tiny.PROMPT])
    config = MedusaConfig(hidden_size=SIZE, vocab_size=WORDS, num_heads=3, decay=0.8)
    heads = MedusaHeads(config).double()
    loss, numbers = heads.loss(TextBatch(ids, target.hidden_states(ids), ids), target)
    expected = sum(0.8**k * numbers[f"head{k}_loss"] for k in (1, 2, 3))
    assert float(loss.detach()) == pytest.approx(expected)


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    place = published(tmp_path / "heads", "medusa_lm_head.pt")
    torch.save({"layers.3.weight": torch.ones(2, 2)}, place / "medusa_lm_head.pt")
    with pytest.raises(ModelError, match="not those of Medusa heads"):
        Medusa.locate("x", WeightSources(heads=str(place)))


@pytest.mark.parametrize("size", [0, 2, 100, 20_000])
def test_a_cut_checkpoint_is_one_line_of_our_own(tmp_path: Path, size: int) -> None:
    place = published(tmp_path / "heads", "medusa_lm_head.pt")
    file = place / "medusa_lm_head.pt"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError) as caught:
        Medusa.locate("x", WeightSources(heads=str(place)))
    assert str(caught.value) == f"{file}: not a whole checkpoint of weights ({size:,} bytes)"


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('the trap was sprung')",))

    place = published(tmp_path / "heads", "medusa_lm_head.pt")
    torch.save({"0.0.linear.weight": Trap()}, place / "medusa_lm_head.pt")
    with pytest.raises(ModelError):
        Medusa.locate("x", WeightSources(heads=str(place)))


@pytest.mark.parametrize("name", [n for n in published_trees.names() if n != "eagle_25"])
def test_every_published_tree_is_drafted(name: str) -> None:
    target = tiny.target()
    parts = DrafterInputs(
        LoadedModel("the target", target), weights=str(tiny.heads_folder("medusa", num_heads=4))
    )
    drafter = Medusa.build(parts, Medusa.options(tree=name))
    steps = tiny.run(target, drafter, tiny.PROMPT)
    assert tiny.text(steps) == tiny.slow("llama", tiny.PROMPT, 24)
    assert len(steps[1].tree) == 64


def test_published_heads_are_named_for_their_base() -> None:
    assert Medusa.published("lmsys/vicuna-7b-v1.3") == "FasterDecoding/medusa-vicuna-7b-v1.3"
    assert Medusa.published("some/other-model") is None
    assert (
        Medusa.locate("lmsys/vicuna-7b-v1.3", WeightSources()) is None
    )  # nothing is downloaded unasked


def test_a_published_config_that_names_fewer_heads_than_are_stored_has_no_say(
    tmp_path: Path,
) -> None:
    place = published(tmp_path / "heads", "medusa_lm_head.safetensors", heads=5)
    assert json.loads((place / "config.json").read_text())["medusa_num_heads"] == 2
    heads, about = Medusa.load_heads(
        LoadedModel("the target", tiny.target()), str(place), HubOptions()
    )
    assert len(heads.heads) == about.config["num_heads"] == 5


@pytest.mark.parametrize(
    "weights",
    [
        {"1000000000.0.linear.weight": torch.ones(SIZE, SIZE)},
        {f"{'9' * 5000}.0.linear.weight": torch.ones(SIZE, SIZE)},
        {"0.1000000000.linear.weight": torch.ones(SIZE, SIZE)},
        {"\u00b2.0.linear.weight": torch.ones(SIZE, SIZE)},
        {"0.0.linear.weight": torch.tensor(1.0)},
        {"0.0.linear.weight": torch.ones(SIZE, SIZE)},  # without its bias
        {"state_dict": {"0.0.linear.weight": torch.ones(SIZE, SIZE)}},
        {},
    ],
)
def test_published_weights_that_are_none_are_refused_at_once(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    place = published(tmp_path / "heads", "medusa_lm_head.pt")
    torch.save(weights, place / "medusa_lm_head.pt")
    with pytest.raises(ModelError):
        Medusa.load_heads(LoadedModel("the target", tiny.target()), str(place), HubOptions())
