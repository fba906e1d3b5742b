"""The last reply shown otherwise: as it was written, as Markdown, token by token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat_app import contents, do

from nfox.cli.chat.app import ChatApp
from nfox.controls import sanitize
from nfox.errors import UsageError


def test_a_reply_is_shown_otherwise(app: ChatApp) -> None:
    do(app, "hello")
    said = sanitize(contents(app)[-1])
    assert "\n* until" in said
    rendered = said.replace("\n* until", "\n• until").replace("\t", "    ")
    assert do(app, "/view raw") == f"{said}\n"
    assert do(app, "/view markdown") == do(app, "/view") == f"{rendered.rstrip()}\n"
    app.screen = replace(app.screen, is_markdown=True)
    assert do(app, "/view") == f"{said}\n"


def test_a_reply_is_shown_token_by_token(app: ChatApp) -> None:
    do(app, "hello")
    said = sanitize(contents(app)[-1])
    *rows, count = do(app, "/view tokens").splitlines()
    assert count.startswith("31 tokens in ")
    tokens = "".join(rows).split("┊")
    assert len(tokens) == 31 + 1 and tokens[-1] == ""
    assert "The┊·quick┊·brown┊·fox·┊" in rows[0]
    assert "".join(tokens).replace("·", " ").replace("↵", "\n").replace("\ufffd", "").lstrip() == (
        said.replace("🦊", "").replace("\t", "    ")
    )
    app.screen = replace(app.screen, brackets={"accepted": ("<", ">")})
    records = app.replies.last_part(app.conversation).records
    accepted = sum(record.sources.count("accepted") for record in records)
    assert accepted and do(app, "/view tokens").count("<") == accepted


def test_what_cannot_be_shown_is_said(app: ChatApp) -> None:
    with pytest.raises(UsageError, match="no reply yet"):
        do(app, "/view")
    do(app, "hello")
    with pytest.raises(UsageError, match="expected one of raw, markdown, tokens"):
        do(app, "/view upside-down")
    do(app, "/save talk.json")
    do(app, "/reset")
    do(app, "/load talk.json")
    assert do(app, "/view raw") == f"{sanitize(contents(app)[-1])}\n"
    with pytest.raises(UsageError, match="is not known"):
        do(app, "/view tokens")
