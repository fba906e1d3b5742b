"""Typing at a chat in a pseudo-terminal, as a person does: keys, pastes, Ctrl-C at any time."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Callable

PATIENCE = 120.0  # seconds that a command may take
_ENTER, _CTRL_C, _TO_BEGINNING = b"\r", b"\x03", b"\x1b[1;5H"  # the last is Ctrl-Home
_ASKED, _ATTRIBUTES = b"\x1b[c", b"\x1b[?62c"  # a terminal for its kind, and what it says
_PROMPT = b"\x1b[?2004h"  # a prompt has begun: from now on pastes are told from keys
_PASTE = b"\x1b[200~%b\x1b[201~"


class Typist:
    """Types at a chat in a pseudo-terminal.

    Args:
        terminal: our end of the terminal.
        ended: returns whether the chat's process has ended.
    """

    def __init__(self, terminal: int, ended: Callable[[], bool]) -> None:
        self._terminal = terminal
        self._ended = ended
        self._written = b""
        self._caught_up = 0

    def until_prompt(self, after: bytes = b"", patience: float = PATIENCE) -> bytes:
        """Return what the chat writes until it asks for the next line.

        Args:
            after: a pattern of what it writes before, if it is known.
            patience: seconds that this may take.

        Raises:
            EOFError: if it ends.
            TimeoutError: if it does neither.
        """
        end = time.monotonic() + patience
        while not re.search(after + b".*" + re.escape(_PROMPT), self._written, re.DOTALL):
            if time.monotonic() > end:
                raise TimeoutError(self._written[-300:])
            if select.select([self._terminal], [], [], 0.2)[0]:
                self._read()
            elif self._ended():
                raise EOFError(self._written[-300:])
        written, self._written = self._written, b""
        return written

    def _read(self) -> None:
        try:
            written = os.read(self._terminal, 1 << 16)
            if _ASKED in written:
                self._write(_ATTRIBUTES)
            self._written += written
        except OSError:  # Linux, where the other end is closed
            raise EOFError(self._written[-300:]) from None

    def _catch_up(self) -> bytes:
        """Return what is written up to a prompt at which nothing waits: Ctrl-C may have come before
        or behind the end of a reply, and have made another prompt or none, or cleared a line. What
        was refused may stand in the line again: the word is put before it.
        """
        end = time.monotonic() + PATIENCE
        while True:
            self._caught_up += 1
            word = b"/caught-up-%d." % self._caught_up
            self._write(_TO_BEGINNING + word + b" " + _ENTER)
            try:
                return self.until_prompt(rb"command\s+" + re.escape(word), patience=2)
            except TimeoutError:
                if time.monotonic() > end:
                    raise

    def type(self, text: str, interrupt_after: float | None = None, keys: bytes = b"") -> bytes:
        """Paste a text and press Enter; return what is written up to the next prompt.

        Args:
            text: of the line, or of several.
            interrupt_after: seconds after which Ctrl-C is pressed; None for never.
            keys: that are pressed before Enter.
        """
        pasted = _PASTE % text.encode("utf-8", "surrogatepass")
        self._write(pasted + keys + _ENTER)
        if interrupt_after is not None:
            time.sleep(interrupt_after)
            self._write(_CTRL_C)
        written = self.until_prompt()
        return written if interrupt_after is None else written + self._catch_up()

    def clear_line(self) -> bytes:
        """Press Ctrl-C at the prompt."""
        self._write(_CTRL_C)
        return self.until_prompt()

    def resize(self, columns: int) -> None:
        """Change the window's size, at which the prompt is drawn anew."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._catch_up()

    def _write(self, data: bytes) -> None:
        while data:  # what is echoed must be read, or nobody reads on
            ready, takes, _ = select.select([self._terminal], [self._terminal], [])
            if ready:
                self._read()
            elif takes:
                data = data[os.write(self._terminal, data[:256]) :]
