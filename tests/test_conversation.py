"""A conversation is never lost, and always says what decoding it at once would say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

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
from nfox.text.resolve import resolve

FLOAT64 = ModelOptions(dtype="float32")
READY = drafters.method_names()


def load_engine(**settings: object) -> Engine:
    fields = {"max_new_tokens": 24, **settings}
    return load(
        str(folder.equipped()),
        method="spec",
        loading=FLOAT64,
        settings=Settings(**fields),
    )


@cache
def engine_of_files() -> Engine:
    """Return one engine for all conversations that are about their files alone."""
    return load_engine()


@cache
def uncut() -> Conversation:
    """Return a conversation whose reply was not cut."""
    conversation = Conversation(load_engine())
    say(conversation, "hello")
    return conversation


def writing_as_asked(engine: Engine) -> Engine:
    """Return an engine whose template writes a reply right behind the prompt that it answers: none
    of these models writes the space that the other template has there.
    """
    tokenizer = engine.model.tokenizer
    tokenizer.chat_template = folder.TEMPLATE.replace(": {{", ":{{")
    engine.use_template(resolve(tokenizer, None))
    return engine


def say(conversation: Conversation, text: str) -> str:
    return "".join(piece.text for piece in conversation.send(text))


def decoded(conversation: Conversation) -> str:
    """Return what the ids of the last reply say, without a space in front."""
    text: str = conversation.engine.model.tokenizer.decode(
        conversation.last.reply.ids, skip_special_tokens=True
    )
    return text.removeprefix(" ")


def test_pieces_are_the_reply_and_its_ids() -> None:
    engine = load_engine()
    conversation = Conversation(engine)
    text = say(conversation, "hello")
    assert text == conversation.last.reply.text == conversation.messages[-1].content
    assert tuple(conversation.last.reply.ids) == conversation.messages[-1].ids
    assert conversation.last.reply.text == decoded(conversation)
    assert conversation.last.reply.stats.tokens == len(conversation.last.reply.ids) + (
        conversation.last.reply.finish == "stop"
    )


@pytest.mark.parametrize("name", drafters.method_names())
def test_a_conversation_says_what_a_fresh_one_does(name: str) -> None:
    engine, fresh = load_engine(), load_engine()
    engine.use(name)
    fresh.use("none")
    conversation = Conversation(engine)
    for question in ("hello there", "and then?", "😀 ünïcode"):
        say(conversation, question)
        again = fresh.answer(conversation.messages[:-1], cache=fresh.model.target.new_cache())
        assert again.ids == conversation.last.reply.ids


@pytest.mark.parametrize("model", [folder.equipped, folder.mamba])
def test_what_the_template_cuts_from_earlier_replies_is_read_no_more(
    model: Callable[[], Path],
) -> None:
    """As it cuts what was thought; the cache follows a prompt that changes behind its beginning."""
    engines = [
        load(str(model()), loading=FLOAT64, settings=Settings(max_new_tokens=12)) for _ in "ab"
    ]
    cutting = folder.TEMPLATE.replace(": {{ m.content", ":{{ m.content[-4:]")
    for engine in engines:
        engine.model.tokenizer.chat_template = cutting
        engine.use_template(resolve(engine.model.tokenizer, None))
    engine, fresh = engines
    conversation = Conversation(engine)
    for question in ("ask", "more", "why"):
        say(conversation, question)
        asked, tokenizer = conversation.messages[:-1], engine.model.tokenizer
        turns = [{"role": message.role, "content": message.content} for message in asked]
        expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(conversation.last.request.prompt.ids) == expected
        again = fresh.answer(asked, cache=fresh.model.target.new_cache())
        assert again.ids == conversation.last.reply.ids


def test_later_turns_read_only_what_is_new() -> None:
    engine = writing_as_asked(load_engine())
    conversation = Conversation(engine)
    say(conversation, "hello there, this is a first question")
    read = len(engine.cache.tokens)
    say(conversation, "more")
    assert conversation.last.reply.stats.cached_tokens == read


def test_a_change_of_method_keeps_the_cache() -> None:
    engine = writing_as_asked(load_engine())
    for name in drafters.method_names():
        conversation = Conversation(engine)
        say(conversation, "go on")  # by the method before
        engine.use(name)
        before = len(engine.cache.tokens)
        say(conversation, "go on")
        assert conversation.last.reply.method == name
        assert conversation.last.reply.stats.cached_tokens == before > 0


def test_cancel_keeps_what_was_said() -> None:
    engine = load_engine()
    conversation = Conversation(engine)
    text = ""
    stream = conversation.send("hello")
    for number, update in enumerate(stream.updates()):
        text += "".join(piece.text for piece in update.pieces)
        if number == 2:
            stream.cancel()
    assert conversation.last.reply.finish == "interrupt"
    assert conversation.messages[-1] == Message(
        "assistant", text, tuple(conversation.last.reply.ids)
    )
    assert 0 < len(conversation.last.reply.ids) < 24
    say(conversation, "next")
    assert [m.role for m in conversation.messages] == ["user", "assistant"] * 2


def test_an_interrupt_keeps_what_was_said() -> None:
    engine = load_engine()
    conversation = Conversation(engine)
    updates = conversation.send("hello").updates()
    next(updates)
    with pytest.raises(KeyboardInterrupt):
        updates.throw(KeyboardInterrupt)
    assert [m.role for m in conversation.messages] == ["user", "assistant"]
    assert conversation.messages[-1].ids == tuple(conversation.last.reply.ids)


def test_where_nothing_was_said_the_question_is_taken_back(monkeypatch) -> None:
    engine = load_engine()
    conversation = Conversation(engine)
    say(conversation, "first")
    before = list(conversation.messages)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.model.target, "read", broken)
    with pytest.raises(KeyboardInterrupt):
        say(conversation, "second")
    assert conversation.messages == before
    monkeypatch.undo()
    say(conversation, "second")
    assert len(conversation.messages) == 4


def test_a_prompt_longer_than_the_context_is_refused_and_nothing_is_lost() -> None:
    engine = load_engine()
    conversation = Conversation(engine)
    say(conversation, "hello")
    before = list(conversation.messages)
    with pytest.raises(ContextError, match="tokens") as error:
        say(conversation, "x " * 600)
    assert error.value.code == 4
    assert conversation.messages == before


def test_regenerate_and_undo() -> None:
    engine = load_engine(sampling=Sampling(temperature=1.5, seed=3))
    conversation = Conversation(engine)
    with pytest.raises(UsageError):
        conversation.regenerate()
    first = say(conversation, "hello")
    list(conversation.regenerate())
    assert conversation.last.reply.text != first  # another draw of the same seed
    assert [m.role for m in conversation.messages] == ["user", "assistant"]
    assert conversation.undo() == "hello"
    assert conversation.undo() is None
    assert conversation.messages == []


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
def test_a_reply_that_was_cut_goes_on_to_what_it_would_have_been(name: str) -> None:
    """Token by token, so also from inside a character, and without reading anything again."""
    engine = load_engine(max_new_tokens=1)
    engine.use(name)
    conversation = Conversation(engine)
    say(conversation, "hello")
    while len(conversation.messages[-1].ids) < len(uncut().last.reply.ids):
        before = len(engine.cache.tokens)
        list(conversation.go_on())
        assert conversation.last.reply.stats.cached_tokens == before
    assert conversation.messages == uncut().messages


def test_a_reply_goes_on_after_an_interrupt_and_is_one_message() -> None:
    engine = load_engine()
    conversation, shown = Conversation(engine), ""
    stream = conversation.send("hello")
    for update in stream.updates():
        shown += "".join(piece.text for piece in update.pieces)
        stream.cancel()
    for update in conversation.go_on().updates():
        shown += "".join(piece.text for piece in update.pieces)
    assert [m.role for m in conversation.messages] == ["user", "assistant"]
    assert conversation.messages[-1].content == shown
    say(conversation, "and then?")
    assert len(conversation.messages) == 4


def test_what_cannot_go_on_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(
        max_new_tokens=100, stop=("e",), sampling=Sampling(temperature=1.0, seed=1)
    )
    conversation = Conversation(engine)
    with pytest.raises(UsageError, match="no reply"):
        conversation.go_on()
    say(conversation, "hello")
    assert conversation.last.reply.finish == "stop"
    monkeypatch.setattr(engine.model.target, "read", lambda *_: False)  # interrupted at once
    say(conversation, "and then?")
    with pytest.raises(UsageError, match="came to its end"):
        conversation.go_on()
    conversation.messages = [Message("user", "a"), Message("assistant", "b")]
    with pytest.raises(UsageError, match="text only"):
        conversation.go_on()
    conversation.messages = [Message("user", "a"), Message("assistant", "b", (40,))]
    before = list(conversation.messages)
    list(conversation.go_on())
    assert conversation.messages == before


def test_a_stop_string_in_what_is_added_belongs_neither_to_text_nor_ids() -> None:
    engine = load_engine(max_new_tokens=3, sampling=Sampling(temperature=1.0, seed=1))
    conversation = Conversation(engine)
    say(conversation, "hello")
    begun = conversation.messages[-1]
    engine.use_settings(Settings(stop=("e",), max_new_tokens=100, sampling=Sampling(1.0, seed=1)))
    list(conversation.go_on())
    assert conversation.last.reply.finish == "stop"
    last = conversation.messages[-1]
    assert last.content.startswith(begun.content.rstrip("\ufffd"))
    assert "e" not in last.content[len(begun.content) :]
    assert last.ids is None or last.ids[:3] == begun.ids


def test_a_reply_begun_by_the_caller_is_continued() -> None:
    engine = load_engine()
    begun = [Message("user", "hello"), Message("assistant", "the fox")]
    added = engine.answer(begun)
    ids = engine.template.encode(engine.model.tokenizer, begun) + added.ids
    decoded = engine.model.tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.endswith("the fox" + added.text)


def test_without_history_every_prompt_is_fresh() -> None:
    engine = load_engine()
    conversation = Conversation(engine, history=False)
    first = say(conversation, "hello")
    say(conversation, "something else")
    assert say(conversation, "hello") == first


def test_the_system_message_stays() -> None:
    conversation = Conversation(load_engine(), system="Be brief.")
    say(conversation, "hello")
    conversation.system = "Be long."
    conversation.reset()
    assert conversation.messages == [Message("system", "Be long.")]
    conversation.system = None
    assert conversation.messages == []


@pytest.mark.parametrize("stop", ["e", "qu", " "])
def test_a_stop_string_belongs_neither_to_text_nor_ids(stop: str) -> None:
    engine = load_engine(
        stop=(stop,), sampling=Sampling(temperature=1.0, seed=2), max_new_tokens=100
    )
    conversation = Conversation(engine)
    say(conversation, "hello")
    reply = conversation.last.reply
    assert reply.finish == "stop"
    assert stop not in reply.text
    assert reply.is_cut_inside == (reply.message().ids is None)
    spelled = engine.model.tokenizer.decode(reply.ids, skip_special_tokens=True)
    assert reply.text.startswith(spelled.rstrip("\ufffd").removeprefix(" "))
    assert reply.is_cut_inside or decoded(conversation) == reply.text


def test_a_stop_string_that_begins_inside_a_token_leaves_the_ids_before_it() -> None:
    engine = load_engine(max_new_tokens=30)
    whole, tokenizer = engine.answer("hello"), engine.model.tokenizer
    texts = [tokenizer.decode([token]).strip() for token in whole.ids]
    place = next(n for n, text in enumerate(texts) if n > 1 and len(text) > 1 and text.isascii())
    stopped = engine.answer("hello", stop=whole.text[whole.text.index(texts[place]) + 1 :][:9])
    assert stopped.finish == "stop"
    assert stopped.is_cut_inside
    assert stopped.ids
    assert stopped.ids == whole.ids[: len(stopped.ids)]
    assert whole.text.startswith(stopped.text)
    assert len(stopped.text) > len(tokenizer.decode(stopped.ids).strip())


def test_save_and_load(tmp_path: Path) -> None:
    conversation = Conversation(engine_of_files())
    say(conversation, "hello 😀")
    conversation.save(tmp_path / "chat.json")
    again = Conversation(conversation.engine)
    again.load(tmp_path / "chat.json")
    assert again.messages == conversation.messages


def test_load_reads_the_layouts_of_others(tmp_path: Path) -> None:
    conversation = Conversation(load_engine())
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
        conversation.load(path)
        assert [m.content for m in conversation.turns] == ["a", "b"]
    path.write_text(json.dumps({"messages": plain, "score": float("nan")}))
    conversation.load(path)
    assert [m.content for m in conversation.turns] == ["a", "b"]


def saved(tmp_path: Path, **changes: object) -> tuple[Conversation, dict[str, Any], Path]:
    """Return a conversation, the content of the file it was saved in, and the file."""
    conversation = Conversation(engine_of_files())
    say(conversation, "hello 😀")
    path = tmp_path / "chat.json"
    conversation.save(path)
    return conversation, json.loads(path.read_text()), path


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: [*ids, ids[-1]],
        lambda ids: ids[1:],
        lambda ids: ids[::-1],
        lambda ids: [40, *ids[1:]],
        lambda ids: [*ids, 10**9],
        lambda ids: [*ids, 320],
        lambda ids: [*ids, 2**70],
        lambda ids: [0, *ids],  # it has no text, but begins another message
        lambda ids: [*ids, 1],  # it ends a reply
        lambda ids: [],
        lambda ids: None,
    ],
)
def test_ids_that_do_not_spell_a_reply_are_left_out_and_its_text_is_read(
    tmp_path: Path, change: Callable[[list[int]], object]
) -> None:
    conversation, data, path = saved(tmp_path)
    reply = data["messages"][1]
    reply["ids"] = change(reply["ids"])
    path.write_text(json.dumps(data))
    conversation.load(path)
    assert conversation.messages[1] == Message("assistant", reply["content"])
    question = [*conversation.messages, Message("user", "and then?")]
    as_text = [{"role": message.role, "content": message.content} for message in question]
    prompts = [conversation.engine.request(each).prompt for each in (question, as_text)]
    assert prompts[0] == prompts[1]


def test_ids_of_another_model_or_of_a_question_are_not_read(tmp_path: Path) -> None:
    conversation, data, path = saved(tmp_path)
    ids = data["messages"][1]["ids"]
    path.write_text(json.dumps(data | {"model": "another"}))
    conversation.load(path)
    assert [message.ids for message in conversation.messages] == [None, None]
    data["messages"][0]["ids"] = ids
    path.write_text(json.dumps(data))
    conversation.load(path)
    assert [message.ids for message in conversation.messages] == [None, tuple(ids)]


@pytest.mark.parametrize("ids", ["12", [1.0], [True], [-1], [None], ["7"], [[7]], 7, {"7": 7}, 1.5])
def test_ids_that_are_none_are_refused_with_their_place(tmp_path: Path, ids: object) -> None:
    conversation, data, path = saved(tmp_path)
    before = list(conversation.messages)
    data["messages"][1]["ids"] = ids
    path.write_text(json.dumps(data))
    with pytest.raises(NfoxError, match=r"chat.json: not a conversation: message 2: ids") as caught:
        conversation.load(path)
    assert "\n" not in caught.value.message
    assert conversation.messages == before


def test_fastchats_roles_may_be_alike_and_its_examples_are_left_out(tmp_path: Path) -> None:
    conversation, path = Conversation(load_engine()), tmp_path / "chat.json"
    turns = [["", "x"], ["", "y"], ["", "a"], ["", "b"], ["", None]]
    path.write_text(json.dumps({"system": "s", "roles": ["", ""], "messages": turns, "offset": 2}))
    conversation.load(path)
    assert [(m.role, m.content) for m in conversation.messages] == [
        ("system", "s"), ("user", "a"), ("assistant", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1", "{}", '{"messages": [{"role": "fox"}]}', "[[1, 2]]", "7", "null", '"x"'),
        *("[" * 100_000, '[{"role": "user", "content": NaN}]', '{"messages": {"role": "user"}}'),
        '[{"role": "user", "content": null}]',
        '[{"role": "user", "content": 1e999}]',
        '[{"role": "fox", "content": "a"}]',
        '[{"role": ["user"], "content": "a"}]',
        '{"format": "nfox.conversation/2", "messages": []}',
        '{"roles": ["A"], "messages": []}',
        '{"roles": ["A", "B"], "messages": [["C", "a"]]}',
        '{"roles": ["A", "B"], "messages": [["A", ["a", "an image"]]]}',
        '{"roles": ["A", "B"], "messages": [["A", "a"]], "offset": -1}',
        '{"roles": ["A", "B"], "messages": [["A", "a"]], "offset": 2}',
        '{"roles": ["A", "B"], "messages": [["A", "a"]], "offset": 1e400}',
        '{"roles": [["A"], "B"], "messages": [["A", "a"]]}',
    ],
    ids=lambda text: text[:40],
)
def test_a_broken_file_changes_nothing(tmp_path: Path, text: str) -> None:
    conversation = Conversation(engine_of_files())
    conversation.messages = [Message("user", "kept"), Message("assistant", "too")]
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(NfoxError) as error:
        conversation.load(path)
    assert "\n" not in error.value.message
    assert len(conversation.messages) == 2
    with pytest.raises(NfoxError):
        conversation.load(tmp_path / "absent.json")
    with pytest.raises(NfoxError):
        conversation.save(tmp_path / "absent" / "x.json")


def test_an_encoder_decoder_model_talks() -> None:
    engine = load(str(folder.t5()), loading=FLOAT64, settings=Settings(max_new_tokens=12))
    texts = {}
    for name in ("none", engine.method):
        engine.use(name)
        reply = engine.answer("hello fox", cache=engine.model.target.new_cache())
        texts[name] = reply.text
        assert reply.ids
    assert texts["none"] == texts[engine.method]
    conversation = Conversation(engine)
    engine.use_settings(Settings(max_new_tokens=6))
    say(conversation, "hello fox")
    list(conversation.go_on())
    assert conversation.messages[-1].content == texts["none"]


def test_a_recurrent_model_gets_plain_decoding() -> None:
    engine = load(str(folder.mamba()), loading=FLOAT64, settings=Settings(max_new_tokens=8))
    assert not engine.drafter.drafts
    assert "rolled back" in engine.why
    conversation = Conversation(writing_as_asked(engine))
    say(conversation, "hello")
    say(conversation, "again")
    assert conversation.last.reply.stats.cached_tokens > 0
    other = next(name for name in drafters.method_names() if drafters.method_class(name).drafts)
    with pytest.raises(ModelError):
        engine.use(other)


def test_a_reply_that_ended_stays_ended_when_a_later_one_is_taken_back() -> None:
    engine = load_engine(
        max_new_tokens=100, stop=("e",), sampling=Sampling(temperature=1.0, seed=1)
    )
    conversation = Conversation(engine)
    for question in ("hello", "again"):
        say(conversation, question)
        assert conversation.last.reply.finish == "stop"
    conversation.undo()
    with pytest.raises(UsageError, match="came to its end"):
        conversation.go_on()


def test_a_reply_that_nobody_reads_on_is_part_of_the_conversation() -> None:
    conversation = Conversation(load_engine())
    for _ in conversation.send("hello"):
        break
    assert [message.role for message in conversation.messages] == ["user", "assistant"]
    kept = conversation.send("and then?")
    next(kept)
    say(conversation, "next")
    assert [message.role for message in conversation.messages] == ["user", "assistant"] * 3
    assert conversation.engine.answer("free again").ids


def test_a_question_whose_reply_is_not_begun_is_taken_back() -> None:
    conversation = Conversation(load_engine())
    conversation.send("never read").close()
    with conversation.send("nor this"):
        pass
    conversation.send("nor this one")
    assert conversation.messages == []


def test_nothing_changes_before_there_is_a_reply() -> None:
    conversation = Conversation(load_engine())
    say(conversation, "hello")
    before = list(conversation.messages)
    for ask in (lambda: conversation.send("again"), conversation.regenerate):
        stream = ask()
        assert conversation.messages == before
        stream.close()
        assert conversation.messages == before
    conversation.history = False
    conversation.send("afresh").close()
    assert conversation.messages == before


def test_what_is_changed_while_a_reply_is_given_costs_no_turn() -> None:
    conversation = Conversation(load_engine(), system="be brief")
    waiting = conversation.send("never read")
    conversation.system = "be polite"
    say(conversation, "hello")
    assert [m.role for m in conversation.messages] == ["system", "user", "assistant"]
    stream = conversation.send("and then?")
    next(stream)
    conversation.system = None
    stream.close()
    assert [m.role for m in conversation.messages] == ["user", "assistant"] * 2
    stream = conversation.regenerate()
    next(stream)
    conversation.reset()
    stream.close()
    waiting.close()
    assert conversation.messages == []


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th line that is run in the files of a reply."""

    FILES = (
        "reply_stream.py",
        "reply_text.py",
        "stream.py",
        "pieces.py",
        "generate.py",
        "conversation.py",
    )

    def __init__(self, number: int) -> None:
        self.left = number

    @staticmethod
    def collects(frame: FrameType | None) -> bool:
        """Whether Python collects an object here, which no exception leaves."""
        while frame is not None and frame.f_code.co_name != "__del__":
            frame = frame.f_back
        return frame is not None

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(self.FILES):
            return None
        if event == "line" and not self.collects(frame):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def test_an_interrupt_anywhere_in_a_reply_is_one_and_loses_nothing() -> None:
    conversation = Conversation(load_engine(max_new_tokens=8, stop=("never",)))
    whole = say(conversation, "hello")
    counted = InterruptAt(0)
    sys.settrace(counted)
    list(conversation.regenerate())
    sys.settrace(None)
    lines = -counted.left
    for number in range(1, lines, lines // 50):
        conversation.reset()
        sys.settrace(InterruptAt(number))
        try:
            say(conversation, "hello")
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        said = [message.content for message in conversation.messages]
        assert said == [] or (said[0] == "hello" and whole.startswith(said[1].rstrip("\ufffd")))
        assert say(conversation, "hello") == whole or said
        conversation.reset()
        assert say(conversation, "hello") == whole
