"""The clipboard: by an escape sequence of the terminal, and by the tools that the desktop has.

The sequence (OSC 52) reaches the person's own machine through SSH, but not every terminal takes it,
and none says so; a tool says whether it worked, but only for the machine that it runs on.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

TERMINAL = "the terminal (OSC 52)"
"""The name of the way through the terminal, which cannot tell whether it works."""

_SECONDS = 5.0  # that a tool may take; some hang where their display is gone
_TOOLS = (  # the variable without which a tool has nothing to talk to, and its command
    ("TMUX", ("tmux", "load-buffer", "-w", "-")),  # tmux itself passes no OSC 52 on by default
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("", ("pbcopy",)),
    ("", ("clip.exe",)),
    ("", ("termux-clipboard-set",)),
)


def copy(text: str, terminal: IO[str] | None) -> list[str]:
    """Put a text on the clipboard, by every way that there is.

    Args:
        text: the text.
        terminal: what the escape sequence is written to; None for no terminal.

    Returns:
        The names of the ways that worked, as far as they can tell; that of the terminal is last.
    """
    ways = [command[0] for command in _there() if _run(command, text)]
    if terminal is not None:
        terminal.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")
        terminal.flush()
        ways.append(TERMINAL)
    return ways


def _there() -> Iterator[tuple[str, ...]]:
    """Yield the commands of the tools that are installed and have something to talk to."""
    for variable, command in _TOOLS:
        if (not variable or os.environ.get(variable)) and shutil.which(command[0]):
            yield command


def _run(command: tuple[str, ...], text: str) -> bool:
    """Run a tool; return whether it took the text."""
    # The one of Windows takes what is not UTF-16 for text of an old code page.
    data = text.encode("utf-16" if command[0] == "clip.exe" else "utf-8")
    nothing = subprocess.DEVNULL  # a tool that stays to serve the text would hold a pipe open
    try:
        subprocess.run(
            command, input=data, stdout=nothing, stderr=nothing, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def takes_sequences(terminal: IO[str]) -> bool:
    """Return whether a file is a terminal that knows escape sequences."""
    return terminal.isatty() and os.environ.get("TERM") != "dumb" and sys.platform != "win32"
