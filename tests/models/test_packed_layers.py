"""Products, sums and the likeliest tokens by the native library are those of torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nfox.models.fused_products import PackedProduct
from nfox.models.native import product, top
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.packed_layers import PackedLinear, add_silu, pack_layers


def has_native_library() -> bool:
    try:
        native_library()
    except NativeLibraryError:
        return False
    return True


needs_library = pytest.mark.skipif(not has_native_library(), reason="no native library")


def linear(outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(outputs)
    return nn.Linear(32, outputs, bias=bias).bfloat16().requires_grad_(False)


def packed(layer: nn.Module) -> nn.Module:
    module = nn.Sequential(layer)
    pack_layers(module)
    return module[0]


def without_library() -> None:
    raise NativeLibraryError("no C++ compiler")


@pytest.mark.parametrize("with_library", [pytest.param(True, marks=needs_library), False])
@pytest.mark.parametrize("outputs", [1, 32, 77])
def test_a_packed_layer_is_the_layer(
    outputs: int, with_library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_library:
        monkeypatch.setattr(product, "native_library", without_library)
    for bias in (True, False):
        layer = linear(outputs, bias=bias)
        states = torch.randn(2, 3, 32).bfloat16()
        residual = torch.randn(2, 3, outputs).bfloat16()
        made = packed(layer)
        assert isinstance(made, PackedLinear) == (with_library or PackedProduct.is_available())
        wide = nn.Linear(32, outputs, bias=bias).double()
        wide.load_state_dict({name: w.double() for name, w in layer.state_dict().items()})
        exact = wide(states.double())
        for found, expected in (
            (made(states), exact),
            (add_silu(residual, made, states), residual + functional.silu(exact)),
        ):
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=2e-2)


@needs_library
@pytest.mark.parametrize("size", [3, 64, 150, 4097])
@pytest.mark.parametrize("count", [1, 5])
def test_the_likeliest_tokens_are_those_of_softmax(count: int, size: int) -> None:
    torch.manual_seed(size)
    logits = 4 * torch.randn(count, size)
    logits[0, :2] = -torch.inf
    width = min(10, size)
    tokens, probabilities = top.top_tokens(logits, width)
    expected = logits.softmax(-1).topk(width)
    torch.testing.assert_close(torch.tensor(probabilities), expected.values)
    assert all(len(set(row)) == width for row in tokens)
    found = logits.softmax(-1).gather(1, torch.tensor(tokens))
    torch.testing.assert_close(found, expected.values)


def test_equal_tokens_are_taken_in_their_order_and_wide_logits_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.zeros(1, 200)
    logits[0, [70, 150]] = 1.0
    if has_native_library():
        assert top.top_tokens(logits, 5)[0] == [[70, 150, 0, 1, 2]]
    for others in (logits.double(), logits.bfloat16()):
        tokens, probabilities = top.top_tokens(others, 2)
        assert sorted(tokens[0]) == [70, 150]
        assert probabilities[0] == pytest.approx([2.718 / (198 + 2 * 2.718)] * 2, rel=1e-2)
    top._library.cache_clear()
    monkeypatch.setattr(top, "native_library", without_library)
    assert sorted(top.top_tokens(logits, 2)[0][0]) == [70, 150]
    top._library.cache_clear()


@pytest.mark.skipif(
    not (has_native_library() or PackedProduct.is_available()), reason="nothing packs them"
)
def test_linear_layers_are_packed_in_bfloat16_and_left_alone_in_others() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.SiLU(), nn.Linear(16, 4, bias=False)))
    states = torch.randn(2, 3, 8)
    with torch.inference_mode():
        expected = module(states)
        pack_layers(module)
        assert torch.equal(module(states), expected)
        pack_layers(module.bfloat16())
        assert not list(module.parameters())
        packed = module(states.bfloat16())
    assert packed.shape == expected.shape
    assert (module[0].weight.dtype, module[0].weight.device.type) == (torch.bfloat16, "cpu")
    torch.testing.assert_close(packed.float(), expected, rtol=2e-2, atol=2e-2)


@needs_library
def test_a_packed_norm_is_the_norm() -> None:
    torch.manual_seed(0)
    norm = nn.RMSNorm(48, eps=1e-6).requires_grad_(False)
    norm.weight.copy_(torch.randn(48))
    states = 3 * torch.randn(2, 3, 48).bfloat16()
    expected = norm.double()(states.double())
    made = packed(norm.bfloat16())
    assert not isinstance(made, nn.RMSNorm)
    torch.testing.assert_close(made(states).double(), expected, rtol=2e-2, atol=1e-3)
    odd = nn.RMSNorm(5).bfloat16()
    assert packed(odd) is odd
