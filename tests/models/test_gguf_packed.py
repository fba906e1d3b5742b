"""Weights of GGUF files that are multiplied as they are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_file
import pytest
import torch
from gguf_file import Types
from test_gguf_models import made

from nfox.decoding.tree import TokenTree
from nfox.errors import ModelError
from nfox.models.decoding_model import decoding_options, load_to_decode
from nfox.models.gguf_files import read_model_header
from nfox.models.gguf_packed import packed_formats, read_packed
from nfox.models.loading import load_model
from nfox.models.memory import copy_bytes, weight_bytes
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.native.quantising import WeightFormat
from nfox.models.options import LoadProgress, ModelOptions
from nfox.models.transformers_target import TransformersTarget

try:
    native_library()
except NativeLibraryError as error:
    pytest.skip(f"no native library: {error}", allow_module_level=True)

AUTO = ModelOptions(device="cpu", offline=True)
FLOAT32 = replace(AUTO, dtype="float32")
EXACT = (
    *((kind, "int4") for kind in (Types.Q4_0, Types.Q4_1)),
    *((kind, "int8") for kind in (Types.Q4_0, Types.Q5_0, Types.Q8_0, Types.IQ4_NL)),
)
QUERIES, DOWN = "blk.0.attn_q.weight", "blk.1.ffn_down.weight"


def file_of(folder: Path, kind: Types, name: str = "llama", **changes: Any) -> Path:
    """Return a file of a tiny model whose matrices have a type."""
    path, others = folder / "m.gguf", changes.pop("others", None)
    gguf_file.write(path, made(name, **changes), type_=kind, others=others)
    return path


def loaded(path: Path, options: ModelOptions = AUTO) -> TransformersTarget:
    return load_to_decode(str(path), options, LoadProgress()).target


@pytest.mark.parametrize(("kind", "form"), EXACT, ids=str)
def test_a_matrix_is_what_the_package_unpacks(
    kind: Types, form: WeightFormat, tmp_path: Path
) -> None:
    """Also where the rows of queries are in another order."""
    path = file_of(tmp_path, kind)
    header, model = read_model_header(path), load_model(str(path), FLOAT32).target.model
    layers = model.model.layers
    for name, layer in ((QUERIES, layers[0].self_attn.q_proj), (DOWN, layers[1].mlp.down_proj)):
        found = read_packed(header, name, form, model.config)
        assert torch.equal(found.dequantised().float(), layer.weight) and found.format == form
        assert packed_formats(header)[name] in (form, "int4")


SIZES = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 16}


def test_scales_in_two_parts_are_rounded_less_than_bfloat16_would(tmp_path: Path) -> None:
    path = file_of(tmp_path, Types.Q4_K, **SIZES)
    model = load_model(str(path), FLOAT32).target.model
    found = read_packed(read_model_header(path), QUERIES, "int4", model.config)
    exact = model.model.layers[0].self_attn.q_proj.weight
    off = (found.dequantised() - exact).abs().unflatten(1, (-1, 32)).amax(-1)
    largest = found.scales.double().abs() * 15 + found.least.double().abs()
    assert (off <= largest * 2**-11).all() and off.any()


@pytest.mark.parametrize("kind", (Types.Q6_K, Types.Q5_K, Types.Q5_1), ids=lambda kind: kind.name)
def test_other_types_are_rounded_to_8_bits(kind: Types, tmp_path: Path) -> None:
    path = file_of(tmp_path, kind, **SIZES)
    model = load_model(str(path), FLOAT32).target.model
    header = read_model_header(path)
    assert packed_formats(header)[QUERIES] == "int8"
    found = read_packed(header, QUERIES, "int8", model.config)
    exact = model.model.layers[0].self_attn.q_proj.weight.double()
    off, groups = (one.unflatten(1, (-1, 32)) for one in (found.dequantised() - exact, exact))
    assert (off.abs().amax(-1) <= 0.54 * groups.abs().amax(-1) / 127).all()


@pytest.mark.parametrize("kind", (Types.Q4_1, Types.Q8_0), ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ("llama", "llama, tied", "qwen2", "phi3", "gemma3"))
def test_a_model_computes_with_the_weights_of_its_file(
    name: str, kind: Types, tmp_path: Path
) -> None:
    """In 8 bits it is no further from float32 than the same weights unpacked to bfloat16; in 4 bits
    up to three times as far, as most inputs are rounded to 8 bits.
    """
    path = file_of(tmp_path, kind, name, initializer_range=0.1)
    target, rounded = loaded(path), loaded(path, replace(AUTO, dtype="bfloat16"))
    exact = load_model(str(path), FLOAT32).target
    assert target.is_native and target.stored_in == path
    assert target.numbers.startswith("bfloat16, weights in int")
    assert target.num_parameters == exact.num_parameters
    tokens = list(range(3, 40))
    found, others, expected = (scored(one, tokens) for one in (target, rounded, exact))
    most = 1.2 if kind == Types.Q8_0 else 3.0
    assert (found - expected).abs().mean() < most * (others - expected).abs().mean()


def scored(target: TransformersTarget, tokens: list[int]) -> torch.Tensor:
    """Return the logits after each of some tokens behind others."""
    cache = target.new_cache()
    target.read(tokens[:9], cache)
    return target.score(TokenTree.chain(tokens[9], tokens[10:]), cache)[0].float()


def test_layers_that_are_joined_have_one_format(tmp_path: Path) -> None:
    """In files whose values have more bits than their queries, or are not quantised."""
    others = {"v_proj": Types.Q8_0, "down_proj": Types.Q8_0, "up_proj": Types.F16}
    path = file_of(tmp_path, Types.Q4_0, others=others, initializer_range=0.1)
    packed = packed_formats(read_model_header(path))
    kinds = {name.split(".")[-2]: form for name, form in packed.items()}
    joined = dict.fromkeys(("attn_q", "attn_k", "attn_v"), "int8")
    assert kinds == joined | {"attn_output": "int4", "ffn_down": "int8", "output": "int4"}
    target, exact = loaded(path), load_model(str(path), FLOAT32).target
    assert target.is_native
    found, expected = (scored(one, list(range(40))) for one in (target, exact))
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"quantisation": "int8"},
        {"compile": "off"},
        {"adapter": "another"},
        {"device_map": "auto"},
    ],
    ids=str,
)
def test_weights_are_unpacked_where_options_say_otherwise(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = str(file_of(tmp_path, Types.Q8_0))
    assert decoding_options(path, AUTO).keeps_packed
    assert decoding_options("org/name:m.Q8_0.gguf", AUTO).keeps_packed
    assert not decoding_options(path, replace(AUTO, **changes)).keeps_packed
    assert not decoding_options(str(tmp_path / "other"), AUTO).keeps_packed


def test_a_model_that_the_library_does_not_run_is_loaded_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path, Types.Q8_0)
    monkeypatch.setattr(TransformersTarget, "fuse", lambda self, *, native=True: None)
    target = loaded(path)
    assert target.stored_in is None and "weights in" not in target.numbers


@pytest.mark.parametrize("name", ("llama", "llama, tied"))
def test_the_memory_that_is_foretold_is_what_is_taken(name: str, tmp_path: Path) -> None:
    others = {"down_proj": Types.F16}
    path = file_of(tmp_path, Types.Q8_0, name, others=others)
    options = decoding_options(str(path), AUTO)
    target = loaded(path)
    taken = sum(weight.nbytes for weight in target.model.parameters())
    for layer in target.model.modules():
        if product := getattr(layer, "product", None):
            taken += product.packed.weights.nbytes + product.packed.scales.nbytes
    assert weight_bytes(str(path), options) == pytest.approx(taken, rel=0.02)
    layers = target.model.model.layers
    assert copy_bytes(str(path), options) == sum(one.mlp.down_proj.weight.nbytes for one in layers)


def test_a_file_that_is_decoded_as_it_is_is_the_file_that_llama_cpp_reads(tmp_path: Path) -> None:
    from nfox.eval.peers.llama_cpp import written

    path = file_of(tmp_path, Types.Q4_1)
    model = load_to_decode(str(path), AUTO, LoadProgress())
    (tmp_path / "other").mkdir()
    file = Path(written(model, tmp_path / "other" / "model.gguf"))
    assert file.read_bytes() == path.read_bytes() and file.parent.name == "other"


@pytest.mark.parametrize("kind", (Types.F32, Types.F16, Types.BF16), ids=lambda kind: kind.name)
def test_a_file_of_single_numbers_is_a_model_like_any_other(kind: Types, tmp_path: Path) -> None:
    path = file_of(tmp_path, kind)
    target = loaded(path)
    assert target.is_native and target.stored_in is None and target.numbers == "bfloat16"
    assert not decoding_options(str(path), AUTO).keeps_packed
    assert loaded(path, AUTO.for_draft()).numbers == "bfloat16, weights in int8"


@pytest.mark.parametrize("number", (float("nan"), float("inf")))
@pytest.mark.parametrize("kind", (Types.Q8_0, Types.Q4_K, Types.Q6_K), ids=str)
def test_scales_that_are_no_numbers_are_refused_by_name(
    kind: Types, number: float, tmp_path: Path
) -> None:
    path = file_of(tmp_path, kind, **SIZES)
    place = read_model_header(path).tensors["output.weight"].start
    scale = {Types.Q8_0: 0, Types.Q4_K: 0, Types.Q6_K: 208}[kind]
    data = bytearray(path.read_bytes())
    data[place + scale : place + scale + 2] = torch.tensor(number).half().numpy().tobytes()
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"its weights are not numbers: lm_head.weight"):
        loaded(path)
