"""A conversation is never lost, and always says what decoding it at once would say."""

from __future__ import annotations

import json
from pathlib import Path

import folder
import pytest

from nfox import (
    Conversation,
    Engine,
    Message,
    ModelOptions,
    NfoxError,
    Sampling,
    Settings,
    drafters,
    load,
)
from nfox.errors import ContextError, ModelError, UsageError

FLOAT64 = ModelOptions(dtype="float32")
READY = drafters.names()


def chat(**settings: object) -> Engine:
    made = {"max_new_tokens": 24, **settings}
    return load(
        str(folder.equipped()),
        method="spec",
        loading=FLOAT64,
        settings=Settings(**made),
    )


def say(session: Conversation, text: str) -> str:
    return "".join(piece.text for piece in session.send(text))


def decoded(session: Conversation) -> str:
    """Return what the ids of the last reply say, without a space in front."""
    text: str = session.engine.model.tokenizer.decode(
        session.last.reply.ids, skip_special_tokens=True
    )
    return text.removeprefix(" ")


def test_pieces_are_the_reply_and_its_ids() -> None:
    talk = chat()
    session = Conversation(talk)
    text = say(session, "hello")
    assert text == session.last.reply.text == session.messages[-1].content
    assert tuple(session.last.reply.ids) == session.messages[-1].ids
    assert session.last.reply.text == decoded(session)
    assert session.last.reply.stats.tokens == len(session.last.reply.ids) + (
        session.last.reply.finish == "stop"
    )


@pytest.mark.parametrize("name", drafters.names())
def test_a_conversation_says_what_a_fresh_one_does(name: str) -> None:
    talk, fresh = chat(), chat()
    talk.use(name)
    fresh.use("none")
    session = Conversation(talk)
    for question in ("hello there", "and then?", "😀 ünïcode"):
        say(session, question)
        again = fresh.answer(session.messages[:-1], cache=fresh.model.target.new_cache())
        assert again.ids == session.last.reply.ids


def test_later_turns_read_only_what_is_new() -> None:
    talk = chat()
    session = Conversation(talk)
    say(session, "hello there, this is a first question")
    read = len(talk.cache.tokens)
    say(session, "more")
    assert session.last.reply.stats.cached_tokens == read


def test_a_change_of_method_keeps_the_cache() -> None:
    talk = chat()
    session = Conversation(talk)
    for name in drafters.names():
        talk.use(name)
        before = len(talk.cache.tokens)
        say(session, "go on")
        assert session.last.reply.method == name
        assert session.last.reply.stats.cached_tokens == before


def test_cancel_keeps_what_was_said() -> None:
    talk = chat()
    session = Conversation(talk)
    said = ""
    for number, update in enumerate(session.send("hello").updates()):
        said += "".join(piece.text for piece in update.pieces)
        if number == 2:
            session.last.cancel()
    assert session.last.reply.finish == "interrupt"
    assert session.messages[-1] == Message("assistant", said, tuple(session.last.reply.ids))
    assert 0 < len(session.last.reply.ids) < 24
    say(session, "next")
    assert [m.role for m in session.messages] == ["user", "assistant"] * 2


def test_an_interrupt_keeps_what_was_said() -> None:
    talk = chat()
    session = Conversation(talk)
    updates = session.send("hello").updates()
    next(updates)
    with pytest.raises(KeyboardInterrupt):
        updates.throw(KeyboardInterrupt)
    assert [m.role for m in session.messages] == ["user", "assistant"]
    assert session.messages[-1].ids == tuple(session.last.reply.ids)


def test_where_nothing_was_said_the_question_is_taken_back(monkeypatch) -> None:
    talk = chat()
    session = Conversation(talk)
    say(session, "first")
    before = list(session.messages)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(talk.model.target, "read", broken)
    with pytest.raises(KeyboardInterrupt):
        say(session, "second")
    assert session.messages == before
    monkeypatch.undo()
    say(session, "second")
    assert len(session.messages) == 4


def test_a_prompt_longer_than_the_context_is_refused_and_nothing_is_lost() -> None:
    talk = chat()
    session = Conversation(talk)
    say(session, "hello")
    before = list(session.messages)
    with pytest.raises(ContextError, match="tokens") as error:
        say(session, "x " * 600)
    assert error.value.code == 4
    assert session.messages == before


def test_regenerate_and_undo() -> None:
    talk = chat(sampling=Sampling(temperature=1.5, seed=3))
    session = Conversation(talk)
    with pytest.raises(UsageError):
        session.regenerate()
    first = say(session, "hello")
    list(session.regenerate())
    assert session.last.reply.text != first  # another draw of the same seed
    assert [m.role for m in session.messages] == ["user", "assistant"]
    assert session.undo() == "hello"
    assert session.undo() is None
    assert session.messages == []


@pytest.mark.parametrize("name", READY)
def test_a_reply_that_was_cut_goes_on_to_what_it_would_have_been(name: str) -> None:
    """Token by token, so also from inside a character, and without reading anything again."""
    talk, whole = chat(max_new_tokens=1), chat()
    talk.use(name)
    session, uncut = Conversation(talk), Conversation(whole)
    say(uncut, "hello")
    say(session, "hello")
    while len(session.messages[-1].ids) < len(uncut.last.reply.ids):
        before = len(talk.cache.tokens)
        list(session.go_on())
        assert session.last.reply.stats.cached_tokens == before
    assert session.messages == uncut.messages


def test_a_reply_goes_on_after_an_interrupt_and_is_one_message() -> None:
    talk = chat()
    session, shown = Conversation(talk), ""
    for update in session.send("hello").updates():
        shown += "".join(piece.text for piece in update.pieces)
        session.last.cancel()
    for update in session.go_on().updates():
        shown += "".join(piece.text for piece in update.pieces)
    assert [m.role for m in session.messages] == ["user", "assistant"]
    assert session.messages[-1].content == shown
    say(session, "and then?")
    assert len(session.messages) == 4


def test_what_cannot_go_on_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = chat(max_new_tokens=100, stop=("e",), sampling=Sampling(temperature=1.0, seed=1))
    session = Conversation(talk)
    with pytest.raises(UsageError, match="no reply"):
        session.go_on()
    say(session, "hello")
    assert session.last.reply.finish == "stop"
    monkeypatch.setattr(talk.model.target, "read", lambda *_: False)  # interrupted at once
    say(session, "and then?")
    with pytest.raises(UsageError, match="came to its end"):
        session.go_on()
    session.messages = [Message("user", "a"), Message("assistant", "b")]
    with pytest.raises(UsageError, match="text only"):
        session.go_on()
    session.messages = [Message("user", "a"), Message("assistant", "b", (40,))]
    before = list(session.messages)
    list(session.go_on())
    assert session.messages == before


def test_a_stop_string_in_what_is_added_belongs_neither_to_text_nor_ids() -> None:
    talk = chat(max_new_tokens=3, sampling=Sampling(temperature=1.0, seed=1))
    session = Conversation(talk)
    say(session, "hello")
    begun = session.messages[-1]
    talk.use_settings(Settings(stop=("e",), max_new_tokens=100, sampling=Sampling(1.0, seed=1)))
    list(session.go_on())
    assert session.last.reply.finish == "stop"
    last = session.messages[-1]
    assert last.content.startswith(begun.content.rstrip("\ufffd"))
    assert "e" not in last.content[len(begun.content) :]
    assert last.ids is None or last.ids[:3] == begun.ids


def test_a_reply_begun_by_the_caller_is_continued() -> None:
    talk = chat()
    begun = [Message("user", "hello"), Message("assistant", "the fox")]
    added = talk.answer(begun)
    whole = talk.template.encode(talk.model.tokenizer, begun) + added.ids
    decoded = talk.model.tokenizer.decode(whole, skip_special_tokens=True)
    assert decoded.endswith("the fox" + added.text)


def test_without_history_every_prompt_is_fresh() -> None:
    talk = chat()
    session = Conversation(talk, history=False)
    first = say(session, "hello")
    say(session, "something else")
    assert say(session, "hello") == first


def test_the_system_message_stays() -> None:
    session = Conversation(chat(), system="Be brief.")
    say(session, "hello")
    session.system = "Be long."
    session.reset()
    assert session.messages == [Message("system", "Be long.")]
    session.system = None
    assert session.messages == []


@pytest.mark.parametrize("stop", ["e", "qu", " "])
def test_a_stop_string_belongs_neither_to_text_nor_ids(stop: str) -> None:
    talk = chat(stop=(stop,), sampling=Sampling(temperature=1.0, seed=1), max_new_tokens=100)
    session = Conversation(talk)
    say(session, "hello")
    reply = session.last.reply
    assert reply.finish == "stop"
    assert stop not in reply.text
    assert not reply.ids or decoded(session) == reply.text


def test_save_and_load(tmp_path: Path) -> None:
    session = Conversation(chat())
    say(session, "hello 😀")
    session.save(tmp_path / "chat.json")
    again = Conversation(session.engine)
    again.load(tmp_path / "chat.json")
    assert again.messages == session.messages


def test_load_reads_the_layouts_of_others(tmp_path: Path) -> None:
    session = Conversation(chat())
    plain = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    fastchat = {
        "template_name": "vicuna_v1.1",
        "system_message": "s",
        "roles": ["USER", "ASSISTANT"],
        "messages": [["USER", "a"], ["ASSISTANT", "b"]],
        "offset": 0,
    }
    path = tmp_path / "chat.json"
    for data in (plain, {"messages": plain}, fastchat):
        path.write_text(json.dumps(data))
        session.load(path)
        assert [m.content for m in session.turns] == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["", "[1", "{}", '{"messages": [{"role": "fox"}]}', "[[1, 2]]", "7"]
)
def test_a_broken_file_changes_nothing(tmp_path: Path, text: str) -> None:
    session = Conversation(chat())
    session.messages = [Message("user", "kept"), Message("assistant", "too")]
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(NfoxError) as error:
        session.load(path)
    assert "\n" not in error.value.message
    assert len(session.messages) == 2
    with pytest.raises(NfoxError):
        session.load(tmp_path / "absent.json")
    with pytest.raises(NfoxError):
        session.save(tmp_path / "absent" / "x.json")


def test_an_encoder_decoder_model_talks() -> None:
    talk = load(str(folder.t5()), loading=FLOAT64, settings=Settings(max_new_tokens=12))
    texts = {}
    for name in ("none", talk.method):
        talk.use(name)
        reply = talk.answer("hello fox", cache=talk.model.target.new_cache())
        texts[name] = reply.text
        assert reply.ids
    assert texts["none"] == texts[talk.method]
    session = Conversation(talk)
    talk.use_settings(Settings(max_new_tokens=6))
    say(session, "hello fox")
    list(session.go_on())
    assert session.messages[-1].content == texts["none"]


def test_a_recurrent_model_gets_plain_decoding() -> None:
    talk = load(str(folder.mamba()), loading=FLOAT64, settings=Settings(max_new_tokens=8))
    assert not talk.drafter.drafts
    assert "rolled back" in talk.why
    session = Conversation(talk)
    say(session, "hello")
    say(session, "again")
    assert session.last.reply.stats.cached_tokens > 0
    other = next(name for name in drafters.names() if drafters.method(name).drafts)
    with pytest.raises(ModelError):
        talk.use(other)


def test_a_reply_that_ended_stays_ended_when_a_later_one_is_taken_back() -> None:
    talk = chat(max_new_tokens=100, stop=("e",), sampling=Sampling(temperature=1.0, seed=1))
    session = Conversation(talk)
    for question in ("hello", "again"):
        say(session, question)
        assert session.last.reply.finish == "stop"
    session.undo()
    with pytest.raises(UsageError, match="came to its end"):
        session.go_on()
