"""One browser for all tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import browser
import pytest


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    """The page of a browser; tests of it are left out where there is no Chromium."""
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium here")
    with browser.chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page
