"""The terminal program around a conversation: replies are drawn as they grow, with their numbers.

Nothing that goes wrong may lose the conversation.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from nfox.controls import one_line
from nfox.errors import ContextError

from ..display.console import hanging
from ..display.header import print_legend
from ..display.reply_stats import NAME_CELLS, Speed, details, empty_reply, footer, status_row
from ..display.reply_view import ReplyView
from ..display.step_table import print_table
from ..display.step_trees import print_trees
from ..display.steps import StepRecorder
from ..display.theme import Screen
from ..log.writer import LogWriter
from ..options.chat import DisplayArguments
from ..suspension import suspendable
from .context_notes import hinting_at_room, hints, no_longer_read
from .gain_notes import GainNotes
from .interrupt import interruptible
from .replies import KnownReply, Part, Replies
from .saved_files import Keeper, rescue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nfox.conversation import Conversation
    from nfox.engine import Engine
    from nfox.reply_stream import ReplyStream
    from nfox.text.pieces import Piece

    from ..display.steps import StepRecord

_DIM = Style(dim=True)


class ChatApp:
    """The terminal program around a conversation.

    Args:
        conversation: the conversation.
        screen: the screen that replies are drawn on.
        display: how much is shown.
        notes: the console for everything that is not a reply; by default that of the screen.

    Attributes:
        log: writes every turn to the log of conversations; None where nothing is kept.
        fold: whether thinking is hidden.
        replies: how all replies were made; which is the last one.
        candidates: the replies to the last question, where /retry has asked for several.
        gain: says where guesses gain nothing.
        in_chat: whether to say under a reply what can be typed next.
        explain_marks: whether to say once, under a reply, what its marks mean.
        next_input: the text that the next input line starts with.
        files: those that /load and /save have read this conversation from, or written it to.
    """

    def __init__(
        self,
        conversation: Conversation,
        screen: Screen,
        display: DisplayArguments,
        notes: Console | None = None,
    ) -> None:
        self.conversation = conversation
        self.notes = notes or screen.console
        self.screen, self.display = screen, display
        self.log: LogWriter | None = None
        self._keeper = Keeper("the conversation is", self.say)
        self.fold = display.fold_thinking
        self.replies = Replies()
        self.candidates: dict[int, KnownReply] = {}
        self.engine.use_settings(replace(self.engine.settings, keep_logits=True))  # for /steps
        self.next_input = ""
        self.files: set[Path] = set()
        self.in_chat = self.explain_marks = False
        self.gain = GainNotes(self.say)

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self.conversation.engine

    def say(self, text: str, indent: int = 0) -> None:
        """Print a line that is not of a reply.

        Args:
            text: the line.
            indent: the cells of the name that it begins with, behind which it goes on.
        """
        self.notes.print(hanging(Text(one_line(text), _DIM), indent, self.notes.width))

    def send(self, text: str, typed: str = "") -> None:
        """Send a message and draw the reply; without one, put the message into the next input, as
        it was typed if that is another text.
        """
        try:
            stream = self.ask(lambda: self.conversation.send(text))
        except ContextError:
            self.next_input = typed or text
            raise
        if self.log is not None and not self.conversation.history:
            self.log.begin()
        if not self.show_reply(stream):
            self.next_input = typed or text

    def ask(self, ask: Callable[[], ReplyStream]) -> ReplyStream:
        """Return the stream of a reply; say which turns it does not read, if they are others.

        Args:
            ask: asks for it.

        Raises:
            ContextError: if what must be read does not fit into the context.
        """
        before = self.conversation.left_out
        with hinting_at_room(self.conversation):
            stream = ask()
        left_out = self.conversation.left_out
        if left_out not in (0, before):
            self.say(no_longer_read(left_out, self.engine.max_context))
        return stream

    def show_reply(self, stream: ReplyStream) -> bool:
        """Draw a reply as it grows, and then its numbers.

        Args:
            stream: the reply on its way.

        Returns:
            Whether the reply has any token.
        """
        if self.log is not None:
            self._keeper.keep(partial(self.log.keep_question, self.conversation))
        recorder, exchange = StepRecorder(self.engine.model.tokenizer), self.conversation.last
        assert exchange is not None  # that of the stream
        part = Part(exchange, [], recorder.records)
        try:
            self._draw(stream, recorder, part.pieces)
        finally:  # whatever ended it: a part of the reply is part of the conversation
            self.replies.keep(self.conversation, part)
            self.keep(part)
        self._print_footer(part)
        return bool(part.records)

    def _draw(self, stream: ReplyStream, recorder: StepRecorder, pieces: list[Piece]) -> None:
        """Draw a reply as it grows, record its steps, and collect its pieces."""
        speed = Speed()
        status = partial(status_row, self.engine, stream.reply, speed, self.screen)
        # Closed at once, whatever fails: only then is the reply so far part of the conversation.
        thinking = stream.request.prompt.thinking
        with (
            interruptible(stream),
            stream,
            closing(ReplyView(self.screen, fold=self.fold, thinking=thinking)) as view,
            suspendable(view.pause, view.go_on),
        ):
            view.add((), lambda: Text(f"reading {self.screen.symbols.ellipsis}", _DIM))
            for update in stream.updates():
                pieces += update.pieces
                if update.step is not None:
                    recorder.add(update.step)
                    speed.add(len(update.step.tokens), update.step.times.total)
                view.add(update.pieces, status)

    def _print_footer(self, part: Part) -> None:
        """Print the steps, the footer and the warnings that follow a reply."""
        reply, records = part.exchange.reply, part.records
        if not records:
            self.say("stopped before anything was said")
            return
        if not reply.text.strip() and reply.finish == "stop" and not self.display.quiet:
            self.say(empty_reply(self.engine))
        self._explain_marks(records)
        verbose = self.display.verbose
        if verbose:
            (print_trees if verbose > 1 else print_table)(records, self.screen, self.notes)
        if self.display.stats and not self.display.quiet:
            self.say(footer(self.engine, part.exchange, self.screen.symbols, self.notes.width))
            for line in details(self.engine, reply, self.screen.symbols) if verbose else ():
                self.say(line, NAME_CELLS)
            self.gain.of_reply(self.engine, part, self.screen.symbols.tau)
        for line in hints(self.conversation, reply) if self.in_chat else ():
            self.say(line)

    def _explain_marks(self, records: Sequence[StepRecord]) -> None:
        """Print what the marks mean, under the first reply of a chat that has any."""
        marked = any(source != "bonus" for record in records for source in record.sources)
        if marked and self.explain_marks:
            self.explain_marks = False
            print_legend(self.engine, self.screen)

    def keep(self, part: Part | None = None) -> None:
        """Write the conversation to the log, so that a crash loses nothing; say where that fails,
        and where it works again.

        Args:
            part: the reply that has just ended, if one has.
        """
        if self.log is not None:
            known = [[], *self.replies.pieces(self.conversation.turns)][-1]
            reply, pieces = (part.exchange.reply, part.pieces) if part else (None, ())
            write = partial(self.log.keep, self.conversation, reply, pieces, known)
            self._keeper.keep(write)

    def leave(self) -> None:
        """Save the conversation somewhere if the last attempt to keep it has failed."""
        if self._keeper.failed:
            self.keep()
        if self._keeper.failed:
            self.rescue()

    def rescue(self) -> None:
        """Save the conversation, if there is any, to a new file, or print it."""
        if self.conversation.turns:
            rescue(self.conversation)
