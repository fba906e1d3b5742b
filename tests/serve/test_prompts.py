"""Replies that come back as text are read as the tokens that they were generated as."""

from __future__ import annotations

import pytest

from nfox.serve.prompts import ReplyTokens
from nfox.text.messages import Message


def conversation(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]


def test_the_tokens_of_a_reply_are_recalled_where_the_same_was_said_before_it() -> None:
    replies = ReplyTokens()
    first = conversation("a", "b")
    replies.remember([first[0], Message("assistant", "b", (1, 2))])
    assert [m.ids for m in replies.recall([*first, *conversation("c")])] == [None, (1, 2), None]
    assert [m.ids for m in replies.recall(conversation("x", "b"))] == [None, None]
    assert [m.ids for m in replies.recall(conversation("ab", ""))] == [None, None]
    replies.remember(conversation("a", "b"))  # known as text only: what was known before stays
    assert replies.recall(first)[1].ids == (1, 2)


def test_replies_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfox.serve.prompts._MAX_REPLIES", 2)
    replies = ReplyTokens()
    for name in "abc":
        replies.remember([*conversation(name), Message("assistant", name, (1,))])
    assert [replies.recall(conversation(name, name))[1].ids for name in "abc"] == [None, (1,), (1,)]
