"""A conversation: messages over several turns, which stay consistent however a reply ends.

Its state is the list of messages. The cache follows them by the longest common prefix of token ids,
so undoing, regenerating and editing need no care here.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfox.decoding.generate import Prompt
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.reply import Exchange, Reply
from nfox.reply_stream import ReplyStream
from nfox.reply_text import joined
from nfox.text.conversation_file import parse_conversation, read_saved, to_json, write_saved
from nfox.text.messages import Message
from nfox.text.stream import spells
from nfox.text.turns import ContextPolicy, fitting, longest_prompt, turns_in


class Conversation:
    """Messages and the `Engine` that answers them.

    Args:
        engine: the engine that answers.
        system: the system message; None is the template's own.
        history: whether a question is asked together with the turns before it.
        context_policy: what becomes of a conversation that outgrows the context. "drop" keeps all
            messages, but has the model read the system message and the newest turns alone.

    Attributes:
        messages: all messages so far, the system message first if there is one.
        asked: the messages that the last reply was asked by, its question among them.
        left_out: how many of the oldest turns were not among them; 0 in another conversation.
        last: the last reply, ended or not, with its request; None before the first.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        history: bool = True,
        context_policy: ContextPolicy = "stop",
    ) -> None:
        self.engine = engine
        self.history = history
        self.context_policy = context_policy
        self.left_out = 0
        self._unread: list[Message] = []  # the oldest turns, which later replies leave out too
        self.messages: list[Message] = []
        self.asked: list[Message] = []
        self.last: Exchange | None = None
        self._stream: weakref.ref[ReplyStream] | None = None  # of the last reply
        self._complete_replies: list[Message] = []  # those that the model itself ended
        if system is not None:
            self.system = system

    @property
    def system(self) -> str | None:
        """The system message, or None. Setting it leaves the other messages as they are."""
        first = self.messages[:1]
        return first[0].content if first and first[0].role == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        turns = self.turns
        self.messages = ([] if text is None else [Message("system", text)]) + turns

    def _opening(self) -> list[Message]:
        """Return the system message, if there is one, in a list."""
        return [message for message in self.messages if message.role == "system"]

    @property
    def turns(self) -> list[Message]:
        """The messages without the system message."""
        return [message for message in self.messages if message.role != "system"]

    def send(self, text: str) -> ReplyStream:
        """Ask a question; return the stream of the reply. Both join the messages at its end.

        A stream that is cancelled, closed or lost leaves the part of the reply that there is. If
        there is none, the question does not join either, so that it can be asked again.

        Raises:
            NfoxError: if the question cannot be answered; the messages stay as they are.
        """
        self._end_last()
        question = Message("user", text)
        return self._answer([*self.turns, question] if self.history else [question])

    def regenerate(self) -> ReplyStream:
        """Answer the last question again; return the stream of the new reply, which replaces the
        one before at its end, if there is any of it.

        Above temperature 0 the random numbers are other ones.

        Raises:
            UsageError: if there is no question.
        """
        self._end_last()
        turns = self.turns
        if turns and turns[-1].role == "assistant":
            turns.pop()
        if not turns:
            raise UsageError("there is nothing to answer again yet")
        return self._answer(turns)

    def go_on(self) -> ReplyStream:
        """Continue the last reply where it was cut; return the stream of the continuation.

        Raises:
            UsageError: if the reply was not cut, or only its text is known.
        """
        self._end_last()
        last = self.messages[-1] if self.turns else None
        if last is None or last.role != "assistant":
            raise UsageError("there is no reply to go on with yet")
        if any(last is reply for reply in self._complete_replies):
            raise UsageError("the last reply came to its end")
        if last.ids is None:
            raise UsageError("the last reply is known as text only, not by its tokens")
        return self._answer(self.turns)

    def _answer(self, turns: list[Message]) -> ReplyStream:
        """Return the stream of a reply to turns, which with it replace those that there are."""
        turns_before = self.turns

        def record(reply: Reply) -> None:
            if self.turns != turns_before:  # somebody has changed the conversation meanwhile
                return
            if reply.ids or reply.text or reply.finish != "interrupt":
                self.messages = self._opening() + joined(turns, reply, tokenizer)
                self._complete_replies += self.messages[-1:] if reply.finish == "stop" else []
                self._unread = unread

        def encode(first: int) -> Prompt:
            return self.engine.encode(self._opening() + turns[first:])

        engine, tokenizer = self.engine, self.engine.model.tokenizer
        limit = longest_prompt(engine.max_context, engine.settings.max_new_tokens)
        prompt, first = fitting(
            turns, encode, self._unread, limit if self.context_policy == "drop" else None
        )
        stream = engine.stream(engine.request(prompt), on_end=record)
        self.asked, unread = self._opening() + turns[first:], turns[:first]
        self.left_out = turns_in(unread)
        self.last = Exchange(
            stream.request, stream.reply, engine.model.adapter, engine.template.name
        )
        self._stream = weakref.ref(stream)
        return stream

    def _end_last(self) -> None:
        """End a reply that nobody has read to its end: what there is of it joins the messages."""
        if self._stream and (stream := self._stream()):
            stream.close()

    def go_on_with(self, engine: Engine) -> None:
        """Let another engine answer from now on. The messages stay, as texts: the tokens of replies
        are another model's.

        Args:
            engine: the other engine.
        """
        self._end_last()
        self.engine = engine
        self.messages = [replace(message, ids=None) for message in self.messages]
        self.asked, self.last, self._unread, self.left_out = [], None, [], 0
        self._complete_replies.clear()

    def undo(self) -> str | None:
        """Take back the last question and its reply; return the question, None if there is none."""
        self._unread = []  # with the room that there is now, turns may be read again
        if self.turns and self.messages[-1].role == "assistant":
            self.messages.pop()
        if self.turns and self.messages[-1].role == "user":
            return self.messages.pop().content
        return None

    def reset(self) -> None:
        """Remove all messages but the system message."""
        self._complete_replies.clear()
        self.messages, self._unread, self.left_out = self._opening(), [], 0

    def save(self, path: Path, *, private: bool = False) -> None:
        """Write the conversation to a JSON file, which only its owner can read if it is private.

        Raises:
            NfoxError: if the file cannot be written.
        """
        data = to_json(self.engine.model.name, self.engine.template.name, self.messages)
        write_saved(path, data, private=private)

    def load(self, path: Path) -> str | None:
        """Replace the messages by those of a JSON file; see `restore`."""
        return self.restore(read_saved(path), path)

    def restore(self, data: Any, where: str | Path) -> str | None:
        """Replace the messages by those of a JSON value; `where` it stands is for errors.

        The value is a saved conversation, a list of messages with "role" and "content", or a
        conversation of FastChat. Token ids are kept if the conversation was with this model and
        they spell the text of their reply.

        Returns:
            The name of the model that the conversation was with; None where that is not said.

        Raises:
            NfoxError: if it has none of these layouts; the messages stay as they are.
        """
        saved = parse_conversation(data, where, self.engine.model.name, self._spells)
        self.messages, self._unread, self.left_out = saved.messages, [], 0
        self._complete_replies, self.asked, self.last = [], [], None
        return saved.model

    def _spells(self, ids: Sequence[int], text: str) -> bool:
        """Return whether token ids can be those of a reply with this text: a token without text may
        be the beginning of another message.
        """
        model = self.engine.model
        beyond = max(ids) >= model.target.vocabulary_size
        stopping = self.engine.stop_ids.intersection(ids)
        return not beyond and not stopping and spells(model.tokenizer, ids, text)
