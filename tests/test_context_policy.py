"""A conversation that outgrows the context goes on, and says what a fresh model would say."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path

import folder
import pytest
import torch

from nfox import Conversation, Engine, Settings
from nfox.drafters import plain_method
from nfox.errors import ContextError, UsageError
from nfox.text.resolve import resolve

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import sessions

WORDS = ("the", "quick", "brown", "fox", "äöü", "😀", "\n")


def new_engine(kind: str, max_new_tokens: int = 12) -> Engine:
    """Return an engine in float64 whose context holds 160 tokens."""
    engine = sessions.make_engine(kind)
    engine.use_settings(Settings(max_new_tokens=max_new_tokens))
    return engine


def say(conversation: Conversation, text: str) -> str:
    return conversation.send(text).read_to_end().text


def assert_fresh(conversation: Conversation) -> None:
    """Check that the last reply and the cache are those of a model that has read nothing else."""
    engine, last = conversation.engine, conversation.last
    assert last is not None
    plain, cache = engine.make(plain_method()), engine.model.target.new_cache()
    assert engine.answer(last.request, drafter=plain, cache=cache).ids == last.reply.ids
    read = engine.cache.tokens
    assert read == [*last.request.prompt.ids, *last.reply.ids][: len(read)]
    fresh = engine.model.target.new_cache()
    engine.model.target.read(read, fresh)
    # The norms of transformers are in float32, whatever the model is in.
    torch.testing.assert_close(engine.cache.hidden, fresh.hidden, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "mistral", "mamba"])
def test_every_reply_is_that_of_a_fresh_prefill_of_what_is_read(kind: str) -> None:
    draw, engine = random.Random(kind), new_engine(kind)
    conversation = Conversation(engine, system="be brief", context_policy="drop")
    said, left_out = [], [0]
    for _ in range(24):
        act = draw.choice(("ask", "ask", "ask", "ask again", "go on", "take back"))
        engine.use_settings(Settings(max_new_tokens=draw.randint(1, 30)))
        if act == "ask" or len(said) < 2:
            said.append(" ".join(draw.choices(WORDS, k=draw.randint(1, 8))))
            say(conversation, said[-1])
        elif act == "ask again":
            conversation.regenerate().read_to_end()
        elif act == "take back":
            assert conversation.undo() == said.pop()
            continue
        else:
            with suppress(UsageError):  # it came to its end
                conversation.go_on().read_to_end()
        assert_fresh(conversation)
        assert [m.content for m in conversation.messages if m.role == "user"] == said
        asked = [message for message in conversation.asked if message.role == "user"]
        assert [m.content for m in asked] == said[conversation.left_out :]
        assert [m.role for m in conversation.asked[:2]] == ["system", "user"]
        left_out.append(conversation.left_out)
    assert max(left_out) > 3


def test_most_questions_are_read_behind_all_that_was_read_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = new_engine("llama")
    tokenizer = engine.model.tokenizer  # a reply then stands right behind its prompt
    monkeypatch.setattr(tokenizer, "chat_template", folder.TEMPLATE.replace(": {{", ":{{"))
    engine.use_template(resolve(tokenizer, None))
    conversation, anew = Conversation(engine, system="be brief", context_policy="drop"), 0
    for _ in range(20):
        before, read = conversation.left_out, len(engine.cache.tokens)
        say(conversation, "the quick brown fox")
        assert conversation.last is not None
        if conversation.left_out != before:
            anew += 1
            assert len(conversation.last.request.prompt.ids) < 0.7 * engine.max_context
        else:
            assert conversation.last.reply.stats.cached_tokens == read
    assert 2 <= anew <= 20 / 2


def test_a_reply_that_filled_the_context_goes_on_once_there_is_room() -> None:
    engine = new_engine("llama", max_new_tokens=999)
    conversation = Conversation(engine, context_policy="drop")
    engine.stop_ids = frozenset()
    engine.use_settings(Settings(max_new_tokens=20))
    for question in ("the quick brown fox", "jumps"):
        say(conversation, question)
    engine.use_settings(Settings(max_new_tokens=999))
    begun = say(conversation, "over the lazy dog")
    assert conversation.last is not None and conversation.last.reply.finish == "context"
    out = conversation.left_out
    conversation.go_on().read_to_end()
    assert conversation.left_out > out
    assert conversation.last.reply.ids
    assert conversation.messages[-1].content.startswith(begun)
    assert len(conversation.messages) == 6
    with pytest.raises(ContextError):  # in the end it fills the context alone
        for _ in range(3):
            assert_fresh(conversation)
            conversation.go_on().read_to_end()
    assert conversation.left_out == 2


@pytest.mark.parametrize("policy", ["drop", "stop"])
def test_what_fits_by_no_means_is_refused_and_nothing_is_lost(policy: str) -> None:
    conversation = Conversation(new_engine("llama"), context_policy=policy)
    for _ in range(3):
        say(conversation, "the fox")
    before, out = list(conversation.messages), conversation.left_out
    with pytest.raises(ContextError):
        say(conversation, "fox " * 200)
    assert (conversation.messages, conversation.left_out) == (before, out)
    say(conversation, "the dog")
    assert len(conversation.messages) == len(before) + 2


def test_by_the_other_policy_the_next_question_is_refused() -> None:
    conversation = Conversation(new_engine("llama"))
    with pytest.raises(ContextError):
        for _ in range(30):
            say(conversation, "the quick brown fox")
    assert conversation.left_out == 0


def test_turns_are_read_again_where_there_is_room_again() -> None:
    conversation = Conversation(new_engine("llama"), context_policy="drop")
    while not conversation.left_out:
        say(conversation, "the quick brown fox")
    for _ in range(len(conversation.messages) // 2 - 1):
        conversation.undo()
    say(conversation, "jumps")
    assert conversation.left_out == 0 and len(conversation.asked) == 3


def test_another_conversation_leaves_nothing_out(tmp_path: Path) -> None:
    conversation = Conversation(new_engine("llama"), context_policy="drop")
    say(conversation, "the fox")
    conversation.save(tmp_path / "short.json")

    def change_model() -> None:
        conversation.go_on_with(conversation.engine)

    def load() -> None:
        conversation.load(tmp_path / "short.json")

    for change in (conversation.reset, change_model, load):
        while not conversation.left_out:
            say(conversation, "the quick brown fox")
        change()
        assert conversation.left_out == 0


def test_what_never_got_an_answer_costs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = Conversation(new_engine("llama"), context_policy="drop")
    for _ in range(2):
        say(conversation, "the fox")
    with monkeypatch.context() as patch:
        patch.setattr(conversation.engine.model.target, "read", lambda *_: False)
        say(conversation, "fox " * 120)
        assert conversation.left_out == 2
    assert len(conversation.messages) == 4
    say(conversation, "the dog")
    assert conversation.left_out == 0
