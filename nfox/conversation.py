"""A conversation: messages over several turns, kept whatever happens to a reply.

The state is the list of messages. The cache follows it by itself, through the longest common prefix
of token ids, so undo, regenerate and edit need no care here.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from nfox.engine import Engine
from nfox.errors import NfoxError, UsageError
from nfox.reply import Reply, Update
from nfox.reply_stream import ReplyStream
from nfox.text.messages import Message
from nfox.text.stream import decode_text

FORMAT = "nfox.conversation/1"


class Conversation:
    """Messages and the `Engine` that answers them.

    Args:
        engine: answers.
        system: the system message, or None for the template's own.
        history: False forgets everything after each reply.

    Attributes:
        messages: all turns so far, the system message first if there is one.
        last: the stream of the last reply, or of the one on its way; None before the first.
    """

    def __init__(self, engine: Engine, *, system: str | None = None, history: bool = True) -> None:
        self.engine = engine
        self.history = history
        self.messages: list[Message] = []
        self.last: ReplyStream | None = None
        self._ended: list[Message] = []  # the replies that the model itself ended
        if system is not None:
            self.system = system

    @property
    def system(self) -> str | None:
        """The system message; setting it keeps the turns."""
        first = self.messages[:1]
        return first[0].content if first and first[0].role == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        turns = self.turns
        self.messages = ([] if text is None else [Message("system", text)]) + turns

    @property
    def turns(self) -> list[Message]:
        """The messages without the system message."""
        return [message for message in self.messages if message.role != "system"]

    def send(self, text: str) -> ReplyStream:
        """Say something; return the stream of the reply, which joins the messages when it ends.

        However it ends, cancelled or closed, what was said of it is kept. Where nothing was said,
        the question is taken back, so that it can be asked again.

        Raises:
            NfoxError: if the question cannot be answered; it is taken back.
        """
        before = list(self.messages)
        if not self.history:
            self.reset()
        self.messages.append(Message("user", text))
        return self._answer(before)

    def regenerate(self) -> ReplyStream:
        """Answer the last question again; above temperature 0 with other random numbers.

        Raises:
            UsageError: if there is none.
        """
        before = list(self.messages)
        if self.messages and self.messages[-1].role == "assistant":
            self.messages.pop()
        if not self.turns:
            self.messages = before
            raise UsageError("there is nothing to answer again yet")
        return self._answer(before)

    def go_on(self) -> ReplyStream:
        """Go on with the last reply where it was cut, from the same tokens.

        Raises:
            UsageError: if it was not cut, or its tokens are not known.
        """
        last = self.messages[-1] if self.turns else None
        if last is None or last.role != "assistant":
            raise UsageError("there is no reply to go on with yet")
        if any(last is ended for ended in self._ended):
            raise UsageError("the last reply came to its end")
        if last.ids is None:
            raise UsageError("the last reply is known as text only, not by its tokens")
        return self._answer(list(self.messages))

    def _answer(self, before: list[Message]) -> ReplyStream:
        """Return the stream of a reply; `before` is what stands again if nothing is said."""
        asked = list(self.messages)
        try:
            stream = self.engine.stream(asked)
        except BaseException:
            self.messages = before
            raise
        self.last = stream.wrapped(self._keeping(stream, asked, before))
        return self.last

    def _keeping(
        self, stream: ReplyStream, asked: list[Message], before: list[Message]
    ) -> Generator[Update]:
        """Yield what a stream yields; at its end add the reply to the messages."""
        try:
            with closing(stream):
                yield from stream.updates()
        finally:
            reply = stream.reply
            if self.messages == asked:  # nobody has changed the conversation meanwhile
                said = reply.ids or reply.text or reply.finish != "interrupt"
                self.messages = self._with(asked, reply) if said else before
                self._ended += self.messages[-1:] if reply.finish == "stop" else []

    def _with(self, asked: list[Message], reply: Reply) -> list[Message]:
        """Return the messages and the reply to them, which goes on with the last if that is one."""
        begun = asked[-1]
        if begun.role != "assistant" or begun.ids is None:
            return [*asked, reply.message()]
        if reply.text and not reply.ids:  # cut inside a token: known as text only
            return [*asked[:-1], Message("assistant", begun.content + reply.text)]
        ids = (*begun.ids, *reply.ids)
        # Spelled anew: the cut may have been inside a character.
        text = decode_text(self.engine.model.tokenizer, ids).removeprefix(" ")
        return [*asked[:-1], Message("assistant", text, ids)]

    def undo(self) -> str | None:
        """Take back the last exchange; return the question, or None if there is none."""
        if self.turns and self.messages[-1].role == "assistant":
            self.messages.pop()
        if self.turns and self.messages[-1].role == "user":
            return self.messages.pop().content
        return None

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self._ended.clear()
        self.messages = [message for message in self.messages if message.role == "system"]

    def save(self, path: Path) -> None:
        """Write the conversation as JSON, token ids included.

        Raises:
            NfoxError: if the file cannot be written.
        """
        data = {
            "format": FORMAT,
            "model": self.engine.model.name,
            "template": self.engine.template.name,
            "messages": [_to_json(message) for message in self.messages],
        }
        try:
            path.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
        except OSError as error:
            raise NfoxError(f"cannot write {path}: {error.strerror}") from error

    def load(self, path: Path) -> None:
        """Read a conversation: our own, a list of role and content, or FastChat's.

        Token ids are kept if they were made with this model. On an error the present conversation
        stays as it is.

        Raises:
            NfoxError: if the file is not readable as one of these.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NfoxError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise NfoxError(f"{path} is not JSON: {error}") from error
        same = isinstance(data, dict) and data.get("model") == self.engine.model.name
        try:
            self.messages = _messages(data, keep_ids=same)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise NfoxError(
                f"{path} is not a conversation: expected {{'messages': [{{'role', 'content'}}]}}, "
                f"a list of these, or FastChat's layout ({error})"
            ) from error


def _to_json(message: Message) -> dict[str, Any]:
    ids = {} if message.ids is None else {"ids": list(message.ids)}
    return {"role": message.role, "content": message.content, **ids}


def _messages(data: Any, *, keep_ids: bool) -> list[Message]:
    """Turn any of the layouts that `Conversation.load` reads into messages."""
    if isinstance(data, dict) and "roles" in data:  # FastChat: [[role, text], ...]
        named = dict(zip(data["roles"], ("user", "assistant"), strict=True))
        turns = data["messages"][data.get("offset", 0) :]
        rows = [{"role": named[role], "content": text} for role, text in turns if text is not None]
        if data.get("system_message"):
            rows.insert(0, {"role": "system", "content": data["system_message"]})
    else:
        rows = data["messages"] if isinstance(data, dict) else data
    messages = []
    for row in rows:
        role, content = row["role"], row["content"]
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise ValueError(f"role {role!r} with content {content!r:.40}")
        ids = row.get("ids") if keep_ids else None
        messages.append(Message(role, content, tuple(map(int, ids)) if ids else None))
    return messages
