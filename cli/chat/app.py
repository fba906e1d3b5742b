"""A conversation at a terminal: its replies are drawn as they come, and what they cost is told.

Nothing that goes wrong may lose the conversation.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from nfox.errors import ContextError, NfoxError

from ..display.reply_stats import Speed, details, footer, status_row
from ..display.reply_view import ReplyView
from ..display.steps import StepRecord, StepRecorder, print_steps
from ..display.theme import Screen
from ..errors import print_error
from ..options.groups import DisplayArguments
from .interrupt import interruptible
from .saved_files import rescue_file, save_last

if TYPE_CHECKING:
    from nfox.conversation import Conversation
    from nfox.engine import Engine
    from nfox.reply import Reply, Update
    from nfox.text.template import Message

_DIM = Style(dim=True)
_NEARLY_FULL = 0.8  # of the context, from where on the person is told


class ChatApp:
    """The terminal program around a conversation.

    Args:
        conversation: the conversation.
        screen: where it is drawn.
        display: how much is shown.
        notes: where everything goes that is not a reply; by default with the replies.

    Attributes:
        kept: the conversation is written down after every reply.
        fold: hide reasoning.
        records: the steps of the last reply.
        asked: the messages that it answers.
        settings: that it was made with.
        typed: what the next input line starts with.
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
        self.screen = screen
        self.display = display
        self.kept = False
        self.fold = display.fold_thinking
        self.records: list[StepRecord] = []
        self.asked: list[Message] = []
        self.engine.settings = replace(self.engine.settings, keep_logits=display.verbose > 1)
        self.settings = self.engine.settings
        self.typed = ""

    @property
    def engine(self) -> Engine:
        """What answers."""
        return self.conversation.engine

    def say(self, text: str) -> None:
        """Print a line of the program's own."""
        self.notes.print(Text(text, _DIM))

    def send(self, text: str) -> None:
        """Ask something; if nothing of the reply was said, put the question back."""
        try:
            said = self.answer(self.conversation.send(text))
        except ContextError as error:
            self.typed = text
            raise ContextError(
                error.message, "/undo or /reset makes room; so does a larger --max-context"
            ) from error
        if not said:
            self.typed = text

    def answer(self, updates: Generator[Update]) -> bool:
        """Draw a reply as it comes; say whether there is any of it."""
        self.asked, self.settings = list(self.conversation.messages), self.engine.settings
        view = ReplyView(self.screen, fold=self.fold, thinking=self._thinking())
        recorder, speed = StepRecorder(self.engine.model.tokenizer, self.screen.symbols), Speed()
        # Closed at once, whatever fails: only then is what was said part of the conversation.
        with interruptible(self.engine), closing(updates):
            try:
                view.add((), Text(f"reading {self.screen.symbols.ellipsis}", _DIM))
                for update in updates:
                    if update.step is not None:
                        recorder.add(update.step)
                        speed.add(len(update.step.tokens), update.step.seconds.total)
                    width = self.screen.console.width
                    row = status_row(self.engine, speed, self.screen.symbols, width)
                    view.add(update.pieces, Text(row, _DIM))
            finally:
                view.close()
        self.records = recorder.records
        self._finish(self.engine.reply)
        self._keep()
        return bool(self.records)

    def _thinking(self) -> bool:
        """Whether the reply goes on inside <think>, as some templates begin it."""
        try:
            segments = self.engine.template.segments(self.asked)
        except NfoxError:  # which the reply itself will run into
            return False
        begun = self.asked[-1].content if self.asked[-1].role == "assistant" else ""
        prompt = "".join(segment.text for segment in segments).removesuffix(begun).rstrip()
        thought = "<think>" in begun or prompt.endswith("<think>")
        return thought and "</think>" not in begun

    def _finish(self, reply: Reply) -> None:
        """Print what follows a reply."""
        if not self.records:
            self.say("stopped before anything was said")
            return
        verbose = self.display.verbose
        if verbose:
            print_steps(self.records, self.screen, self.notes, trees=verbose > 1)
        if self.display.stats and not self.display.quiet:
            self.say(footer(self.engine, reply, self.screen.symbols, self.notes.width))
            for line in details(reply.stats, self.screen.symbols) if verbose else ():
                self.say(line)
        used = (reply.stats.prompt_tokens + reply.stats.tokens) / self.engine.max_context
        if reply.finish != "context" and used >= _NEARLY_FULL:
            self.say(f"the context is {used:.0%} full; /undo and /reset make room")

    def _keep(self) -> None:
        """Write the conversation down, so that a crash loses nothing."""
        if self.kept and self.conversation.turns and (wrong := save_last(self.conversation)):
            self.kept = False
            self.say(wrong)

    def rescue(self) -> None:
        """Write the conversation to a file of its own, if there is any, and say where."""
        if not self.conversation.turns:
            return
        try:
            file = rescue_file()
            self.conversation.save(file)
        except (OSError, NfoxError) as error:
            print_error(f"the conversation could not be saved: {error}")
        else:
            print(f"the conversation is in {file}; /load reads it", file=sys.stderr)
