"""An adapter makes another target: by name, at load and in mid-conversation."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import chat_app
import folder
import pytest
import torch
from chat_app import do
from peft import LoraConfig, get_peft_model
from torch import Tensor

from nfox import Engine, Message, ModelOptions, Settings, load
from nfox.cli.chat.commands import registry as commands
from nfox.cli.display.header import adapter_hint, print_header
from nfox.cli.display.theme import make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.models import adapters
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel, Quantisation

FLOAT32 = ModelOptions(offline=True, dtype="float32")
ASKED = [Message("user", "the quick brown fox")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with two adapters beside it."""
    base = shutil.copytree(folder.llama(), tmp_path_factory.mktemp("models") / "model")
    for seed, name in enumerate(("cllm", "other")):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        adapted = get_peft_model(load_model(str(base), FLOAT32).target.model, config)
        adapted.save_pretrained(base / "nfox" / "adapters" / name)
    return str(base)


def logits(loaded: LoadedModel) -> Tensor:
    with torch.no_grad():
        logits: Tensor = loaded.target.model(torch.tensor([[5, 6, 7]])).logits
    return logits


def load_engine(
    model: str,
    adapter: str | None = None,
    method: str = "jacobi",
    bits: Quantisation | None = None,
) -> Engine:
    loading = replace(FLOAT32, adapter=adapter, quantisation=bits)
    return load(model, method=method, loading=loading, settings=Settings(max_new_tokens=24))


def answer(engine: Engine) -> list[int]:
    return engine.answer(ASKED).ids


def test_it_is_merged(model: str) -> None:
    from peft import PeftModel

    location = str(Path(model, "nfox", "adapters", "other"))
    unmerged = PeftModel.from_pretrained(load_model(model, FLOAT32).target.model, location)
    expected = unmerged(torch.tensor([[5, 6, 7]])).logits
    merged = load_model(model, replace(FLOAT32, adapter=location))
    assert merged.adapter == location
    assert not any("lora" in name for name, _ in merged.target.model.named_parameters())
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    assert (logits(merged) - logits(load_model(model, FLOAT32))).abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_on_a_quantised_base_nothing_of_it_is_rounded_away(
    bits: Quantisation, model: str, tmp_path: Path
) -> None:
    """Merged, a small difference would be quantised with the weights: most of it would be lost."""
    four = replace(FLOAT32, quantisation=bits)
    base = load_model(model, four)
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(base.target.model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight *= 0.2
    adapted.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():  # 4 bit weights are computed with otherwise in training
        expected = adapted.eval()(ids).logits
    loaded = load_model(model, replace(four, adapter=str(tmp_path)))
    apart = (logits(loaded) - expected).abs().max()
    moved = (expected - logits(load_model(model, four))).abs().max()
    # 8 bit is not exact: outliers are looked for in all that is read at once.
    assert apart < (1e-3 if bits == "4bit" else 0.1 * moved) < 1 < moved
    assert bits == "8bit" or answer(load_engine(model, str(tmp_path), "jacobi", bits)) == answer(
        load_engine(model, str(tmp_path), "none", bits)
    )


def test_its_name_is_enough(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapters.available(model) == ["cllm", "other"]
    assert adapters.available(str(tmp_path)) == adapters.available("someone/model") == []
    beside = adapters.location(model, "other")
    assert beside == str(Path(model, "nfox", "adapters", "other"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()  # what lies beside the model comes first
    assert adapters.location(model, "other") == beside
    assert adapters.location(model, beside) == beside
    assert adapters.location(model, "someone/lora") == "someone/lora"


@pytest.mark.parametrize("wrong", ["clm", "./someone/lora", "a/b/c", "/nowhere/at/all", "~/none"])
def test_what_is_not_there_is_told_with_what_is(model: str, wrong: str) -> None:
    with pytest.raises(ModelError, match="no such folder") as error:
        load(model, loading=replace(FLOAT32, adapter=wrong))
    assert "cllm, other" in error.value.hint


def test_a_folder_without_an_adapter_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        load(model, loading=replace(FLOAT32, adapter=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", "jacobi", "lookup"])
def test_changed_in_mid_conversation_it_is_as_if_loaded_with_it(model: str, method: str) -> None:
    texts = {name: answer(load_engine(model, name, "none")) for name in (None, "cllm", "other")}
    assert len(set(map(tuple, texts.values()))) == 3
    changing = load_engine(model, None, method)
    for name in (None, "cllm", "other", None, "cllm"):
        changing.adapt(name)
        assert changing.cache.tokens == []  # what the other target has read is worth nothing
        assert answer(changing) == texts[name]
        assert (changing.model.adapter, changing.method) == (name, method)


def test_what_fails_changes_nothing(model: str, tmp_path: Path) -> None:
    engine = load_engine(model, "cllm")
    expected, before = answer(engine), vars(engine).copy()
    wrong = tmp_path / "wrong"
    shutil.copytree(adapters.location(model, "other"), wrong)
    (wrong / "adapter_model.safetensors").write_bytes(b"nothing")
    for name in ("absent", str(wrong)):
        with pytest.raises(ModelError):
            engine.adapt(name)
        assert vars(engine) == before
    assert answer(engine) == expected
    alone = Engine(engine.model, engine.template)
    with pytest.raises(UsageError, match="not loaded by name"):
        alone.adapt("other")


def test_the_options_of_the_method_stay(model: str) -> None:
    engine = load_engine(model)
    engine.use("jacobi", {"window": "3", "pool": "0"})
    engine.adapt("cllm")
    assert engine.drafter.describe() == "window 3"


def test_in_the_chat(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder begins as an adapter does
    app = chat_app.make(load_engine(model), width=200)
    assert "* none    cllm    other" in do(app, "/adapter")
    assert "--adapter cllm" in do(app, "/method jacobi")
    assert list(commands.complete(app, "/adapter c")) == ["cllm"]
    do(app, "the quick brown fox")
    assert "* cllm" in do(app, "/adapter cllm")
    with pytest.raises(UsageError, match="another adapter"):
        do(app, "/compare")
    assert len(app.conversation.turns) == 2, "the conversation stays"
    do(app, "/regen")
    assert "identical output: yes" in do(app, "/compare")
    assert app.conversation.last.reply.ids == answer(load_engine(model, "cllm"))
    with pytest.raises(ModelError):
        do(app, "/adapter absent")
    assert "* none" in do(app, "/adapter none")
    assert app.engine.model.adapter is None


def test_jacobi_says_that_a_cllm_is_there(model: str) -> None:
    hint = "--adapter cllm"
    plain, adapted = load_engine(model), load_engine(model, "cllm")
    assert hint in adapter_hint(plain)
    assert (
        adapter_hint(adapted)
        == adapter_hint(load_engine(model, None, "none"))
        == adapter_hint(load_engine(str(folder.llama())))
        == ""
    )
    for engine in (plain, adapted):
        file = io.StringIO()
        print_header(engine, make_screen(DisplayArguments(), file), 0.0, verbose=False)
        assert (hint in file.getvalue()) is (engine is plain)
        assert ("with cllm" in file.getvalue()) is (engine is adapted)


def test_memory_is_asked_before_another_adapter_is_loaded(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(model)
    monkeypatch.setattr("nfox.models.memory.free_bytes", lambda options: 1000)
    with pytest.raises(NfoxError, match="GiB are free"):
        engine.adapt("cllm")
    assert engine.model.adapter is None
