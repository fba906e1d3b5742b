"""Encoder-decoder models: the encoder runs once per source, the decoder is drafted for as usual."""

from __future__ import annotations

import pytest
import tiny
from tiny import PROMPT

from nfox.decoding.generate import Prompt
from nfox.drafters.spec import Speculative

OTHER = (8, 1, 30, 2)
START = (0,)
METHODS = tiny.methods("t5")


@pytest.mark.parametrize("source", [PROMPT, OTHER])
def test_reference_is_the_text_of_transformers(source: tuple[int, ...]) -> None:
    assert tiny.slow("t5", START, 24, source) == tiny.theirs("t5", START, 24, source)


@pytest.mark.parametrize("method", METHODS)
def test_greedy_text_is_the_targets_for_one_source_after_another(method: str) -> None:
    target, drafter = tiny.target("t5"), tiny.make(method, "t5")
    cache = target.new_cache()
    for source, prompt in [(PROMPT, START), (PROMPT, (0, 55, 3)), (OTHER, START), (PROMPT, START)]:
        steps = tiny.run(target, drafter, prompt, cache=cache, source=source)
        assert tiny.text(steps) == tiny.slow("t5", prompt, 24, source)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_runs_once_per_source(method: str) -> None:
    target, drafter = tiny.target("t5"), tiny.make(method, "t5")
    cache, calls = target.new_cache(), []
    hook = target.model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    try:
        for source, expected in [(PROMPT, 1), (PROMPT, 1), (OTHER, 2), (PROMPT, 3)]:
            tiny.run(target, drafter, START, cache=cache, source=source, max_tokens=6)
            assert len(calls) == expected
    finally:
        hook.remove()


def test_the_encoder_runs_while_the_prompt_is_read_unless_that_is_cancelled() -> None:
    target = tiny.target("t5")
    cache = target.new_cache()
    cache.reuse(START, PROMPT)
    assert not target.read([], cache, lambda: True)
    assert cache.encoded is None
    assert target.read([], cache)
    assert cache.encoded is not None and cache.encoded[0] == PROMPT
    assert Prompt(START, PROMPT).length == len(PROMPT)


def test_a_smaller_model_of_the_kind_drafts() -> None:
    target, small = tiny.target("t5"), tiny.target("t5", num_layers=1, num_decoder_layers=1)
    drafter, cache = Speculative(small, tiny.VOCABULARY, gamma=3), target.new_cache()
    calls: list[int] = []
    hook = small.model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    for number, source in enumerate((PROMPT, OTHER), 1):
        steps = tiny.run(target, drafter, START, cache=cache, source=source)
        assert tiny.text(steps) == tiny.slow("t5", START, 24, source)
        assert len(calls) == number
    hook.remove()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_at_any_line(method: str) -> None:
    target, drafter = tiny.target("t5"), tiny.make(method, "t5")
    cache = target.new_cache()
    for number in range(1, 400, 31):
        with tiny.interrupt(number):
            source = (OTHER, PROMPT)[number % 2]
            tiny.run(target, drafter, (0, number % 5), cache=cache, source=source, max_tokens=4)
        source = (OTHER, PROMPT)[number % 3 % 2]
        steps = tiny.run(target, drafter, START, cache=cache, source=source, max_tokens=6)
        assert tiny.text(steps) == tiny.slow("t5", START, 6, source)


@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_an_error_inside_the_model_leaves_the_cache_usable(where: str) -> None:
    target, drafter = tiny.target("t5"), tiny.make("none", "t5")
    cache = target.new_cache()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    for count, source in [(1, PROMPT), (0, PROMPT), (1, OTHER)]:
        module = getattr(target.model, where).block[count]
        hook = module.register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(target, drafter, (0, 1, 2), cache=target.new_cache(), source=source)
        if where == "decoder":
            with pytest.raises(KeyboardInterrupt):
                tiny.run(target, drafter, (0, 1, 2), cache=cache, source=source)
        hook.remove()
        steps = tiny.run(target, drafter, START, cache=cache, source=source)
        assert tiny.text(steps) == tiny.slow("t5", START, 24, source)
