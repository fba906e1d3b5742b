"""Where no memory is left for the native library's copy of the weights, the next forward decodes,
says why, and gives the same text.
"""

from __future__ import annotations

from types import SimpleNamespace

import folder
import pytest
import torch
from test_fused_decoder import walked
from test_native_decoder import native  # which skips all where there is no native library

from nfox import Engine, ModelOptions, load
from nfox.errors import ModelError
from nfox.models.devices import BFLOAT16_FLAGS

NO_ROOM = "no memory for a second copy of the weights"
QUESTION = "the quick brown fox"


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one byte, where it is asked whether a copy has room; what is loaded has."""
    memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=1))
    monkeypatch.setattr("nfox.models.decoder_weights.psutil", memory)


def loaded(**options: str) -> Engine:
    """Return the tiny Llama, to decode plainly on a CPU."""
    return load(str(folder.llama()), loading=ModelOptions(device="cpu", **options), method="none")


def text(engine: Engine) -> str:
    """Return what it answers."""
    return engine.answer(QUESTION, max_new_tokens=24).text


def test_with_room_the_same_model_runs_by_the_library() -> None:
    with loaded(dtype="bfloat16") as engine:
        assert engine.model.target.is_native


@pytest.mark.usefixtures("no_room")
def test_the_next_forward_is_as_near_to_the_exact_model_and_says_why() -> None:
    exact, target = native("llama")
    (expected, _), (own, _) = walked(exact), walked(target)
    target.fuse()
    assert not target.is_native
    assert target.why_not_native == NO_ROOM
    assert target.forward_description == f"fused ({NO_ROOM})"
    logits, _ = walked(target)
    error, own_error = ((some - expected).std() for some in (logits, own))
    assert error < 1.2 * own_error


@pytest.mark.usefixtures("no_room")
def test_in_bfloat16_the_text_is_that_without_the_library() -> None:
    with loaded(dtype="bfloat16", compile="off") as engine:
        expected = text(engine)
    with loaded(dtype="bfloat16") as engine:
        assert engine.model.target.why_not_native == NO_ROOM
        assert text(engine) == expected != ""


@pytest.mark.usefixtures("no_room")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_of_itself_it_decodes_in_the_dtype_that_is_fast_without_the_library(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 where the processor has its arithmetic; else it is loaded again in float32."""
    flags = BFLOAT16_FLAGS if dtype == "bfloat16" else frozenset()
    monkeypatch.setattr("nfox.models.devices.processor_flags", lambda: flags)
    with loaded(dtype=dtype, compile="off") as engine:
        expected = text(engine)
    with loaded() as engine:
        target = engine.model.target
        assert target.dtype == getattr(torch, dtype)
        assert not target.is_native
        assert (NO_ROOM in target.forward_description) == (dtype == "bfloat16")
        assert text(engine) == expected != ""


@pytest.mark.usefixtures("no_room")
def test_where_the_library_is_demanded_that_is_refused_in_a_line() -> None:
    with pytest.raises(ModelError, match=f"--compile on: .*{NO_ROOM}") as refused:
        loaded(dtype="bfloat16", compile="on")
    assert "\n" not in refused.value.message
