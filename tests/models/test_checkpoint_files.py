"""What is wrong with a folder is said by the file, the field or the package, and what to do."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import folder
import pytest
import torch
from safetensors.torch import load_file, save_file

from nfox import ModelOptions, load
from nfox.errors import ModelError
from nfox.models.loading import load_model

OFFLINE = ModelOptions(offline=True, dtype="float32")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab29\nsize 12345\n"
FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
EIGHT_BITS = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def copied(tmp_path: Path, source: Path | None = None, **config: Any) -> Path:
    """Return a copy of a tiny model, with other values in its config."""
    model = Path(shutil.copytree(source or folder.llama(), tmp_path / "model"))
    values = json.loads((model / "config.json").read_text()) | config
    (model / "config.json").write_text(json.dumps(values))
    return model


def refused(model: Path) -> ModelError:
    with pytest.raises(ModelError) as error:
        load(str(model), loading=OFFLINE)
    assert error.value.code == 3
    assert "\n" not in error.value.message + error.value.hint
    assert str(model) in error.value.message
    return error.value


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', POINTER, "{'a': 1}"])
def test_a_config_that_cannot_be_read(tmp_path: Path, name: str, text: str) -> None:
    model = copied(tmp_path)
    (model / name).write_text(text)
    assert name in refused(model).message


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_that_are_a_pointer_or_empty_or_cut(tmp_path: Path, kind: str) -> None:
    model = copied(tmp_path)
    file = model / "model.safetensors"
    if kind == "bin":
        weights, file = load_file(file), model / "pytorch_model.bin"
        (model / "model.safetensors").unlink()
        torch.save(weights, file)
    whole = file.read_bytes()
    for content, complaint in (
        (POINTER.encode(), "git-lfs"),
        (b"", "empty"),
        (whole[:-5000], "" if kind == "bin" else "not whole"),
        (b"\xff" * len(whole), "" if kind == "bin" else "not whole"),
    ):
        file.write_bytes(content)
        message = refused(model).message
        assert complaint in message
        assert not complaint or file.name in message
    file.unlink()
    assert "model.safetensors" in refused(model).message


def test_a_shard_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    model = copied(tmp_path)
    load_model(str(model), OFFLINE).target.model.save_pretrained(model, max_shard_size="60KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    load_model(str(model), OFFLINE)
    shard = sorted(model.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    assert shard.name in refused(model).message
    shard.write_text(POINTER)
    assert shard.name in refused(model).message
    shard.unlink()
    assert shard.name in refused(model).message
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}')
    assert "weight_map" in refused(model).message


@pytest.mark.parametrize("leftover", [FOUR_BITS, EIGHT_BITS])
def test_a_quantisation_that_was_left_over_is_no_quantisation(
    tmp_path: Path, leftover: dict[str, Any]
) -> None:
    """The adapter of a quantised model is merged into the weights of the model itself."""
    model = load_model(str(copied(tmp_path, quantization_config=leftover)), OFFLINE).target.model
    stored = load_file(folder.llama() / "model.safetensors")
    assert not getattr(model, "is_quantized", False)
    assert all(torch.equal(stored[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("wrong", ["4bit", [1], 5, {"bits": 4}])
def test_a_quantisation_that_is_none(tmp_path: Path, wrong: object) -> None:
    error = refused(copied(tmp_path, quantization_config=wrong))
    assert "quantization_config" in error.message + error.hint


def test_a_package_that_is_missing_is_the_hint(tmp_path: Path) -> None:
    gptq = {"quant_method": "gptq", "bits": 4}
    assert refused(copied(tmp_path, quantization_config=gptq)).hint.startswith("pip install ")


@pytest.mark.parametrize(
    "size",
    ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads"],
)
def test_sizes_beyond_the_weights_are_refused_before_layers_are_made(
    tmp_path: Path, size: str
) -> None:
    for number, value in enumerate((10**6, 10**13)):
        begin = time.process_time()
        assert size in refused(copied(tmp_path / str(number), **{size: value})).message
        assert time.process_time() - begin < 1


@pytest.mark.parametrize("wrong", ["x", 0, -1, 1.5, [], {"a": 1}, None, True, 7])
@pytest.mark.parametrize("field", ["num_attention_heads", "hidden_size"])
def test_a_size_that_is_none(tmp_path: Path, field: str, wrong: object) -> None:
    refused(copied(tmp_path, **{field: wrong}))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *[("model_type", wrong) for wrong in (None, 5, "", "nothing-known", [], {})],
        *[("architectures", wrong) for wrong in (5, "x")],
        *[("dtype", wrong) for wrong in ("float31", "int8", [1], {"a": 1})],
        *[("rope_parameters", wrong) for wrong in ("x", [1], {"rope_type": "none-known"})],
        *[("sliding_window", wrong) for wrong in ("x", [4], {"a": 1})],
        *[("logit_scale", wrong) for wrong in ("x", [4])],
        *[("hidden_act", wrong) for wrong in ("none-known", 5, None, [])],
        *[("eos_token_id", wrong) for wrong in ("x", 1.5, {})],
        *[("max_position_embeddings", wrong) for wrong in ("x", [], None)],
        *[("tie_word_embeddings", wrong) for wrong in ("x", [1])],
        *[("rms_norm_eps", wrong) for wrong in ("x", [1])],
    ],
)
def test_a_field_of_a_wrong_type_is_refused_or_changes_nothing(
    tmp_path: Path, field: str, wrong: object
) -> None:
    model = copied(tmp_path, **{field: wrong})
    try:
        engine = load(str(model), loading=OFFLINE)
    except ModelError as error:
        assert error.code == 3
        assert "\n" not in error.message + error.hint
    else:
        expected = load(str(folder.llama()), loading=OFFLINE)
        asked = {"max_new_tokens": 8}
        assert engine.answer("hi", **asked).ids == expected.answer("hi", **asked).ids


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        ("mamba", "max_position_embeddings", "x"),
        ("mamba", "max_position_embeddings", ["x"]),
        ("t5", "relative_attention_max_distance", 0),
        ("t5", "n_positions", "x"),
    ],
)
def test_a_field_that_its_architecture_does_not_look_at_before_it_runs(
    tmp_path: Path, kind: str, field: str, wrong: object
) -> None:
    error = refused(copied(tmp_path, getattr(folder, kind)(), **{field: wrong}))
    assert "config.json" in error.message + error.hint


def test_a_config_for_programs_that_read_tuples_changes_nothing(tmp_path: Path) -> None:
    expected = load(str(folder.mamba()), loading=OFFLINE).answer("hi", max_new_tokens=8).ids
    model = copied(tmp_path, folder.mamba(), return_dict=False)
    assert load(str(model), loading=OFFLINE).answer("hi", max_new_tokens=8).ids == expected


def test_sizes_of_each_layer_are_none_of_the_memory_estimate(tmp_path: Path) -> None:
    """Some architectures have a list of them; transformers says whether this one may."""
    assert "num_key_value_heads" in refused(copied(tmp_path, num_key_value_heads=[2, 2])).message


def test_an_adapter_in_the_folder_of_a_model_is_not_added_to_it(tmp_path: Path) -> None:
    """transformers adds it in silence, and a merged model would have it twice."""
    model = copied(tmp_path)
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "a/base"}))
    error = refused(model)
    assert "adapter" in error.message
    assert "--adapter" in error.hint
    (model / "model.safetensors").unlink()
    assert "--model a/base --adapter" in refused(model).hint


def test_files_that_are_not_the_models_do_not_matter(tmp_path: Path) -> None:
    model = copied(tmp_path)
    for name in ("consolidated.safetensors", "optimizer.bin", "training_args.bin"):
        (model / name).write_text(POINTER)
    save_file({"other": torch.ones(1)}, model / "other.safetensors")
    assert load_model(str(model), OFFLINE).tokenizer
