"""While libraries are imported, the garbage collector rests."""

from __future__ import annotations

import gc
import sys

import pytest

from nfox.cli import large_imports
from nfox.cli.large_imports import import_engine


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_rests_and_passes_over_what_was_imported(
    fails: bool, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[object] = []

    def import_module(name: str) -> None:
        states.append((name, gc.isenabled()))
        if fails:
            raise ImportError(name)

    monkeypatch.delitem(sys.modules, "nfox.loader", raising=False)
    monkeypatch.setattr(large_imports, "import_module", import_module)
    monkeypatch.setattr(gc, "freeze", lambda: states.append("frozen"))
    if not enabled:
        gc.disable()
    try:
        if fails:
            with pytest.raises(ImportError):
                import_engine()
        else:
            import_engine()
        assert states == [("nfox.loader", False), "frozen"]
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_it_collects_what_comes_after_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: pytest.fail("it would pass over engines"))
    monkeypatch.setitem(sys.modules, "nfox.loader", sys)
    import_engine()
