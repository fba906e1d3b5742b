"""Numbers that are none are found wherever they stand."""

from __future__ import annotations

import math

import pytest
import torch

from nfox.files.tensors import is_finite, name_some


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_one_number_that_is_none_is_found(dtype: torch.dtype, count: int) -> None:
    for wrong in (math.nan, math.inf, -math.inf):
        for place in {0, count // 3, count // 2, count - 1}:
            tensor = torch.randn(count).to(dtype)
            assert is_finite(tensor)
            tensor[place] = wrong
            assert not is_finite(tensor)
            assert not is_finite(torch.stack([torch.zeros_like(tensor), tensor]).T)


def test_what_has_no_order_or_no_numbers() -> None:
    assert is_finite(torch.ones(4).to(torch.float8_e5m2))
    assert not is_finite(torch.tensor([1.0, math.inf]).to(torch.float8_e5m2))
    for tensor in (torch.empty(0), torch.ones(3, dtype=torch.int8), torch.empty(2, device="meta")):
        assert is_finite(tensor)


def test_a_list_of_names_is_a_few_of_them() -> None:
    assert name_some(["b", "a"]) == "a, b"
    assert name_some(map(str, range(9))) == "0, 1, 2 and 6 more"
