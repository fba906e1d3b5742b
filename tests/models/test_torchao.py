"""What torchao quantises, where it is installed, on what the CPU allows of it."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import tiny
import torch
from test_fused_decoder import FAMILIES, walked

from nfox.errors import ModelError
from nfox.models.logits_error import check_weights
from nfox.models.torchao_arguments import torchao_arguments
from nfox.models.transformers_target import TransformersTarget


def test_without_torchao_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs torchao") as caught:
        torchao_arguments("int4")
    assert "--load-in-4bit" in caught.value.hint


def test_a_model_of_its_weights_is_checked_and_runs_by_transformers() -> None:
    quantisation = pytest.importorskip("torchao.quantization")
    kind = torchao_arguments("int8")["quantization_config"].quant_type
    exact = tiny.target_of(FAMILIES["llama"], hidden_size=64, intermediate_size=96)
    model = copy.deepcopy(exact.model).bfloat16()
    model.get_output_embeddings()._forward_pre_hooks.clear()
    quantisation.quantize_(model.model, kind)
    check_weights("some", model, None)
    target = TransformersTarget(model)
    target.fuse()
    assert target.forward_description == "transformers"
    expected, logits = walked(exact)[0], walked(target)[0]
    assert (logits - expected).std() < 0.2 * expected.std()
    assert torch.isfinite(logits).all()
