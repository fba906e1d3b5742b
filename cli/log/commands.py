"""The commands of `nfox log`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from nfox.controls import json_text
from nfox.counting import counted
from nfox.errors import UsageError

from ..options.completion import conversations
from ..options.dataclass_options import option, refuse_stray_options
from ..output_files import check_new, write_out
from ..printing import say, say_document, say_json, say_whole, tell
from .exporting import exported

if TYPE_CHECKING:
    from .database import ConversationLog
    from .entry import Entry

_ID: dict[str, Any] = {"metavar": "ID", "autocompletion": conversations}
_MAYBE_ID = Annotated[
    int | None, typer.Argument(help="As `nfox log` lists it; the last one.", **_ID)
]
_IDS = Annotated[list[int] | None, typer.Argument(help="As `nfox log` lists them.", **_ID)]
Format = Literal["md", "json", "html", "fastchat"]
_JSON: tuple[Format, ...] = ("json", "fastchat")


@dataclass(frozen=True)
class ListArguments:
    """Which conversations are listed, and how."""

    limit: Annotated[
        int, option("Log", "The most of them; 0 for all.", "--limit", "-n", envvar=None, min=0)
    ] = 20
    as_json: Annotated[bool, option("Log", "As JSON.", "--json", envvar=None)] = False


@dataclass(frozen=True)
class ExportArguments:
    """What is exported, and where to."""

    all: Annotated[bool, option("Log", "All conversations.", "--all", envvar=None)] = False
    format: Annotated[
        Format | None,
        option(
            "Log",
            "json: as /load reads one, a list of several; fastchat: to train on; by the file's "
            "ending, or else json.",
            "--format",
            "-f",
            envvar=None,
        ),
    ] = None
    out: Annotated[
        Path | None, option("Log", "The file; stdout without it.", "--out", "-o", envvar=None)
    ] = None


@dataclass(frozen=True)
class DeleteArguments:
    """What is deleted."""

    all: Annotated[bool, option("Log", "All conversations.", "--all", envvar=None)] = False
    yes: Annotated[bool, option("Log", "Do not ask.", "--yes", "-y", envvar=None)] = False


def _log() -> ConversationLog:
    from .database import ConversationLog  # which takes pydantic

    return ConversationLog()


def log(context: typer.Context, arguments: ListArguments) -> None:
    """List, search, show, export and delete the conversations of the chat; alone it lists them."""
    if context.invoked_subcommand is not None:
        refuse_stray_options(context)
        return
    list_conversations(arguments)


def list_conversations(arguments: ListArguments) -> None:
    """List the conversations, the newest first."""
    entries = _log().entries(arguments.limit or None)
    if not entries and not arguments.as_json:
        tell("there is no conversation in the log yet")
    _print(entries, as_json=arguments.as_json)


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="All in one message.")],
    arguments: ListArguments,
) -> None:
    """List the conversations with a message that has all words, in capitals or not."""
    entries = _log().entries(arguments.limit or None, words)
    if not entries and not arguments.as_json:
        tell(f"no message has {' and '.join(words)}")
    _print(entries, as_json=arguments.as_json)


def show(number: _MAYBE_ID = None) -> None:
    """Print a conversation."""
    entry = _log().read(number)
    say(line_of(entry))
    for row in entry.rows:
        say("", f"{row.role}:")
        say_whole(row.content)


def export(arguments: ExportArguments, numbers: _IDS = None) -> None:
    """Write conversations to a file, or to stdout."""
    log = _log()
    chosen: Sequence[int | None] = _chosen(log, numbers, all=arguments.all) or [None]
    if arguments.out is not None:
        check_new(arguments.out, "conversation")
    entries = [log.read(number) for number in chosen]
    format = arguments.format or _ending(arguments.out)
    text = exported(entries, format)
    if arguments.out is None:
        if format in _JSON:
            say_json(text)
        else:
            say_document(text, is_html=format == "html")
        return
    write_out(arguments.out, text, "the log still has it")
    tell(f"{counted(len(entries), 'conversation')} in {arguments.out}")


def _ending(out: Path | None) -> str:
    """Return the format that the name of a file asks for; json where it asks for none.

    Raises:
        UsageError: if it asks for another one.
    """
    ending = "" if out is None else out.suffix.removeprefix(".").lower()
    if ending and ending not in (formats := get_args(Format)):
        raise UsageError(f"{out}: no format goes by .{ending}", f"-f {'|'.join(formats)} names one")
    return ending or "json"


def delete(arguments: DeleteArguments, numbers: _IDS = None) -> None:
    """Delete conversations for good."""
    log = _log()
    chosen = _chosen(log, numbers, all=arguments.all)
    if not chosen and not arguments.all:
        raise UsageError("which conversations?", "nfox log delete ID..., or --all")
    lines = [line_of(log.read(number)) for number in chosen]
    asks = bool(chosen) and not arguments.yes
    if asks and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask at whether to delete for good", "add --yes")
    say(*lines)
    if asks:
        typer.confirm("delete for good?", abort=True)
    for number in chosen:
        log.delete(number)
    tell(f"deleted {len(chosen)}")


def _chosen(log: ConversationLog, numbers: Sequence[int] | None, *, all: bool) -> list[int]:
    """Return the ids of the conversations that are meant.

    Raises:
        UsageError: if both some and all are.
    """
    if numbers and all:
        raise UsageError("--all leaves no ID to name", "leave one of them out")
    return [entry.id for entry in log.entries()] if all else list(dict.fromkeys(numbers or ()))


def _print(entries: Sequence[Entry], *, as_json: bool) -> None:
    if as_json:
        rows = [{**asdict(entry), "rows": None} for entry in entries]
        for row in rows:
            del row["rows"], row["version"]
        say_json(json_text({"conversations": rows}, indent=1) + "\n")
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    say(*(line_of(entry, width) for entry in entries))


def line_of(entry: Entry, width: int | None = None) -> str:
    """Return the line that stands for a conversation in a list.

    Args:
        entry: the conversation.
        width: cells that the line has at most, for which its title is cut; None for any number.
    """
    from rich.text import Text

    from nfox.files.model_names import short_name

    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.changed))
    before = f"{entry.id:>4}  {when}  {counted(entry.questions, 'turn'):>8}  "
    title, after = Text(entry.title), f"  ({short_name(entry.model).removeprefix('the ')})"
    if width is not None:
        title.truncate(max(width - len(before) - len(after), 8), overflow="ellipsis")
    return f"{before}{title.plain}{after}"
