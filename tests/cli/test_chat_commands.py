"""Odd commands in a terminal: the benchmark in small."""

from __future__ import annotations

import signal
from pathlib import Path

import cli_model
import pytest
from chat_terminal import chatting, fuzz

pytestmark = pytest.mark.slow
COUNT = 60


def test_no_command_ends_the_chat_or_costs_the_conversation(tmp_path: Path) -> None:
    model, other = (str(cli_model.save(tmp_path / name)) for name in ("model", "other"))
    with chatting(tmp_path, "-m", model, "--max-new-tokens", "9") as chat:
        state = tmp_path / "state" / "nfox"
        outcome = fuzz(chat, tmp_path / "work", state, COUNT, look_every=10, models=[model, other])
        chat.process.send_signal(signal.SIGHUP)
        assert chat.process.wait(60) == -signal.SIGHUP
    assert outcome.wrong == []
    assert sum(outcome.counts.values()) == COUNT
