"""Replies that come back as text are read as the tokens that they were generated as."""

from __future__ import annotations

import pytest
from serving import load_tiny

from nfox import drafters
from nfox.reply import Reply
from nfox.serve.pending_reply import Question
from nfox.serve.prompts import PromptEncoder, ReplyTokens
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


def test_a_continued_reply_is_recalled_with_the_tokens_of_both_parts() -> None:
    engine = load_tiny(method=drafters.plain_method())
    prompts, ids = PromptEncoder(engine), list[int]()
    for letter in "the fox":  # no tokenizer divides it so
        ids += engine.model.tokenizer(letter, add_special_tokens=False).input_ids
    first, begun = Message("user", "hello"), Message("assistant", "the")
    prompts.remember(Question((first,)), Reply("none", ids[:3], "the"))
    prompts.remember(Question((first, begun)), Reply("none", ids[3:], " fox"))
    turns = (first, Message("assistant", "the fox"))
    expected = engine.encode([first, Message("assistant", "the fox", tuple(ids))])
    assert prompts.encode(Question(turns)).ids == expected.ids
    assert engine.encode([*turns]).ids != expected.ids
