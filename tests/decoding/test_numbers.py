"""Logits that are no numbers are an error that says why, and never a text."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from tiny import PROMPT, VOCABULARY

from nfox import drafters
from nfox.decoding.drafter import Drafter
from nfox.decoding.rules import RULES, make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.target import are_numbers
from nfox.drafters.none import Autoregressive
from nfox.drafters.spec import Speculative
from nfox.errors import ModelError
from nfox.models.transformers_target import TransformersTarget

ENTRY, DOWN, OUTPUT = "model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight", "lm_head"


def spoiled(
    weight: str, row: int, value: float, name: str = "llama", dtype: torch.dtype = torch.float64
) -> TransformersTarget:
    """Return a tiny target, one row of whose weight has one value."""
    target = tiny.recast(name, dtype)
    with torch.no_grad():
        target.model.get_parameter(weight)[row] = value
    return target


def test_a_row_of_logits_is_numbers_if_a_token_can_be_chosen() -> None:
    inf, nan = math.inf, math.nan
    assert are_numbers(torch.tensor([[1.0, -inf, 2.0], [-inf, -inf, -5.0]]))
    for row in ([1.0, nan], [nan, nan], [inf, 1.0], [-inf, -inf], [-inf, nan], [inf, nan]):
        for dtype in (torch.float32, torch.float64):
            for width in (2, 64, 1001):
                logits = torch.tensor([[0.0] * width, [row[0]] * (width - 1) + [row[1]]])
                assert not are_numbers(logits.to(dtype))


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "mamba"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_named_before_anything_is_said(
    family: str, value: float
) -> None:
    weights = tiny.target(family).model.state_dict()
    weight = next(
        key
        for key in weights
        if key.endswith((".in_proj.weight", "down_proj.weight", "c_proj.weight"))
    )
    with pytest.raises(ModelError) as error:
        spoiled(weight, 0, value, family, tiny.FAMILIES[family].dtype).new_cache()
    assert weight in error.value.message
    assert "copy the checkpoint" in error.value.hint
    assert error.value.code == 3


@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinite_row_of_the_output_is_no_ban_of_a_token(sign: int) -> None:
    target = spoiled("lm_head.weight", 7, sign * math.inf)
    with pytest.raises(ModelError, match="lm_head"):
        target.new_cache()


@pytest.mark.parametrize("accept", RULES)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(1.0, 5, 0.9, 0.1)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_token_that_spoils_the_state_ends_the_reply(
    accept: str, sampling: Sampling, value: float
) -> None:
    rare = 60
    target = spoiled(ENTRY, rare, value)
    rule = make_rule(accept, sampling)
    assert tiny.run(target, Autoregressive(), PROMPT, rule=rule, max_tokens=2)
    with pytest.raises(ModelError, match="embed_tokens"):
        tiny.run(target, Autoregressive(), [*PROMPT[:4], rare, *PROMPT[4:]], rule=rule)


def test_what_float16_cannot_hold_is_told_from_what_no_dtype_can() -> None:
    target = tiny.recast("llama", torch.bfloat16)
    with torch.no_grad():
        target.model.get_parameter(DOWN).mul_(1e5)
    target.new_cache()
    for layer in target.model.get_output_embeddings()._forward_pre_hooks.copy():
        target.model.get_output_embeddings()._forward_pre_hooks.pop(layer)
    narrow = TransformersTarget(target.model.to(torch.float16))
    with pytest.raises(ModelError) as error:
        narrow.new_cache()
    assert "float16" in error.value.message
    assert "bfloat16" in error.value.hint
    broken = spoiled(DOWN, 0, math.nan, dtype=torch.float16)
    with pytest.raises(ModelError) as error:
        broken.new_cache()
    assert "bfloat16" not in error.value.hint


@pytest.mark.parametrize("method", drafters.method_names())
def test_tokens_that_the_model_rules_out_are_no_error(method: str) -> None:
    """A bias of -inf keeps a model from tokens, and what it takes is found all the same."""
    target = tiny.target()
    plain = tiny.slow("llama", PROMPT, 24)
    banned = sorted(set(plain))[:3]
    bias = torch.zeros(VOCABULARY, dtype=torch.float64)
    bias[banned] = -math.inf
    output = target.model.get_output_embeddings()
    hook = output.register_forward_hook(lambda layer, args, logits: logits + bias)
    try:
        assert TransformersTarget(target.model).proposals == "trees"
        drafter: Drafter = tiny.make(method)
        expected = tiny.text(tiny.run(target, Autoregressive(), PROMPT))
        assert tiny.text(tiny.run(target, drafter, PROMPT)) == expected
        assert not set(expected) & set(banned)
    finally:
        hook.remove()


@pytest.mark.parametrize("accept", RULES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_model_that_overflows_costs_no_reply(accept: str, temperature: float) -> None:
    """What it cannot guess the target says itself."""
    rare = 60
    draft = spoiled(ENTRY, rare, math.nan)
    prompt = [*PROMPT[:4], rare, *PROMPT[4:]]
    rule = make_rule(accept, Sampling(temperature, seed=1))
    drafter = Speculative(draft, VOCABULARY, 3)
    steps = tiny.run(tiny.target(), drafter, prompt, rule=rule)
    assert len(tiny.text(steps)) == 24
    if not temperature:
        assert tiny.text(steps) == tiny.text(tiny.run(tiny.target(), Autoregressive(), prompt))
