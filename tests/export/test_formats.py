"""`nfox export` for other engines: the fields, names and shapes that they read, and their sums."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import folder
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import silu
from transformers import AutoModelForCausalLM, PhiConfig, PhiForCausalLM
from typer.testing import CliRunner

from nfox import drafters
from nfox.cli.app import app
from nfox.demo import TARGET
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.medusa import Medusa, MedusaConfig, MedusaHeads
from nfox.files.atomic import write_text
from nfox.files.hub import HubOptions
from nfox.heads.checkpoint import HeadsInfo, write
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel

OTHERS = [
    name
    for name in drafters.method_names()
    if name != "medusa" and issubclass(drafters.method_class(name), HeadsDrafter)
]

# What vLLM 0.32.0 reads of the config of Medusa heads: the arguments of MedusaConfig.__init__ in
# vllm/transformers_utils/configs/medusa.py, and what Medusa.__init__ asks for in
# vllm/model_executor/models/medusa.py. 0.31.0 has the same. `max_paths` and `topk` are arguments,
# too, that nothing in it looks at.
FIELDS = {
    "architectures": list,
    "model_type": str,
    "hidden_size": int,
    "vocab_size": int,
    "truncated_vocab_size": int,
    "num_heads": int,
    "num_hidden_layers": int,
    "medusa_fc_bias": bool,
    "original_lm_head": bool,
    "logit_scale": float,
}

# Fields of SpeculativeConfig in vllm/config/speculative.py, of 0.32.0 and 0.33.0, that are used.
SPECULATIVE = {"method": str, "model": str, "num_speculative_tokens": int}


def parameters(config: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of the parameters of vLLM's Medusa, as its __init__ makes them."""
    size, words = config["hidden_size"], config["truncated_vocab_size"]
    made = {}
    for head in range(config["num_heads"]):
        for layer in range(config["num_hidden_layers"]):
            made[f"blocks.{head}.layers.{layer}.weight"] = [size, size]
            if config["medusa_fc_bias"]:
                made[f"blocks.{head}.layers.{layer}.bias"] = [size]
        if not config["original_lm_head"]:
            made[f"lm_heads.{head}.weight"] = [words, size]
    return made | ({"lm_head.weight": [words, size]} if config["original_lm_head"] else {})


@pytest.mark.parametrize("own", [True, False])
def test_what_was_written_for_vllm_is_read_as_what_it_was(own: bool, tmp_path: Path) -> None:
    base = load_model(str(folder.llama()))
    config = MedusaConfig(hidden_size=64, vocab_size=320, num_heads=2, own_vocabulary=own)
    about = HeadsInfo(method="medusa", base=str(folder.llama()), config=config.model_dump())
    write(tmp_path / "heads", about, MedusaHeads(config).state_dict())
    words = ["export", "vllm", str(tmp_path / "heads"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code == 0
    written, back = (
        Medusa.load_heads(base, str(tmp_path / place), HubOptions())[0].state_dict()
        for place in ("heads", "out")
    )
    assert written.keys() == back.keys()
    assert all(torch.equal(written[name], back[name]) for name in written)


def logits(config: dict[str, Any], tensors: dict[str, Tensor], hidden: Tensor) -> Tensor:
    """Return [n, K, V]: Medusa.forward and compute_logits of vLLM, in the plainest way."""
    every = []
    for head in range(config["num_heads"]):
        x = hidden
        for layer in range(config["num_hidden_layers"]):
            name = f"blocks.{head}.layers.{layer}"
            x = x + silu(x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"])
        last = "lm_head" if config["original_lm_head"] else f"lm_heads.{head}"
        every.append(x @ tensors[f"{last}.weight"].T * config["logit_scale"])
    return torch.stack(every, dim=1)


def export(layout: str, weights: object, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["export", layout, str(weights), "--out", str(out), *more])


def refused(done: Result, said: str, out: Path) -> None:
    assert done.exit_code in (2, 3), done.output
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not out.exists() or not any(out.iterdir())


def heads(place: Path, base: str, *, own: bool, layers: int = 1) -> Path:
    torch.manual_seed(2)
    config = MedusaConfig(
        hidden_size=64, vocab_size=320, num_heads=3, num_layers=layers, own_vocabulary=own
    )
    made = MedusaHeads(config)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    about = HeadsInfo(method="medusa", base=base, config=config.model_dump())
    write(place, about, made.state_dict())
    return place


def command(done: Result) -> tuple[str, dict[str, Any]]:
    """Return the base and the speculative config of the command that was printed."""
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("vllm serve"))
    _, _, base, option, what = shlex.split(line)
    assert option == "--speculative-config"
    said = json.loads(what)
    assert {name: type(value) for name, value in said.items()} == SPECULATIVE
    return base, said


@pytest.mark.parametrize(("own", "layers"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_medusa_heads_are_what_vllm_makes_of_their_config(
    own: bool, layers: int, tmp_path: Path
) -> None:
    base, out = str(folder.llama()), tmp_path / "out"
    done = export("vllm", heads(tmp_path / "heads", base, own=own, layers=layers), out)
    assert done.exit_code == 0, done.stderr
    config = json.loads((out / "config.json").read_text())
    assert {name: type(value) for name, value in config.items()} == FIELDS
    assert (config["architectures"], config["model_type"]) == (["MedusaModel"], "medusa")
    assert (config["num_heads"], config["num_hidden_layers"]) == (3, layers)
    assert (config["hidden_size"], config["vocab_size"]) == (64, 320)
    assert config["truncated_vocab_size"] == config["vocab_size"]  # else a token_map is asked for
    tensors = load_file(out / "model.safetensors")
    assert {name: list(w.shape) for name, w in tensors.items()} == parameters(config)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    # Each of vLLM's heads drafts one token, and it asks for as many as there are heads.
    said = {"method": "medusa", "model": str(out), "num_speculative_tokens": 3}
    assert command(done) == (base, said)
    assert "0.33" in done.stdout


@pytest.mark.parametrize("own", [True, False, None])
def test_vllms_sums_over_the_written_tensors_are_ours(own: bool | None, tmp_path: Path) -> None:
    base, out = str(folder.llama() if own is not None else TARGET), tmp_path / "out"
    place = TARGET / "nfox" / "medusa"  # for None: the embedded heads
    if own is not None:
        place = heads(tmp_path / "heads", base, own=own, layers=2)
    assert export("vllm", place, out, "--base-model", base).exit_code == 0
    config = json.loads((out / "config.json").read_text())
    tensors = {name: w.double() for name, w in load_file(out / "model.safetensors").items()}
    target = load_model(base).target
    ours, _ = Medusa.load_heads(LoadedModel(base, target), str(place), HubOptions())
    target.model.double()
    torch.manual_seed(0)
    hidden = torch.randn(7, target.hidden_size, dtype=torch.float64)
    with torch.inference_mode():
        expected = ours.double().logits(hidden, target)
    torch.testing.assert_close(logits(config, tensors, hidden), expected)


def test_a_draft_model_is_copied_and_named(tmp_path: Path) -> None:
    draft, base, out = folder.equipped() / "nfox" / "spec", str(folder.llama()), tmp_path / "out"
    done = export("vllm", draft, out, "--base-model", base)
    assert done.exit_code == 0, done.stderr
    said = {"method": "draft_model", "model": str(out), "num_speculative_tokens": 4}
    assert command(done) == (base, said)
    for path in out.iterdir():
        assert path.read_bytes() == (draft / path.name).read_bytes()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in out.iterdir()}
    AutoModelForCausalLM.from_pretrained(out)


def test_a_draft_model_in_shards_is_copied_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export("vllm", TARGET, out, "--base-model", str(TARGET)).exit_code == 0
    weights = {path.name for path in TARGET.glob("model*")}
    assert len(weights) == 4
    assert weights <= {path.name for path in out.iterdir()}


def test_the_base_is_the_one_that_the_draft_model_was_trained_for(tmp_path: Path) -> None:
    draft, out = tmp_path / "draft", tmp_path / "out"
    refused(export("vllm", folder.llama(layers=1, seed=1), out), "--base-model", out)
    draft.mkdir()
    for path in folder.llama(layers=1, seed=1).iterdir():
        (draft / path.name).write_bytes(path.read_bytes())
    write_text(draft / "training.json", json.dumps({"base": str(folder.llama())}))
    assert command(export("vllm", draft, out))[0] == str(folder.llama())


def test_what_could_not_be_checked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", _nothing)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", _nothing)
    done = export("vllm", folder.llama(), tmp_path / "out", "--base-model", "some/base")
    assert done.exit_code == 0, done.stderr
    assert "as many tokens" in done.stdout


def test_the_base_is_looked_for_under_the_name_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def download(repo_id: str, *more: object, **options: object) -> str:
        asked.append(repo_id)
        return _nothing()

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", _nothing)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    done = export("vllm", folder.llama(), tmp_path / "out", "--base-model", "some/base")
    assert done.exit_code == 0, done.stderr
    assert "some/base" in asked  # where the draft model itself names no base


def _nothing(*_: object, **__: object) -> str:
    from huggingface_hub.errors import EntryNotFoundError

    raise EntryNotFoundError("no such file")


def test_a_draft_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(export("vllm", folder.llama(), out, "--base-model", str(TARGET)), "320 tokens", out)
    refused(export("vllm", folder.t5(), out, "--base-model", str(folder.t5())), "decoder-only", out)


@pytest.mark.parametrize("method", OTHERS)
def test_heads_that_vllm_does_not_know_are_refused(method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = folder.equipped() / "nfox" / method
    refused(export("vllm", place, out, "--base-model", str(folder.llama())), method, out)


@pytest.mark.parametrize("method", ["medusa", "spec", *OTHERS])
def test_speculators_has_a_layout_for_nothing_of_ours(method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export("speculators", folder.equipped() / "nfox" / method, out, "--base-model", "x/y")
    refused(done, method, out)
    assert "nfox export vllm" in done.stderr


def test_what_is_no_weights_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(export("vllm", TARGET / "nfox" / "adapters" / "cllm", out), "weights", out)
    refused(export("sglang", folder.llama(), out), "available", out)


def test_a_path_that_vllm_takes_for_another_method_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "Eagle3" / "draft"
    done = export("vllm", folder.llama(), out, "--base-model", str(folder.llama()))
    refused(done, "'eagle3'", out)


def test_weights_are_not_written_over(tmp_path: Path) -> None:
    place = heads(tmp_path / "heads", str(folder.llama()), own=True)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert export("vllm", place, place).exit_code == 2
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_other_weights_are_not_written_over_either(tmp_path: Path) -> None:
    nfox, base = folder.equipped() / "nfox", str(folder.llama())

    def export_to(out: Path, layout: str, weights: Path) -> Result:
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        done = export(layout, weights, out, "--base-model", base)
        if done.exit_code:
            assert f"--out {out} holds " in done.stderr and done.exit_code == 2
            assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
        return done

    model = tmp_path / "model"
    shutil.copytree(folder.llama(), model)
    for layout, weights in (("vllm", nfox / "medusa"), ("medusa", nfox / "medusa")):
        assert export_to(model, layout, weights).exit_code
        for _ in range(2):  # what was written itself is replaced
            assert not export_to(tmp_path / layout, layout, weights).exit_code
    assert export_to(model, "vllm", nfox / "spec").exit_code
    for _ in range(2):
        assert not export_to(tmp_path / "draft", "vllm", nfox / "spec").exit_code
    assert export_to(tmp_path / "vllm", "vllm", nfox / "spec").exit_code
    assert export_to(tmp_path / "draft", "medusa", nfox / "medusa").exit_code


def test_an_lm_head_with_a_bias_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    PhiForCausalLM(config).save_pretrained(tmp_path / "phi")
    place, out = heads(tmp_path / "heads", str(tmp_path / "phi"), own=False), tmp_path / "out"
    refused(export("vllm", place, out), "has a bias", out)
