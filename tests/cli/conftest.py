"""A chat on a tiny model, for tests of the program."""

from __future__ import annotations

from pathlib import Path

import chat_app
import cli_model
import pytest

from nfox import Settings, load
from nfox.cli.chat.app import ChatApp
from nfox.engine import Engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Return an engine whose greedy replies are `cli_model.said`."""
    return load(str(cli_model.save(tmp_path_factory.mktemp("model"))))


@pytest.fixture
def app(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ChatApp:
    """Return a chat in an empty folder, 100 columns wide, with replies of 31 tokens."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    engine.use("lookup", {"gamma": "8"})  # what it drafts depends on no time
    engine.use_settings(Settings(max_new_tokens=31))
    return chat_app.make(engine)
