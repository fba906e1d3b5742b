"""A model that is split over devices, or lies on the disk in part, says what it says in one place.

"meta" stands for a second GPU here: torch refuses to mix it with others, and gives nothing back.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import folder
import pytest
import tiny
import torch
import transformers
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from nfox import Engine, ModelOptions, drafters, load
from nfox.cli.app import app
from nfox.decoding.sampling import Sampling
from nfox.decoding.tree import TokenTree
from nfox.errors import ModelError, UsageError
from nfox.models import decoding_model
from nfox.models.loading import load_model
from nfox.models.transformers_target import TransformersTarget
from nfox.reply import Settings

pytestmark = pytest.mark.slow

WHOLE = ModelOptions(dtype="float32", device="cpu")


def split(maximum: str = "500KB", **more: Any) -> ModelOptions:
    return ModelOptions("float32", device_map="auto", max_memory={"cpu": maximum}, **more)


def said(name: Path, options: ModelOptions, method: str = "none") -> list[int]:
    settings = Settings(max_new_tokens=12, sampling=Sampling(temperature=0.8, seed=3))
    return answer(load(str(name), loading=options, method=method, settings=settings))


@cache
def whole(name: Path, method: str) -> list[int]:
    """What it says in one place."""
    return said(name, WHOLE, method)


def answer(chat: Engine) -> list[int]:
    return chat.answer("the quick fox").ids


def test_layers_that_find_no_room_stay_on_the_disk() -> None:
    for maximum, kinds in (("500KB", {False, True}), ("1GiB", {False})):
        target = load_model(str(folder.llama(layers=6)), split(maximum)).target
        assert ("disk" in target.devices) == (True in kinds)
        layers = target.model.model.layers
        absent = [any(weight.is_meta for weight in layer.parameters()) for layer in layers]
        assert absent == sorted(absent)
        assert set(absent) == kinds


@pytest.mark.parametrize(
    ("maximum", "method"),
    [
        *(("0KB", method) for method in drafters.method_names()),
        *(("250KB", method) for method in ("none", "spec", "auto")),  # the embeddings find room
    ],
)
def test_every_method_says_what_it_says_in_one_place(method: str, maximum: str) -> None:
    name = folder.equipped()
    assert said(name, split(maximum), method) == whole(name, method)


@pytest.mark.parametrize("make", [folder.t5, folder.mamba])
def test_other_architectures_are_split_as_well(make: Any) -> None:
    assert said(make(), split("100KB")) == said(make(), WHOLE)


def test_weights_of_another_layout_are_written_anew_for_as_long_as_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled, beside = tmp_path / "model", tmp_path / "beside"
    shutil.copytree(folder.llama(layers=6), pickled)
    beside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(beside))
    weights = transformers.AutoModelForCausalLM.from_pretrained(pickled).state_dict()
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    chat = load(str(pickled), loading=split(), method="none")
    assert list(beside.rglob("*.safetensors"))
    assert answer(chat) == answer(load(str(pickled), loading=WHOLE, method="none"))
    del chat
    gc.collect()
    assert not list(beside.iterdir())
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError):
        load_model(str(pickled), split())
    assert not list(beside.iterdir())


def test_an_adapter_needs_all_of_the_model_in_memory(tmp_path: Path) -> None:
    name = folder.llama(layers=6)
    model = transformers.AutoModelForCausalLM.from_pretrained(name)
    get_peft_model(model, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no room in memory"):
        load_model(str(name), split(adapter=str(tmp_path)))
    load_model(str(name), split("1GiB", adapter=str(tmp_path)))


def test_the_draft_model_goes_where_the_target_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, ModelOptions] = {}

    def note(name: str, options: ModelOptions, *more: Any) -> Any:
        given[name] = options
        return load_model(name, options, *more)

    monkeypatch.setattr(decoding_model, "load_model", note)
    target, draft = str(folder.llama()), str(folder.llama(layers=1, seed=1))
    for options, device in ((split(), "cpu"), (ModelOptions("float32"), None)):
        load(target, draft_model=draft, loading=options)
        assert (given[draft].device, given[draft].device_map) == (device, None)


def fake(parts: Sequence[str]) -> TransformersTarget:
    """Return a Llama of which some parts are on another device, where states are moved to."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**tiny.FAMILIES["llama"].options)
    )
    for part in map(model.get_submodule, parts):
        add_hook_to_module(part.to("meta"), AlignDevicesHook("meta"))
    target = TransformersTarget(model.eval().requires_grad_(False))
    target.proposals = "trees"  # it says nothing that could be compared
    return target


@pytest.mark.parametrize("parts", [("model.layers.1", "model.norm", "lm_head"), ("lm_head",)])
def test_states_logits_and_heads_are_where_the_last_layer_is(parts: Sequence[str]) -> None:
    target = fake(parts)
    cache = target.new_cache()
    target.read([1, 2, 3], cache)
    tree = TokenTree((1, 2, 3), (-1, 0, 0))
    logits, hidden = target.score(tree, cache)
    cache.commit(tree, [0, 2], hidden)
    found = [
        logits,
        hidden,
        cache.hidden,
        target.hidden_states(torch.tensor([[1, 2]])),
        target.unembed(hidden),
    ]
    assert {tensor.device.type for tensor in found} == {target.output_device.type} == {"meta"}
    assert target.device.type == target.embed(torch.tensor([1])).device.type == "cpu"


def test_what_splits_a_model_is_known_before_it_is_loaded() -> None:
    with pytest.raises(UsageError, match="'everywhere' is not one of auto"):
        ModelOptions(device_map="everywhere")
    absent = ModelOptions(device_map="auto", max_memory={"99": "1GiB"})
    with pytest.raises(UsageError, match="GPU 99"):
        load_model(str(folder.llama()), absent)
    for limits in ("fridge=1GiB", "cpu=much", "cpu=9", "0=1GiB,cpu=-1GB"):
        done = CliRunner().invoke(app, ["-p", "x", "--device-map", "auto", "--max-memory", limits])
        assert done.exit_code == 2
        assert "expected a GPU's number, cpu or disk" in done.stderr
    assert CliRunner().invoke(app, ["-p", "x", "--device-map", "everywhere"]).exit_code == 2


@pytest.mark.parametrize("kind", ["balanced", "balanced-low-0", "sequential"])
def test_the_command_line_splits(kind: str) -> None:
    name = (
        "--model",
        str(folder.llama()),
        "--dtype",
        "float32",
        "--max-new-tokens",
        "8",
        "-p",
        "x",
    )
    limits = ("--device-map", kind, "--max-memory", "cpu=250KB,disk=1GiB")
    done = CliRunner().invoke(app, [*name, *limits])
    assert (done.exit_code, done.stdout) == (0, CliRunner().invoke(app, [*name]).stdout)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", drafters.method_names())
def test_on_gpus_every_method_says_what_it_says_on_one(method: str) -> None:
    name, last = folder.equipped(), "1" if torch.cuda.device_count() > 1 else "cpu"
    limits = {"0": "300KB", last: "1GiB"}
    parts = ModelOptions("float32", device_map="sequential", max_memory=limits)
    whole = ModelOptions("float32", device="cuda:0")
    assert said(name, parts, method) == said(name, whole, method)
