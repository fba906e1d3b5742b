"""A checkpoint is loaded whole or not at all: what it lacks never becomes random numbers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nfox.errors import ModelError
from nfox.models.checkpoint_keys import check_keys
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions

OFFLINE = ModelOptions(offline=True, dtype="float32")
DOWN = "model.layers.1.mlp.down_proj.weight"
QUERY = "model.layers.0.self_attn.q_proj"
Weights = dict[str, Tensor]


def changed(
    tmp_path: Path,
    change: Callable[[Weights], Weights | None] = lambda weights: None,
    **config: Any,
) -> Path:
    """Return a copy of the tiny Llama with other weights, and other values in its config.

    Args:
        tmp_path: where it is put.
        change: changes the weights in place, or returns others.
        config: the values; None takes a field out.
    """
    model = Path(shutil.copytree(folder.llama(), tmp_path / "model"))
    file = model / "model.safetensors"
    weights = load_file(file)
    save_file(change(weights) or weights, file, {"format": "pt"})
    values = json.loads((model / "config.json").read_text()) | config
    values = {name: value for name, value in values.items() if value is not None}
    (model / "config.json").write_text(json.dumps(values))
    return model


def refused(model: Path, options: ModelOptions = OFFLINE) -> ModelError:
    with pytest.raises(ModelError) as error:
        load_model(str(model), options)
    assert error.value.code == 3
    assert "\n" not in error.value.message + error.value.hint
    assert len(error.value.message) < 600
    assert str(model) in error.value.message
    return error.value


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: w for name, w in weights.items() if name not in names}


def with_more(name: str, *shape: int) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {name: torch.ones(shape)}


def renamed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


@pytest.mark.parametrize("name", [DOWN, "model.norm.weight", "model.embed_tokens.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    error = refused(changed(tmp_path, without(name)))
    assert f"lack {name}" in error.message


def test_few_of_many_missing_tensors_are_named_and_all_are_counted(tmp_path: Path) -> None:
    count = len(load_file(folder.llama() / "model.safetensors"))
    error = refused(changed(tmp_path, lambda weights: {"other": torch.ones(400, 64)}))
    assert error.message.count("model.layers") < 4
    assert f"and {count - 3} more" in error.message


def test_a_missing_output_is_no_error_where_it_is_tied(tmp_path: Path) -> None:
    """transformers takes tied weights from each other, whichever of them is stored."""
    output, entry = "lm_head.weight", "model.embed_tokens.weight"
    stored = load_file(folder.llama() / "model.safetensors")
    for number, (missing, kept) in enumerate([(output, entry), (entry, output)]):
        tied = changed(tmp_path / str(number), without(missing), tie_word_embeddings=True)
        model = load_model(str(tied), OFFLINE).target.model
        assert torch.equal(model.get_output_embeddings().weight, stored[kept])
        assert torch.equal(model.get_input_embeddings().weight, stored[kept])
    untied = refused(changed(tmp_path / "untied", without(output)))
    assert output in untied.message
    assert "tie_word_embeddings" in untied.hint
    both = changed(tmp_path / "neither", without(output, entry), tie_word_embeddings=True)
    assert entry in refused(both).message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{QUERY}.bias", (64,)),  # a config that denies it
        ("model.layers.0.self_attn.q_norm.weight", (16,)),  # of Qwen 3
        (f"{QUERY}.lora_A.default.weight", (4, 64)),  # never merged
        (f"{QUERY}.weight_scale_inv", (1, 1)),  # weights that are quantised
        (f"{QUERY}.SCB", (64,)),
        ("model.layers.2.mlp.down_proj.weight", (64, 64)),  # a layer that is not counted
    ],
)
def test_a_tensor_that_would_be_left_out_is_named(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    assert name in refused(changed(tmp_path, with_more(name, *shape))).message


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",  # of older checkpoints
        "model.rotary_emb.inv_freq",
        "v_head.summary.weight",  # of a model that learnt from rewards
        "score.weight",
        "medusa_head.0.0.linear.weight",
        "mtp.layers.0.self_attn.q_proj.weight",
        "model.mtp_layers.0.input_proj.weight",
        "model.vision_tower.layers.0.self_attn.q_proj.weight",
        "model.mm_projector.0.weight",
        "optimizer_step",
        "model.layers.0.self_attn.k_proj.k_scale",  # of a cache in float8, for vLLM
        "model.layers.0.self_attn.kv_scale",
    ],
)
def test_a_tensor_that_changes_nothing_is_left_out(tmp_path: Path, name: str) -> None:
    load_model(str(changed(tmp_path, with_more(name, 4))), OFFLINE)


def test_layers_that_predict_further_ahead_are_left_out(tmp_path: Path) -> None:
    more = with_more("model.layers.2.mlp.down_proj.weight", 64, 64)
    load_model(str(changed(tmp_path, more, num_nextn_predict_layers=1)), OFFLINE)


def test_sizes_that_differ_are_told(tmp_path: Path) -> None:
    def cut(weights: Weights) -> None:
        weights[DOWN] = weights[DOWN][:32].clone()

    error = refused(changed(tmp_path / "cut", cut))
    assert f"{DOWN} (32, 64), not (64, 64)" in error.message
    error = refused(changed(tmp_path / "vocabulary", vocab_size=330))
    assert "model.embed_tokens.weight (320, 64), not (330, 64)" in error.message
    error = refused(changed(tmp_path / "layers", num_hidden_layers=3))
    assert "model.layers.2" in error.message
    error = refused(changed(tmp_path / "fewer", num_hidden_layers=1))
    assert "model.layers.1" in error.message
    assert "config.json" in error.hint


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_names_with_a_prefix_are_recognised(tmp_path: Path, prefix: str) -> None:
    error = refused(changed(tmp_path, renamed(prefix)))
    assert f"{prefix}lm_head.weight" in error.message
    assert "save_pretrained" in error.hint


def test_an_adapter_that_was_never_merged_is_recognised(tmp_path: Path) -> None:
    def wrap(weights: Weights) -> Weights:
        names = {f"{QUERY}.weight": f"{QUERY}.base_layer.weight"}
        wrapped = {names.get(name, name): weight for name, weight in weights.items()}
        return wrapped | {f"{QUERY}.lora_A.default.weight": torch.ones(4, 64)}

    assert "merge" in refused(changed(tmp_path, wrap)).hint


def test_a_pickle_is_judged_as_well(tmp_path: Path) -> None:
    model = changed(tmp_path)
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    load_model(str(model), OFFLINE)
    torch.save(without(DOWN)(weights), model / "pytorch_model.bin")
    assert f"lack {DOWN}" in refused(model).message


def test_shards_hold_every_tensor(tmp_path: Path) -> None:
    model = changed(tmp_path)
    load_model(str(model), OFFLINE).target.model.save_pretrained(model, max_shard_size="40KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    load_model(str(model), OFFLINE)
    file = model / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    shard = model / index["weight_map"].pop(DOWN)
    save_file(without(DOWN)(load_file(shard)), shard, {"format": "pt"})
    file.write_text(json.dumps(index))
    assert f"lack {DOWN}" in refused(model).message
    shard.unlink()
    assert shard.name in refused(model).message


@pytest.mark.slow
def test_quantised_weights_are_judged_and_kept(tmp_path: Path) -> None:
    four = ModelOptions(offline=True, quantisation="4bit", device="cpu")
    assert f"lack {DOWN}" in refused(changed(tmp_path / "lacks", without(DOWN)), four).message
    model = Path(shutil.copytree(folder.llama(), tmp_path / "model"))
    load_model(str(model), four).target.model.save_pretrained(model)
    load_model(str(model), OFFLINE)
    file = model / "model.safetensors"
    save_file(without(f"{DOWN}.absmax", DOWN)(load_file(file)), file, {"format": "pt"})
    refused(model)


def test_nothing_to_say_of_what_is_whole() -> None:
    check_keys("model")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [f"{QUERY}.weight", DOWN, "lm_head.weight"])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, name: str, value: float) -> None:
    """Attention may take a query that is NaN for one that attends to nothing."""

    def spoil(weights: Weights) -> None:
        weights[name][3] = value

    error = refused(changed(tmp_path, spoil))
    assert f"not numbers: {name}" in error.message
    assert "diverged" in error.hint


def test_weights_beyond_float16_are_told_from_those_beyond_all(tmp_path: Path) -> None:
    half = ModelOptions(offline=True, dtype="float16")

    def enlarge(weights: Weights) -> None:
        weights[DOWN][3, 5] = 1e5

    model = changed(tmp_path / "large", enlarge)
    load_model(str(model), ModelOptions(offline=True, dtype="bfloat16"))
    error = refused(model, half)
    assert DOWN in error.message
    assert "float16" in error.message
    assert "bfloat16" in error.hint


def test_padding_of_the_embedding_may_be_anything(tmp_path: Path) -> None:
    def spoil(weights: Weights) -> None:
        weights["model.embed_tokens.weight"][319] = math.nan

    load_model(str(changed(tmp_path / "padding", spoil)), OFFLINE)

    def spoil_a_token(weights: Weights) -> None:
        weights["model.embed_tokens.weight"][200] = math.nan

    error = refused(changed(tmp_path / "token", spoil_a_token))
    assert "model.embed_tokens.weight" in error.message
