"""What our own programs write is known by its name, whatever option it is given to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import folder
import pytest
import torch
from peft import LoraConfig, get_peft_model

from nfox import ModelOptions, Settings, drafters, load
from nfox.errors import ModelError, UsageError
from nfox.heads.named_model import NamedModel, find_named
from nfox.models.loading import load_model
from nfox.models.training_folders import option_for

FLOAT32 = ModelOptions(offline=True, dtype="float32")


def adapter(place: Path, base: str = "BASE") -> Path:
    place.mkdir(parents=True)
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return place


def heads(place: Path, base: str = "BASE") -> Path:
    folder.write_heads(place, drafters.method_class("medusa"), base=base)
    return place


def model(place: Path) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return place


def test_the_output_folder_of_every_training_is_a_name(tmp_path: Path) -> None:
    lora = tmp_path / "cllm"
    adapter(lora / "adapter")
    assert find_named(str(lora)) == NamedModel("BASE", None, str(lora / "adapter"))
    assert find_named(str(lora / "adapter")) == NamedModel("BASE", None, str(lora / "adapter"))
    whole = tmp_path / "whole"
    model(whole / "base")
    assert find_named(str(whole)) == NamedModel(str(whole / "base"))
    joint = heads(tmp_path / "joint")
    assert find_named(str(joint)) == NamedModel("BASE", str(joint))
    adapter(joint / "adapter")
    assert find_named(str(joint)) == NamedModel("BASE", str(joint), str(joint / "adapter"))
    both = heads(tmp_path / "both", base="where it was")
    model(both / "base")
    assert find_named(str(both)) == NamedModel(str(both / "base"), str(both))


def test_what_was_typed_comes_before_what_is_found(tmp_path: Path) -> None:
    joint = heads(tmp_path / "joint")
    adapter(joint / "adapter")
    named = find_named(str(joint), heads="H", adapter="A", base_model="B")
    assert named == NamedModel("B", "H", "A")
    plain = model(tmp_path / "plain")
    assert find_named(str(plain), heads="H") == NamedModel(str(plain), "H")
    with pytest.raises(UsageError, match="two bases"):
        find_named(str(plain), heads="H", base_model="B")


def test_a_model_stays_what_it_is(tmp_path: Path) -> None:
    plain = model(tmp_path / "plain")
    model(plain / "base")
    adapter(plain / "adapter")
    assert find_named(str(plain)) == NamedModel(str(plain))


def test_a_whole_training_answers_by_its_name(tmp_path: Path) -> None:
    shutil.copytree(folder.llama(endless=True), tmp_path / "out" / "base")
    settings = Settings(max_new_tokens=8)
    ids = [
        load(str(place), loading=FLOAT32, settings=settings).answer("the fox").ids
        for place in (tmp_path / "out", tmp_path / "out" / "base")
    ]
    assert ids[0] == ids[1] != []
    assert load_model(str(tmp_path / "out"), FLOAT32).tokenizer is not None  # as any loader


def test_an_adapter_answers_by_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    base = str(folder.llama(endless=True))
    adapted = get_peft_model(load_model(base, FLOAT32).target.model, config)
    adapted.save_pretrained(tmp_path / "out" / "adapter")
    loading = ModelOptions(offline=True, dtype="float32", adapter=str(tmp_path / "out" / "adapter"))
    settings = Settings(max_new_tokens=8)
    want = load(base, loading=loading, settings=settings).answer("the fox").ids
    for place in (tmp_path / "out", tmp_path / "out" / "adapter"):
        engine = load(str(place), loading=FLOAT32, settings=settings)
        assert engine.answer("the fox").ids == want
        assert (engine.model.name, engine.model.adapter) == (base, loading.adapter)
    assert load(base, loading=FLOAT32, settings=settings).answer("the fox").ids != want


def test_what_is_given_to_the_wrong_option_is_told_the_right_one(tmp_path: Path) -> None:
    base, place = str(folder.llama()), heads(tmp_path / "heads")
    checkpoint = tmp_path / "out" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    for_vllm = tmp_path / "for-vllm"  # in vLLM's layout, which looks like a model's
    for_vllm.mkdir()
    (for_vllm / "config.json").write_text('{"model_type": "medusa", "hidden_size": 64}')
    for given, hint in (
        ({"heads": base}, f"--draft-model {base}"),
        ({"heads": str(adapter(tmp_path / "adapter"))}, "this is an adapter: --adapter"),
        ({"heads": str(checkpoint)}, f"what the training made is in {tmp_path / 'out'}"),
        ({"draft_model": str(place)}, f"these are heads: --heads {place}"),
        ({"draft_model": str(for_vllm)}, f"these are heads: --heads {for_vllm}"),
        ({"heads": str(place), "method": "ctc"}, "--method medusa"),
        ({"heads": str(place), "method": "spec"}, "--method medusa"),
    ):
        with pytest.raises(ModelError) as caught:
            load(base, loading=FLOAT32, **given)
        assert hint in caught.value.hint
    assert option_for(str(tmp_path)) == ""
