"""Lines without styles, on stdout and on stderr: the one place of the program that prints.

What is printed may name files, hold messages of libraries, or come from a model: it passes
`one_line`, so that none of it steers the terminal, or passes for a line of ours; a text that is
shown whole passes `sanitize`. `display.console` does the same for what is drawn, and
`clean_libraries` for what libraries log and warn of.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import re
import sys
import warnings
from traceback import format_exception
from typing import Any, TextIO

from typing_extensions import override

from nfox.controls import one_line, sanitize
from nfox.errors import UsageError

_BEYOND_ASCII = re.compile(r"[^\0-\x7f]+")


def say(*lines: object, end: str = "\n") -> None:
    """Print the lines of a result to stdout."""
    for line in lines:
        print(one_line(str(line)), end=end)


def say_whole(text: str) -> None:
    """Print a text to stdout with its line breaks and tabs, which are part of what it says."""
    print(sanitize(text))


def say_json(text: str) -> None:
    """Write JSON to stdout, and flush it.

    Args:
        text: lines that `json_text` made, with their ends.
    """
    sys.stdout.write(json_for(sys.stdout, text))
    sys.stdout.flush()


def say_document(text: str, *, is_html: bool) -> None:
    """Write a document to stdout as it is.

    Args:
        text: the document.
        is_html: whether it is HTML, in which each character can be written in ASCII: it says of
            itself that it is UTF-8, whatever the encoding of stdout is.

    Raises:
        UsageError: if the encoding lacks characters of another document.
    """
    encoding = sys.stdout.encoding or "utf-8"
    if is_html and not codecs.lookup(encoding).name.startswith("utf"):
        text = text.encode("ascii", "xmlcharrefreplace").decode()
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        lacking = f"stdout is in {encoding}, which has no {text[error.start]!a}"
        raise UsageError(lacking, "--out FILE writes UTF-8") from error
    sys.stdout.write(text)


def json_for(stream: TextIO, text: str) -> str:
    """Return JSON as a stream can write it: all beyond ASCII is escaped where its encoding is not
    UTF, or what that lacks would become "?", and a reader would take the rest for UTF-8.
    """
    if codecs.lookup(stream.encoding or "utf-8").name.startswith("utf"):
        return text
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def tell(*lines: object, end: str = "\n", whole: bool = False) -> None:
    """Print lines that are no result to stderr at once: where things are, and how far.

    Args:
        lines: the lines.
        end: what follows each.
        whole: leave it to the terminal to break lines that are longer than its rows, as where they
            will be copied; else they are broken between words.
    """
    for line in lines:
        text = one_line(str(line))
        if not whole and (width := _terminal_width()):
            text = "\n".join(_rows(text, width))
        print(text, end=end, file=sys.stderr, flush=True)


def _rows(text: str, width: int) -> list[str]:
    """Return a line broken between words, those after the first row indented."""
    if len(text) <= width:
        return [text]
    from textwrap import wrap

    return wrap(
        text,
        width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _terminal_width() -> int:
    """Return how long a row of stderr is; 0 where that is no terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    except (OSError, ValueError):
        return 0


def traceback_lines(error: BaseException) -> list[str]:
    """Return the lines of an error's traceback, indented: its message may have lines of its own."""
    return [f"  {one_line(line)}" for line in "".join(format_exception(error)).splitlines()]


class _CleanRecord(logging.LogRecord):
    """A record of a log whose message is one line, whoever logs it: it may quote a request."""

    @override
    def getMessage(self) -> str:
        if self.exc_info and self.exc_info[1] and not self.exc_text:  # as a formatter keeps it
            self.exc_text = "\n".join(traceback_lines(self.exc_info[1]))
        return one_line(super().getMessage())


class _OurWarnings(logging.Handler):
    """Prints the warnings of nfox, but not those of the libraries that it uses."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == "nfox":
            tell(f"nfox: {record.getMessage()}")


def silence_libraries() -> None:
    """Keep warnings of libraries from the person, who can do nothing about them: those of Python,
    unless they were asked for by its own options, those that are logged where no log was set up,
    and those of torch's C++. This is before torch is imported.
    """
    if not sys.warnoptions:
        warnings.showwarning = lambda *words, **more: None
    logging.lastResort = _OurWarnings(logging.WARNING)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def clean_libraries() -> None:
    """Let what any library logs or warns of pass `one_line`, too."""
    logging.setLogRecordFactory(_CleanRecord)
    written = warnings.formatwarning

    def clean_warning(*words: Any, **more: Any) -> str:
        return f"{one_line(written(*words, **more).rstrip())}\n"

    warnings.formatwarning = clean_warning
