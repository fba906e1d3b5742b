"""What can go wrong when a model is loaded is one line that says what to do."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import folder
import pytest
import tiny
import torch

from nfox import ModelOptions, NfoxError, drafters, load
from nfox.demo import TARGET
from nfox.drafters.spec import Speculative
from nfox.errors import ModelError, UsageError
from nfox.heads.checkpoint import base_of
from nfox.models import decoding_model, devices
from nfox.models.decoding_model import decoding_options, load_to_decode
from nfox.models.devices import choose_dtype
from nfox.models.loading import load_model
from nfox.models.memory import cache_bytes, check_memory, weight_bytes
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.options import LoadProgress

OFFLINE = ModelOptions(offline=True, dtype="float32")


def copy(tmp_path: Path, source: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


def refused(name: str, loading: ModelOptions = OFFLINE, **more: object) -> NfoxError:
    with pytest.raises(NfoxError) as error:
        load(name, loading=loading, **more)
    assert "\n" not in error.value.message + error.value.hint
    return error.value


def test_missing_and_wrong_folders(tmp_path: Path) -> None:
    assert "no such folder" in refused(str(tmp_path / "absent")).message
    assert "config.json" in refused(str(tmp_path)).message
    (tmp_path / "file").touch()
    assert (
        "found a file, expected a folder or a GGUF file" in refused(str(tmp_path / "file")).message
    )
    assert refused("nobody/nothing-here").code == 3


def test_broken_checkpoints(tmp_path: Path) -> None:
    model = copy(tmp_path, folder.llama())
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert refused(str(model)).code == 3
    weights.unlink()
    assert refused(str(model)).code == 3
    (model / "config.json").write_text("{")
    assert refused(str(model)).code == 3


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    model = copy(tmp_path, folder.llama())
    (model / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    torch.save({"x": Evil()}, model / "pytorch_model.bin")
    assert refused(str(model)).code == 3
    assert not (tmp_path / "ran").exists()


def test_without_a_tokenizer(tmp_path: Path) -> None:
    model = copy(tmp_path, folder.llama())
    for file in model.glob("*token*"):
        file.unlink()
    (model / "chat_template.jinja").unlink(missing_ok=True)
    assert "tokenizer" in refused(str(model)).message
    # a draft model needs none: it reads the target's ids
    load(str(folder.llama()), draft_model=str(model), loading=OFFLINE)


def test_drafters_of_one_engine_share_the_weights_of_a_draft_model_while_one_has_them() -> None:
    with load(str(folder.equipped()), loading=OFFLINE, method="none") as engine:
        one, other = engine.make("spec"), engine.make("spec")
        assert isinstance(one, Speculative) and isinstance(other, Speculative)
        assert one.draft is other.draft
        assert one.cache is not other.cache
        weights = weakref.ref(one.draft.model)
        del one, other
        gc.collect()
        assert weights() is None


def test_a_draft_model_with_another_tokenizer_is_refused_by_name() -> None:
    other = folder.llama(words="pack my box with five dozen liquor jugs 0123456789 and more")
    error = refused(str(folder.llama()), draft_model=str(other))
    assert error.code == 3
    assert str(other) in error.message
    assert "tokenizer" in error.message


def test_unknown_methods_and_options() -> None:
    name = str(folder.llama())
    assert isinstance(refused(name, method="magic"), UsageError)
    needy = next(n for n in drafters.method_names() if drafters.method_class(n).needs)
    assert drafters.method_class(needy).needs in refused(name, method=needy).message
    free = next(n for n in drafters.method_names() if drafters.method_class(n).rank == 1)
    assert "no option" in refused(name, method=free, options={"colour": "red"}).message
    assert "gamma" in refused(name, method=free, options={"gamma": "many"}).message
    assert isinstance(refused(name, method=free, options={"gamma": "-1"}), UsageError)


def test_the_best_method_whose_weights_are_there(tmp_path: Path) -> None:
    engine = load(str(folder.llama()), loading=OFFLINE)
    assert drafters.method_class(engine.method).chooses
    assert engine.why.endswith("no draft model and no heads were found for this model")
    model = copy(tmp_path, folder.llama())
    shutil.copytree(folder.llama(layers=1, seed=1), model / "nfox" / "spec")
    engine = load(str(model), loading=OFFLINE)
    assert drafters.method_class(engine.method).chooses
    assert f"spec ({model / 'nfox' / 'spec'})" in engine.why
    engine = load(str(model), loading=OFFLINE, options={"branches": "2"})
    assert engine.method == "spec"
    assert str(model) in engine.why


def test_weights_that_cannot_be_used_are_left_out_unless_they_were_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = copy(tmp_path, folder.equipped())
    broken = model / "nfox" / "medusa"
    for file in broken.glob("*.safetensors"):
        file.write_bytes(b"")
    engine = load(str(model), loading=OFFLINE)
    [line] = caplog.messages
    assert line.startswith("medusa is left out: ")
    assert "medusa" not in engine.drafter.others  # type: ignore[attr-defined]
    error = refused(str(model), heads=str(broken))
    assert str(broken) in error.message
    assert refused(str(model), options={"methods": "medusa"}).message == error.message
    unknown = refused(str(model), options={"methods": "lookup+magic"})
    assert (unknown.code, "'magic'" in unknown.message) == (2, True)


def test_the_embedded_model_speculates() -> None:
    engine = load()
    ready = ("spec", "ctc", "chimera", "medusa", "lookup", "jacobi")
    assert tuple(engine.drafter.others) == ready  # type: ignore[attr-defined]
    assert engine.drafter.describe() == ""  # before any step


def test_a_device_that_is_not_there_is_one_line() -> None:
    absent = ["fridge", "cuda:7"] if not torch.cuda.is_available() else ["fridge"]
    for device in absent:
        error = refused(str(folder.llama()), ModelOptions(device=device))
        assert error.code == 2
        assert device in error.message


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="it is installed here")
def test_an_attention_that_is_not_installed_is_not_the_files_fault() -> None:
    with pytest.raises(ModelError, match="FlashAttention") as caught:
        load_model(str(folder.llama()), ModelOptions(attn="flash_attention_2"))
    assert "another --attn" in caught.value.hint


def test_heads_that_no_method_reads(tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    heads.mkdir()
    (heads / "config.json").write_text(
        json.dumps({"medusa_num_heads": 3, "base_model_name_or_path": str(folder.llama())})
    )
    assert base_of(str(heads)) == str(folder.llama())
    assert str(heads) in refused(str(heads)).message
    assert base_of(str(folder.llama())) is None
    # a draft model beside the base does not make the heads known
    model = copy(tmp_path, folder.llama())
    shutil.copytree(folder.llama(layers=1, seed=1), model / "nfox" / "spec")
    assert "heads" in refused(str(model), heads=str(heads)).message


@pytest.mark.slow
@pytest.mark.parametrize("quantisation", ["4bit", "8bit"])
def test_quantised_models_answer(quantisation: str) -> None:
    options = ModelOptions(quantisation=quantisation, device="cpu")
    engine = load(str(folder.llama()), loading=options)
    assert engine.answer("hi").text


def test_quantisation_needs_its_library_and_an_unquantised_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy(tmp_path, folder.llama())
    four = ModelOptions(quantisation="4bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "bitsandbytes" in refused(str(model), four).message
    monkeypatch.undo()
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (model / "config.json").write_text(json.dumps(config))
    assert "already quantised" in refused(str(model), four).message


def test_dtypes() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("float16", cpu) == torch.float16
    assert choose_dtype("auto", torch.device("cuda")) == "auto"
    for name in ("float32", "bfloat16"):
        options = ModelOptions(dtype=name)
        assert load_model(str(folder.llama()), options).target.dtype == getattr(torch, name)
    with pytest.raises(UsageError):
        ModelOptions(dtype="float8")


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"avx512_bf16"})])
@pytest.mark.parametrize("compiles", [True, False])
def test_the_dtype_to_decode_in_is_what_forwards_are_fast_in(
    flags: frozenset[str], compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def library() -> None:
        if not compiles:
            raise NativeLibraryError("no C++ compiler")

    monkeypatch.setattr(devices, "processor_flags", lambda: flags)
    monkeypatch.setattr(decoding_model, "native_library", library)
    name, options = str(TARGET), ModelOptions(device="cpu")
    assert choose_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if flags else torch.float32)
    found = decoding_options(name, options)
    assert found.dtype == ("bfloat16" if compiles and not flags else "auto")
    for change in ({"compile": "off"}, {"quantisation": "4bit"}, {"dtype": "float32"}):
        changed = replace(options, **change)
        assert decoding_options(name, changed) == changed


def test_what_the_native_library_does_not_run_is_in_float32_without_bfloat16_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its weights are those of the files, not rounded on the way."""
    try:
        native_library()
    except NativeLibraryError as error:
        pytest.skip(f"no native library: {error}")
    monkeypatch.setattr(devices, "processor_flags", frozenset)
    with load(str(TARGET)) as engine:
        assert engine.model.target.is_native and engine.model.target.dtype == torch.bfloat16
    with load(str(folder.t5()), loading=ModelOptions(device="cpu")) as engine:
        model = engine.model.target.model
        assert model.dtype == torch.float32
        stored = load_model(str(folder.t5()), OFFLINE).target.model.state_dict()
        assert all(torch.equal(weight, stored[name]) for name, weight in model.state_dict().items())
    asked = ModelOptions(dtype="bfloat16", device="cpu")
    with load(str(folder.t5()), loading=asked) as engine:
        assert engine.model.target.dtype == torch.bfloat16


def test_memory_is_asked_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(folder.llama())
    size = (folder.llama() / "model.safetensors").stat().st_size
    assert weight_bytes(name, ModelOptions(dtype="float32")) == size
    assert weight_bytes(name, ModelOptions(dtype="bfloat16")) == size // 2
    assert weight_bytes(name, ModelOptions(quantisation="4bit")) < size // 4
    assert weight_bytes("some/hub-id", ModelOptions()) == 0
    config = json.loads((folder.llama() / "config.json").read_text())
    # 2 layers x (keys + values) x 2 heads x 16 numbers, and 64 of the hidden state
    assert cache_bytes(config, 10, 2) == 10 * 2 * (2 * 2 * 2 * 16 + 64)
    monkeypatch.setattr("nfox.models.memory.free_bytes", lambda options: size // 2)
    with pytest.raises(NfoxError, match="free") as error:
        check_memory([(name, ModelOptions(dtype="float32"))], 100)
    assert error.value.code == 1


def test_a_device_map_and_a_context_limit() -> None:
    options = ModelOptions(dtype="float32", device_map="auto", max_memory={"cpu": "1GiB"})
    engine = load(str(folder.llama()), loading=options, max_context=64)
    assert engine.max_context == 64
    with pytest.raises(NfoxError) as error:
        engine.answer("x" * 200)
    assert error.value.code == 4
    assert isinstance(error.value, NfoxError)
    assert not isinstance(error.value, ModelError)


def test_what_only_drafts_has_8_bits_where_the_native_library_runs_it() -> None:
    try:
        native_library()
    except NativeLibraryError as error:
        pytest.skip(f"no native library: {error}")
    name, options = str(TARGET), ModelOptions(device="cpu", offline=True)
    exact = load_to_decode(name, options, LoadProgress()).target
    rounded = load_to_decode(name, options.for_draft(), LoadProgress()).target
    assert (exact.numbers, rounded.numbers) == ("bfloat16", "bfloat16, weights in int8")
    chosen = replace(options, dtype="bfloat16").for_draft()
    assert load_to_decode(name, chosen, LoadProgress()).target.numbers == "bfloat16"


def test_a_draft_model_of_which_nothing_can_be_rounded_is_loaded_as_it_is(tmp_path: Path) -> None:
    """Its layers have numbers of inputs that no groups make up, or are of another kind."""
    sizes = {"hidden_size": 48, "intermediate_size": 80, "head_dim": 16}
    sizes |= {"num_attention_heads": 3, "num_key_value_heads": 3}
    for name, model, is_native in (
        ("odd", tiny.target("llama", **sizes).model, True),
        ("other", tiny.target("gpt2").model, False),
    ):
        model.save_pretrained(tmp_path / name)
        options = ModelOptions(device="cpu", offline=True).for_draft()
        target = load_to_decode(str(tmp_path / name), options, LoadProgress()).target
        assert "weights" not in target.numbers and target.is_native == is_native
