"""What a person demands of the forward: that it is there, or one line before or after loading."""

from __future__ import annotations

import pytest

from nfox import load
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.models import forwards
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.options import ModelOptions

try:
    native_library()
except NativeLibraryError as error:
    pytest.skip(f"no native library: {error}", allow_module_level=True)

METHODS = ("none", "lookup", "jacobi", "auto")


def refused(options: ModelOptions) -> NfoxError:
    """Return the error of loading the embedded model."""
    with pytest.raises(NfoxError) as caught:
        load(loading=options)
    return caught.value


@pytest.mark.parametrize("quantisation", (None, "int8", "int4"))
def test_every_method_gives_the_same_text(quantisation: str | None) -> None:
    options = ModelOptions(
        "auto" if quantisation else "bfloat16",
        quantisation,
        "on",
        True,
        device="cpu",  # type: ignore[arg-type]
    )
    with load(loading=options, method="none") as engine:
        described = engine.model.target.forward_description
        assert described == f"native {quantisation or ''}".strip()
        assert engine.summary().reproducible
        texts = []
        for method in METHODS:
            engine.use(method)
            answers = engine.answer_all(
                [f"Count from {n} to twenty, twice." for n in range(4)], max_new_tokens=32
            )
            texts.append([answer.text for answer in answers])
    assert all(text == texts[0] for text in texts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compile": "on"}, "--compile on"),
        ({"reproducible": True}, "--reproducible"),
        ({"quantisation": "int4", "dtype": "auto"}, "--quantize int4"),
    ],
)
def test_without_the_library_a_demand_is_one_line(
    changes: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise NativeLibraryError("no C++ compiler")

    monkeypatch.setattr(forwards, "native_library", missing)
    error = refused(ModelOptions(**{"dtype": "bfloat16", "device": "cpu"} | changes))  # type: ignore[arg-type]
    assert (error.code, words in error.message) == (3, True)
    assert "no C++ compiler" in error.message


@pytest.mark.parametrize("changes", ({"compile": "on"}, {"reproducible": True}))
def test_a_dtype_that_the_library_does_not_compute_in_is_one_line(
    changes: dict[str, object],
) -> None:
    error = refused(ModelOptions(dtype="float32", device="cpu", **changes))  # type: ignore[arg-type]
    assert isinstance(error, ModelError)
    assert "does not run by the native library" in error.message
    assert "bfloat16" in error.message


def test_compile_off_runs_the_other_forward() -> None:
    with load(loading=ModelOptions(dtype="bfloat16", device="cpu", compile="off")) as engine:
        assert engine.model.target.forward_description.startswith("fused")
        assert not engine.summary().reproducible


@pytest.mark.parametrize(
    "changes",
    [
        {"quantisation": "int4", "dtype": "float32"},
        {"quantisation": "int8", "device_map": "auto"},
        {"reproducible": True, "compile": "off"},
        {"compile": "never"},
    ],
)
def test_options_that_contradict_each_other_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ModelOptions(**changes)  # type: ignore[arg-type]


def test_quantised_on_a_cpu_without_its_library_left_out() -> None:
    error = refused(ModelOptions(quantisation="int4", compile="off", device="cpu"))
    assert (error.code, "--compile off" in error.message) == (2, True)


def test_a_quantised_draft_model_drafts_and_changes_no_text() -> None:
    options = ModelOptions(device="cpu", dtype="bfloat16")
    draft = ModelOptions(device="cpu", quantisation="int4")
    with load(loading=options, draft_loading=draft, method="spec") as engine:
        drafted = engine.answer("Why?", max_new_tokens=24).text
        engine.use("none")
        assert engine.answer("Why?", max_new_tokens=24).text == drafted


def test_that_bitsandbytes_is_slower_here_is_said(caplog: pytest.LogCaptureFixture) -> None:
    forwards.check_before(ModelOptions(quantisation="4bit", device="cpu"))
    [line] = caplog.messages
    assert "--quantize int4" in line
