"""Warnings of libraries are not for the person; ours are."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from nfox.cli.printing import silence_libraries


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what is set for the whole process."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "")
    monkeypatch.setattr(sys, "warnoptions", [])


def told(name: str) -> None:
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.makeLogRecord({"name": name, "msg": f"of {name}"}))


def warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Found missing adapter keys: " + "key, " * 2000, stacklevel=1)


def test_only_ours_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    silence_libraries()
    told("peft.tuners")
    told("accelerate")
    warn()
    told("nfox.drafters.common.heads")
    assert capsys.readouterr().err == "nfox: of nfox.drafters.common.heads\n"


def test_who_asks_python_for_warnings_gets_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    silence_libraries()
    warn()
    assert len(shown) == 1
