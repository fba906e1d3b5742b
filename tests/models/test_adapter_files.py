"""An adapter is taken as peft itself runs it, or refused by its name and that of its weights."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder
import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from nfox import Engine, load
from nfox.errors import ModelError
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions
from nfox.text.resolve import resolve

FLOAT32 = ModelOptions(dtype="float32", offline=True)
IDS = torch.tensor([[5, 6, 7, 9]])
PREFIX = "base_model.model."
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with one matrix for input and output."""
    place = shutil.copytree(folder.llama(), tmp_path_factory.mktemp("models") / "tied")
    config = LlamaForCausalLM.from_pretrained(place).config
    config.tie_word_embeddings = True
    torch.manual_seed(2)
    LlamaForCausalLM(config).save_pretrained(place)
    return place


def lora(**fields: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "up_proj"], **fields})


def adapt(base: Path, place: Path, config: Any, rows: int | None = None) -> Tensor:
    """Save an adapter with random weights, for embeddings of so many rows; return the logits that
    peft gives with it, unmerged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        if rows:
            model.resize_token_embeddings(rows, mean_resizing=False)
        adapted = get_peft_model(model, config).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight += 0.1 * torch.randn_like(weight)
            logits: Tensor = adapted(IDS).logits
        adapted.save_pretrained(place)
    return logits


def logits_with(base: Path, adapter: Path | None) -> Tensor:
    options = ModelOptions(dtype="float32", offline=True, adapter=adapter and str(adapter))
    with torch.no_grad():
        logits: Tensor = load_model(str(base), options).target.model(IDS).logits
    return logits


KINDS = {
    "rslora": lora(use_rslora=True),
    "dora": lora(use_dora=True),
    "all linear layers": lora(target_modules="all-linear"),
    "ranks by layer": lora(rank_pattern={"q_proj": 8}, alpha_pattern={"up_proj": 32}),
    "whole layers": lora(modules_to_save=["lm_head", "embed_tokens", "norm"]),
    "embeddings": lora(target_modules=["embed_tokens", "lm_head"]),
    "a few tokens": lora(trainable_token_indices=[5, 6]),
    "made from the base": lora(init_lora_weights="pissa"),
    "one layer": lora(layers_to_transform=[1]),
    "another task": lora(task_type="FEATURE_EXTRACTION"),
    "ia3": peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    "loha": peft.LoHaConfig(r=4, target_modules=["q_proj"]),
    "vera": peft.VeraConfig(r=8, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_adapters_are_taken_as_peft_runs_them(kind: str, tmp_path: Path) -> None:
    expected = adapt(folder.llama(), tmp_path / "adapter", KINDS[kind])
    actual = logits_with(folder.llama(), tmp_path / "adapter")
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)
    assert (actual - logits_with(folder.llama(), None)).abs().max() > 0.1


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_what_is_merged_into_one_of_two_tied_embeddings_leaves_the_other(
    layer: str, tied: Path, tmp_path: Path
) -> None:
    expected = adapt(tied, tmp_path / "adapter", lora(target_modules=[layer]))
    torch.testing.assert_close(
        logits_with(tied, tmp_path / "adapter"), expected, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("rows", [302, 323])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        {"trainable_token_indices": [5, 301]},
    ],
)
def test_resized_embeddings_come_with_the_adapter(
    fields: dict[str, Any], rows: int, is_tied: bool, tied: Path, tmp_path: Path
) -> None:
    base = tied if is_tied else folder.llama()
    expected = adapt(base, tmp_path / "adapter", lora(**fields), rows)
    assert expected.shape[-1] == rows
    actual = logits_with(base, tmp_path / "adapter")
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)


def test_added_tokens_need_both_embeddings(tmp_path: Path) -> None:
    """peft saves none but the adapted one here; the output's new rows would be random."""
    adapt(folder.llama(), tmp_path / "adapter", lora(target_modules=["embed_tokens"]), rows=323)
    refuse(tmp_path / "adapter", "lack .*lm_head.weight")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with a whole layer beside it."""
    place = tmp_path_factory.mktemp("adapters") / "whole"
    adapt(folder.llama(), place, lora(modules_to_save=["lm_head"]))
    return place


def change(
    whole: Path, place: Path, weights: Callable[[Weights], Weights] | None = None, **fields: Any
) -> Path:
    """Copy an adapter with other weights, or other fields in its config."""
    shutil.copytree(whole, place)
    if weights:
        file = place / "adapter_model.safetensors"
        changed = weights(load_file(file))
        file.unlink()
        save_file({name: weight.contiguous() for name, weight in changed.items()}, file)
    config = place / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    return place


def with_nan(weights: Weights) -> Weights:
    weights[max(weights)].view(-1)[-1] = float("nan")
    return weights


WRONG_WEIGHTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "another architecture": (
        lambda w: {name.replace("model.layers", "transformer.h"): w[name] for name in w},
        "lack .*layers.0.mlp.up_proj.lora_A.weight.* no place for: .*transformer.h.0",
    ),
    "half of them": (lambda w: {n: w[n] for n in w if "layers.1" not in n}, "lack .*layers.1"),
    "no whole layer": (lambda w: {n: w[n] for n in w if "lm_head" not in n}, "lack .*lm_head"),
    "one more": (lambda w: w | {"foo.weight": torch.ones(3)}, "no place for: .*foo.weight"),
    "of a classifier": (
        lambda w: w | {f"{PREFIX}score.weight": torch.ones(2, 64)},
        "no place for: .*score.weight",
    ),
    "the prefix twice": (lambda w: {PREFIX + n: w[n] for n in w}, "lack"),
    "no prefix": (lambda w: {n.removeprefix(PREFIX): w[n] for n in w}, "lack"),
    "another size": (
        lambda w: {n: w[n].T if "q_proj.lora_A" in n else w[n] for n in w},
        r"layers.0.self_attn.q_proj.lora_A.weight \(64, 4\), not \(4, 64\)",
    ),
    "nothing": (lambda w: {}, "largest in the file of weights is 1$"),
    "empty ones": (lambda w: {n: torch.zeros(0) for n in w}, r"\(0,\), not"),
    "NaN": (with_nan, "NaN.*q_proj.lora_B"),
    "integers": (lambda w: {n: w[n].to(torch.int8) for n in w}, "no floats"),
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_weights_that_are_not_whole_are_named(kind: str, whole: Path, tmp_path: Path) -> None:
    damage, said = WRONG_WEIGHTS[kind]
    refuse(change(whole, tmp_path / "wrong", damage), said)


def refuse(place: Path, said: str) -> None:
    with pytest.raises(ModelError, match=said) as error:
        logits_with(folder.llama(), place)
    assert f"adapter {place}" in error.value.message
    assert "\n" not in error.value.message + error.value.hint
    assert "whole checkpoint" not in error.value.hint  # it is not the base's fault


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "lack .*lora_magnitude_vector"),
        ({"target_modules": "all-linear"}, "lack .*down_proj"),
        ({"target_modules": ["nope"]}, "target_modules"),
        ({"target_modules": "(("}, "unterminated"),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, "lack .*embed_tokens.weight"),
        ({"trainable_token_indices": [1]}, "lack .*trainable_tokens_delta"),
        ({"r": 8}, r"lora_A.weight \(4, 64\), not \(8, 64\)"),
        ({"r": 10**9}, "rank 1000000000"),
        ({"r": 10**9, "init_lora_weights": "pissa"}, "rank 1000000000"),
        ({"rank_pattern": {"q_proj": 10**9}}, "rank 1000000000"),
        ({"rank_pattern": [8]}, "rank_pattern"),
        ({"use_rslora": "no"}, "use_rslora in adapter_config.json is 'no'"),
        ({"use_dora": 1}, "use_dora in adapter_config.json is 1"),
        ({"r": "4"}, "r in adapter_config.json is '4'"),
        ({"r": 0}, "positive"),
        ({"lora_alpha": None}, "lora_alpha in adapter_config.json is None"),
        ({"lora_alpha": 1e308}, "NaN"),
        ({"peft_type": "FUTURE"}, "FUTURE"),
        ({"peft_type": ["LORA"]}, "LORA"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, "adds to the prompt"),
    ],
)
def test_a_config_that_is_not_that_of_the_weights_is_refused(
    fields: dict[str, Any], said: str, whole: Path, tmp_path: Path
) -> None:
    refuse(change(whole, tmp_path / "wrong", **fields), said)


def test_what_changes_no_number_is_taken(whole: Path, tmp_path: Path) -> None:
    expected = logits_with(folder.llama(), whole)
    buffer = f"{PREFIX}model.layers.0.self_attn.rotary_emb.inv_freq"
    same = [
        change(whole, tmp_path / "buffer", lambda w: w | {buffer: torch.ones(8)}),
        change(whole, tmp_path / "base", base_model_name_or_path="moved/elsewhere", revision="x"),
        change(whole, tmp_path / "version", peft_version="99.0", some_new_field=None),
    ]
    torch.save(load_file(whole / "adapter_model.safetensors"), same[0] / "adapter_model.bin")
    (same[0] / "adapter_model.safetensors").unlink()
    for place in same:
        assert torch.equal(logits_with(folder.llama(), place), expected)


def test_what_may_make_another_text_is_said(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logits_with(folder.llama(), whole)
    assert not caplog.records
    logits_with(folder.llama(), change(whole, tmp_path / "newer", use_magic=True))
    assert "ignores use_magic" in caplog.text
    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(folder.llama()), lora())
    adapted.save_pretrained(tmp_path / "untrained")
    adapt(folder.llama(), tmp_path / "scaled", lora(lora_alpha=0))
    for place in (tmp_path / "untrained", tmp_path / "scaled"):
        caplog.clear()
        logits_with(folder.llama(), place)
        assert "changes nothing" in caplog.text
        assert caplog.records[0].levelno == logging.WARNING


ADDED = ("<|im_start|>", "<|im_end|>")
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"


def with_tokenizer(
    place: Path, *added: str, template: str | None = None, vocabulary: bool = True
) -> Path:
    """Put the base's tokenizer beside an adapter, with more tokens or another template."""
    tokenizer = AutoTokenizer.from_pretrained(folder.llama())
    tokenizer.add_tokens(list(added), special_tokens=True)
    tokenizer.chat_template = template or tokenizer.chat_template
    tokenizer.save_pretrained(place)
    if not vocabulary:
        (place / "tokenizer.json").unlink()
    return place


def load_adapted(place: Path, **more: Any) -> Engine:
    options = ModelOptions(dtype="float32", offline=True, adapter=str(place))
    return load(str(folder.llama()), loading=options, **more)


def test_added_tokens_and_their_template_come_with_the_adapter(tmp_path: Path) -> None:
    adapt(folder.llama(), tmp_path / "chat", lora(), rows=330)
    with_tokenizer(tmp_path / "chat", *ADDED, *(f"<{n}>" for n in range(26)), template=CHAT)
    engine = load_adapted(tmp_path / "chat")
    tokenizer = engine.model.tokenizer
    assert engine.model.target.vocabulary_size == 330 > max(tokenizer.get_vocab().values()) > 320
    prompt = engine.request("hi").prompt.ids
    assert [tokenizer.decode([prompt[0]]), tokenizer.decode([prompt[-1]])] == list(ADDED)
    assert engine.answer("hi", max_new_tokens=4).ids


def test_a_template_without_a_tokenizer_is_that_of_the_bases(whole: Path, tmp_path: Path) -> None:
    mine = "{% for m in messages %}Q {{ m.content }} A{% endfor %}"
    place = shutil.copytree(whole, tmp_path / "adapter")
    with_tokenizer(place, template=mine, vocabulary=False)
    engine = load_adapted(place)
    expected = AutoTokenizer.from_pretrained(folder.llama())("Q hi A").input_ids
    assert list(engine.request("hi").prompt.ids) == expected
    (place / "chat_template.jinja").unlink()  # as older versions of transformers saved it
    named = [{"name": "default", "template": mine}]
    for stored in (mine, named):
        (place / "tokenizer_config.json").write_text(json.dumps({"chat_template": stored}))
        assert list(load_adapted(place).request("hi").prompt.ids) == expected


def test_the_template_follows_the_adapter(whole: Path, tmp_path: Path) -> None:
    mine = "{% for m in messages %}Q {{ m.content }} A{% endfor %}"
    place = with_tokenizer(Path(shutil.copytree(whole, tmp_path / "adapter")), template=mine)
    engine = load_adapted(place)
    own = engine.request("hi").prompt.ids
    engine.adapt(None)
    base = engine.request("hi").prompt.ids
    assert base == load(str(folder.llama()), loading=FLOAT32).request("hi").prompt.ids != own
    engine.adapt(str(place))
    assert engine.request("hi").prompt.ids == own
    engine.use_template(resolve(engine.model.tokenizer, "plain"))
    plain = engine.request("hi").prompt.ids
    engine.adapt(None)  # one that was chosen stays
    assert engine.request("hi").prompt.ids == plain


def test_added_tokens_without_an_embedding_are_the_adapters_fault(
    whole: Path, tmp_path: Path
) -> None:
    filler = [f"<{n}>" for n in range(30)]
    used = shutil.copytree(whole, tmp_path / "used")
    refuse(with_tokenizer(used, *filler, *ADDED, template=CHAT), "no embedding for them")
    unused = shutil.copytree(whole, tmp_path / "unused")
    assert load_adapted(with_tokenizer(unused, *filler)).answer("hi", max_new_tokens=2).ids


def test_a_tokenizer_of_another_model_beside_an_adapter_is_refused(
    whole: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(whole, tmp_path / "adapter")
    other = folder.tokenizer("pack my box with five dozen liquor jugs 0123456789 and more")
    other.save_pretrained(place)
    refuse(place, "another than the base's")
