"""The person's own editor, for messages that are longer than a line."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nfox.errors import UsageError
from nfox.files.reading import read_text, refusing

_USUAL = ("editor", "nano", "vim", "vi", "emacs", "notepad.exe")


def edit(text: str) -> str:
    """Return what becomes of a text in the person's editor: that of VISUAL, of EDITOR, or a usual
    one. Newlines at its end, which editors add, are left out.

    Raises:
        UsageError: if there is no editor, if it fails, or if what it leaves is no text.
    """
    with TemporaryDirectory(prefix="nfox-") as folder:
        file = Path(folder, "message.md")
        file.write_text(text, encoding="utf-8")
        edit_file(file, editor_command())
        return read_text(file).rstrip("\n")


def edit_file(file: Path, command: Sequence[str]) -> None:
    """Open a file in the person's editor, until it is closed.

    Args:
        file: the file.
        command: the words of `editor_command`.

    Raises:
        UsageError: if the editor fails.
    """
    with refusing(command[0], hint="VISUAL or EDITOR names the editor"), _lent_terminal():
        code = subprocess.run([*command, str(file)], check=False).returncode
    if code:
        raise UsageError(f"{command[0]} ended with code {code}; the text stays as it was")


def editor_command() -> list[str]:
    """Return the words of the command that starts the person's editor.

    Raises:
        UsageError: if there is none, or none is named where no terminal is for a usual one.
    """
    for variable in ("VISUAL", "EDITOR"):
        if named := os.environ.get(variable, "").strip():
            with refusing(f"{variable}={named}", "a command"):
                return shlex.split(named)
    usual = next(filter(shutil.which, _USUAL), None)
    if usual is None:
        raise UsageError("there is no editor", "VISUAL or EDITOR names the editor")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            f"{usual} needs a terminal", "VISUAL or EDITOR names an editor without one"
        )
    return [usual]


@contextmanager
def _lent_terminal() -> Iterator[None]:
    """Set the terminal as programs expect it, and leave Ctrl-C to the program that uses it."""
    from prompt_toolkit.input import create_input

    previous_handler = signal.signal(signal.SIGINT, lambda number, frame: None)
    previous_wakeup = signal.set_wakeup_fd(-1)  # by which a prompt would hear of it all the same
    try:
        with create_input().cooked_mode():
            yield
    finally:
        signal.set_wakeup_fd(previous_wakeup)
        signal.signal(signal.SIGINT, previous_handler)
