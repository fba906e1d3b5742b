"""The benchmark's page in a browser: nothing of it is cut, on a telephone and on a screen."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest

from nfox.eval.bench.result import BenchResult, read
from nfox.eval.report.page import page

RESULT = Path(__file__).parents[2] / "docs" / "benchmark" / "embedded.json"


@pytest.mark.slow
@pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium here")
def test_nothing_is_cut_and_the_page_is_dark_where_a_person_wants_it(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(read(RESULT, BenchResult)))
    with browser.chromium(tmp_path / "browser") as shown:
        for width, dark in ((400, True), (1280, False)):
            shown.show(file.as_uri(), width=width, dark=dark)
            shown.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
            assert shown.run("document.documentElement.scrollWidth") == width
            scrolled = "[...document.querySelectorAll('.wide')].filter"
            cut = shown.run(f"{scrolled}(e => e.scrollWidth > e.clientWidth).map(e => e.innerHTML)")
            assert cut == []
            color = "getComputedStyle(document.querySelector('svg text')).fill"
            assert shown.run(f"{color} === getComputedStyle(document.body).color")
            back = shown.run("getComputedStyle(document.body).backgroundColor")
            assert (back == "rgb(22, 24, 26)") == dark
        assert not shown.complaints
