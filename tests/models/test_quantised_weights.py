"""Weights of 8 and 4 bits: as near as their bits allow, and multiplied as what they stand for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from nfox.decoding.target import Vocabulary
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.native.packing import PackedWeights
from nfox.models.native.product import NativeProduct
from nfox.models.native.quantising import GROUP, WeightFormat, has_room_for_scales, quantise
from nfox.models.packed_layers import PackedLinear, pack_layers
from nfox.models.quantised_vocabulary import QuantisedVocabulary, matrix_to_quantise

try:
    native_library()
except NativeLibraryError as error:
    pytest.skip(f"no native library: {error}", allow_module_level=True)

QUANTISED: tuple[WeightFormat, ...] = ("int8", "int4")


def weights(outputs: int = 48, inputs: int = 128) -> Tensor:
    """Return weights whose groups differ in size and in where their middle lies."""
    torch.manual_seed(1)
    groups = torch.randn(outputs, inputs // GROUP, GROUP) + torch.randn(outputs, inputs // GROUP, 1)
    return (groups * torch.rand(outputs, inputs // GROUP, 1)).flatten(1).bfloat16()


def test_in_8_bits_no_weight_is_off_by_more_than_a_step() -> None:
    weight = weights()
    found = quantise(weight, "int8").dequantised()
    steps = weight.double().unflatten(1, (-1, GROUP)).abs().amax(-1) / 127
    off = (found - weight.double()).unflatten(1, (-1, GROUP)).abs().amax(-1)
    assert (off <= 0.54 * steps).all()  # half a step, and what rounding a scale costs the largest


def test_in_4_bits_the_squared_error_is_below_that_of_the_range_in_15_steps() -> None:
    weight = weights()
    groups = weight.double().unflatten(1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = (high - low) / 15
    plain = (((groups - low) / step).round() * step + low - groups).square().sum(-1)
    found = quantise(weight, "int4").dequantised().unflatten(1, (-1, GROUP))
    error = (found - groups).square().sum(-1)
    assert (error < 1.3 * plain).all()
    assert error.sum() < 0.9 * plain.sum()


@pytest.mark.parametrize("weight_format", QUANTISED)
def test_what_has_that_form_already_is_kept(weight_format: WeightFormat) -> None:
    """With scales of few bits nothing is rounded: also not of groups of one number, or of zeros."""
    torch.manual_seed(2)
    integers = torch.randint(-7, 9, (16, 2, GROUP))
    integers[..., 0], integers[..., 1] = -7, 8
    if weight_format == "int8":
        integers[..., 0] = 127
    weight = (integers * 0.125).flatten(1)
    weight[3], weight[4, :GROUP] = 0.0, -127 * 0.125
    found = quantise(weight.bfloat16(), weight_format).dequantised()
    assert torch.equal(found, weight.double())


@pytest.mark.parametrize("weight_format", QUANTISED)
def test_every_weight_is_multiplied_as_what_it_stands_for(weight_format: WeightFormat) -> None:
    weight = weights(outputs=33)
    product = NativeProduct(weight, None, weight_format)
    found = product(torch.eye(weight.shape[1]).bfloat16())
    expected = quantise(weight, weight_format).dequantised().T
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight_format", QUANTISED)
@pytest.mark.parametrize("size", (1e-38, 1e-20, 1.0, 3e30))
def test_inputs_of_any_size_keep_their_bits(size: float, weight_format: WeightFormat) -> None:
    """16 for weights of 8 bits, and 8 for weights of 4: none is off by more than half a step."""
    weight = weights()
    rows = (torch.randn(5, weight.shape[1]) * size).bfloat16()
    found = NativeProduct(weight, None, weight_format)(rows)
    matrix = quantise(weight, weight_format).dequantised()
    expected = rows.double() @ matrix.T
    off = 1e-4 * max(expected.abs().max().item(), 1e-25)
    if weight_format == "int4" and size > 1e-30:
        steps = rows.double().unflatten(1, (-1, GROUP)).abs().amax(-1) / 127
        off = off + steps / 2 @ matrix.unflatten(1, (-1, GROUP)).abs().sum(-1).T
    assert ((found - expected).abs() < off).all()


@pytest.mark.parametrize("num_rows", (1, 4, 5, 17, 64))
def test_groups_are_summed_in_integers_and_added_one_after_the_other(num_rows: int) -> None:
    """To the last bit, whatever the tiles: so a model's text is the same in every version."""
    weight = weights(outputs=77, inputs=160)
    rows = (torch.randn(num_rows, 160) * torch.randn(num_rows, 160).exp()).bfloat16()
    quantised, groups = quantise(weight, "int8"), rows.double().unflatten(1, (-1, GROUP))
    powers = torch.exp2(
        groups.abs().amax(-1).log2().floor() - 14
    )  # of the largest 15 bits are left
    integers = (groups / powers[..., None]).round()
    matrix = quantised.integers.double().unflatten(1, (-1, GROUP))
    expected = torch.zeros(num_rows, 77)
    for group in range(groups.shape[1]):
        sums = (integers[:, group] @ matrix[:, group].T).float()
        sums *= quantised.scales[:, group].float()
        expected += sums * powers[:, group, None].float()
    assert torch.equal(NativeProduct(weight, None, "int8")(rows), expected)


@pytest.mark.parametrize("num_rows", (1, 4, 5, 17, 64))
def test_weights_of_4_bits_are_multiplied_with_integers_of_8_but_in_uneven_groups(
    num_rows: int,
) -> None:
    """These have 16: where a number is larger than 5 times the root mean square."""
    weight = weights(outputs=77, inputs=160)
    rows = (torch.randn(num_rows, 160) * torch.randn(num_rows, 160).exp() * 20).clamp(-100, 100)
    rows[:, ::GROUP] = 127 * 2.0 ** torch.randint(0, 4, (num_rows, 160 // GROUP))  # exact scales
    rows = rows.bfloat16()
    groups = rows.double().unflatten(1, (-1, GROUP))
    scales = groups.amax(-1, keepdim=True) / 127
    is_uneven = groups.amax(-1) > 5 * groups.square().mean(-1).sqrt()
    assert num_rows < 17 or 0.1 < is_uneven.double().mean() < 0.9
    units = torch.where(is_uneven, 1 / 256, 1.0)[..., None] * scales
    inputs = ((groups / units).round() * units).flatten(1)
    expected = inputs @ quantise(weight, "int4").dequantised().T
    found = NativeProduct(weight, None, "int4")(rows).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("number", (torch.nan, torch.inf, -torch.inf))
def test_inputs_that_are_no_numbers_give_none_and_spoil_no_other_row(number: float) -> None:
    weight = weights()
    rows = torch.randn(3, weight.shape[1]).bfloat16()
    rows[1, 40] = number
    found = NativeProduct(weight, None, "int4")(rows)
    assert found.isnan().any(1).tolist() == [False, True, False]
    assert found[1].isnan().all()


@pytest.mark.parametrize("weight_format", ("bfloat16", *QUANTISED))
def test_joined_weights_are_the_parts_and_share_their_memory(weight_format: WeightFormat) -> None:
    weight = weights(64)
    parts = [PackedWeights.of(part, weight_format) for part in weight.split([32, 16, 16])]
    joined = PackedWeights.joined(parts)
    rows = torch.randn(7, weight.shape[1]).bfloat16()
    together = NativeProduct(joined, None)(rows)
    assert torch.equal(together, NativeProduct(weight, None, weight_format)(rows))
    split = list(joined.split([32, 16, 16]))
    assert torch.equal(torch.cat([NativeProduct(part, None)(rows) for part in split], 1), together)
    assert split[1].weights.untyped_storage().data_ptr() == joined.weights.data_ptr()


@pytest.mark.parametrize("scale", [None, 0.25])
def test_a_quantised_vocabulary_reads_what_its_4_bits_stand_for(scale: float | None) -> None:
    head = nn.Linear(128, 48, bias=True).bfloat16()
    head.weight.data.copy_(weights())

    def scaled(logits: Tensor) -> Tensor:
        return logits * scale if scale else logits

    class Embeddings(Vocabulary):
        device = torch.device("cpu")

        @override
        def embed(self, ids: Tensor) -> Tensor:
            return ids + 1.0

        @override
        def unembed(self, hidden: Tensor) -> Tensor:
            raise AssertionError("the guesses are read off the copy")

    vocabulary = QuantisedVocabulary(Embeddings(), head.weight, head.bias, scaled)
    states = torch.randn(2, 3, 128).bfloat16()
    expected = states.double() @ quantise(head.weight, "int4").dequantised().T
    expected = scaled(expected + head.bias.double())
    found = vocabulary.unembed(states)
    assert found.shape == (2, 3, 48)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    assert torch.equal(vocabulary.embed(torch.tensor([3])), torch.tensor([4.0]))
    few = QuantisedVocabulary(Embeddings(), head.weight, head.bias, scaled, [2, 40, 41])
    assert torch.equal(few.unembed(states), found[..., [2, 40, 41]])
    assert (few.token_ids([1, 0]), vocabulary.token_ids([1, 0])) == ([40, 2], [1, 0])


class Model:
    """What is asked of a model of transformers."""

    def __init__(self, head: nn.Module, embeddings: nn.Module | None = None) -> None:
        self.config = SimpleNamespace(tie_word_embeddings=embeddings is not None)
        self._head, self._embeddings = head, embeddings

    def get_output_embeddings(self) -> nn.Module:
        return self._head

    def get_input_embeddings(self) -> nn.Module | None:
        return self._embeddings


def test_only_a_large_plain_matrix_is_worth_a_quantised_copy() -> None:
    head = nn.Linear(256, 2**11, bias=False)
    assert matrix_to_quantise(Model(head.bfloat16())).shape == (2**11, 256)
    assert matrix_to_quantise(Model(head.half())) is None
    for other in (nn.Linear(264, 2**11), nn.Linear(256, 2**9)):
        assert matrix_to_quantise(Model(other.bfloat16())) is None
    tiny_weights = nn.Linear(256, 2**11)
    tiny_weights.weight.data *= 1e-3
    assert matrix_to_quantise(Model(tiny_weights.bfloat16())) is None


def test_a_packed_head_has_its_matrix_where_the_input_embeddings_are_it() -> None:
    embeddings = nn.Embedding(2**11, 256).bfloat16()
    linear = nn.Linear(256, 2**11, bias=False)
    packed = PackedLinear(linear, NativeProduct(embeddings.weight, None, "int8"))
    assert torch.equal(matrix_to_quantise(Model(packed, embeddings)), embeddings.weight)
    assert matrix_to_quantise(Model(packed)) is None
    with_bias = NativeProduct(embeddings.weight, torch.ones(2**11), "int8")
    assert matrix_to_quantise(Model(PackedLinear(linear, with_bias), embeddings)) is None


@pytest.mark.parametrize("weight_format", QUANTISED)
@pytest.mark.parametrize("size", (1e-3, 1.0, 1e4))
def test_weights_of_any_size_that_scales_have_room_for_keep_their_bits(
    size: float, weight_format: WeightFormat
) -> None:
    weight = (weights() * size).bfloat16()
    assert has_room_for_scales(weight)
    found, one = (quantise(part, weight_format).dequantised() for part in (weight, weights()))
    errors = [(a - b.double()).norm() / b.norm() for a, b in ((found, weight), (one, weights()))]
    assert errors[0] < 1.2 * errors[1]


def test_tiny_weights_stay_as_they_are() -> None:
    layer = nn.Linear(64, 32, bias=False).bfloat16()
    layer.weight.data *= 1e-4
    model = nn.Sequential(layer, layer)
    assert not has_room_for_scales(layer.weight)
    pack_layers(model)
    rows = torch.randn(3, 64).bfloat16()
    assert torch.allclose(model[0](rows), nn.functional.linear(rows, layer.weight), rtol=0.02)
