"""docs/api.md says what the docstrings say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import nfox

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def document() -> str:
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return str(made.text())


def test_the_document_is_made_of_the_docstrings(document: str) -> None:
    assert (DOCS / "api.md").read_text() == document, "run python docs/make_api.py"


def test_every_public_name_is_in_it_and_nothing_of_this_process(document: str) -> None:
    for name in nfox.__all__:
        assert re.search(rf"^## `(nfox\.)?{name}`$", document, re.MULTILINE), name
    assert " at 0x" not in document and "<factory" not in document
    assert "See `" not in document
