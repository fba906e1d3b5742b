"""Random sessions: the benchmark in small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nfox.models.transformers_cache import TransformersCache

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import sessions

pytestmark = pytest.mark.slow


def test_whatever_was_done_before_every_reply_is_that_of_plain_decoding() -> None:
    report = sessions.run_sessions(range(60), acts=4)
    assert report.wrong == []
    assert report.replies > 90 and report.tokens > 300 and report.accepted > 30
    ways = ("whole", "cancelled", "closed", "lost", "interrupted")
    ends = ("finish length", "finish stop", "finish interrupt")
    done = ("ask again", "go on", "take back", "edit", "clear", "ask the pool", "change settings")
    assert all(report.counts[name] for name in (*ways, *ends, *done))


def test_a_wrong_token_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a wrong node in the cache: the text goes on as if another token had been read."""
    keep_rows = TransformersCache._keep_rows

    def keep_first(cache: TransformersCache, path: list[int]) -> None:
        keep_rows(cache, range(len(path)))

    monkeypatch.setattr(TransformersCache, "_keep_rows", keep_first)
    # Few of them have a tree of which another node than the first is right.
    assert any(sessions.run_sessions([seed], acts=6).wrong for seed in range(1, 100))
