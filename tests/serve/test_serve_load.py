"""Many clients at once, and requests that no person would send: the benchmarks in small."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import folder
import pytest
import servers
from servers import TINY
from serving import guarded, load_tiny, serve

from nfox import drafters

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import fuzz
import load

pytestmark = pytest.mark.slow


def test_many_clients_get_every_token_once(tmp_path: Path) -> None:
    asks = load.expectations(
        load_tiny(method=drafters.plain_method()), ["hello", "the fox", "äöü 😀"]
    )
    model = ("--model", str(folder.equipped()), "--cache-memory", "4MiB")
    with servers.nfox(tmp_path, "serve", *model, *TINY) as server:
        # By this seed there is every kind among the clients' first requests.
        pressing = load.press(
            f"{server.url}/v1", server.process.pid, asks, clients=16, seconds=3, seed=6
        )
        report = asyncio.run(pressing)
        assert "Traceback" not in server.log.read_text()
    assert report.wrong == []
    assert all(report.counts[kind] for kind in ("whole", "stream", "hang up", "wrong"))
    assert report.growth() < 0.1
    assert report.tokens > 0


def test_odd_requests_are_answered_without_an_error_of_the_server() -> None:
    served = serve(load_tiny(max_context=32), seconds=30)
    outcome = fuzz.fuzz(guarded(served, max_body_bytes=100_000), count=100, seed=1)
    assert outcome.wrong == []
    assert outcome.statuses[200] > 5
    assert outcome.statuses[400] > 8
    assert sum(outcome.statuses.values()) >= 100
