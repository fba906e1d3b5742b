"""`nfox generate`: many prompts in, one JSON line each out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from nfox.errors import ContextError, UsageError

from .grouped import grouped, option
from .loading import check, load_chat
from .options import GenerationArguments, MethodArguments, ModelArguments
from .progress import loading_display

if TYPE_CHECKING:
    from nfox.batch import Prompt


@dataclass(frozen=True)
class FileArguments:
    """Where prompts come from and where answers go."""

    texts: Annotated[
        list[str] | None, typer.Argument(help="Prompts. [default: the lines of stdin]")
    ] = None
    prompts: Annotated[
        str | None,
        option(
            "Files",
            "JSON lines: {id, prompt}, {id, messages} or {id, turns}; - is stdin.",
            "--prompts",
        ),
    ] = None
    out: Annotated[
        Path | None,
        option("Files", "Where lines are added; finished ids are skipped.", "--out"),
    ] = None
    debug: Annotated[bool, option("Files", "Show tracebacks.", "--debug")] = field(default=False)


def generate(
    files: FileArguments,
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
) -> None:
    """Answer prompts from arguments, stdin or a file; one JSON line each. Resumes by id."""
    check(model, method)
    prompts = _prompts(files)
    from nfox.batch import remaining
    from nfox.lines import finished_ids

    todo = remaining(prompts, finished_ids(files.out)) if files.out else prompts
    if not todo:
        print("nfox: all prompts are answered already", file=sys.stderr)
        return
    with loading_display(sys.stderr.isatty()) as told:
        chat = load_chat(model, method, generation, told=told)
    if files.out is None:
        refused = answer_all(chat, todo, sys.stdout)
    else:
        with files.out.open("a", encoding="utf-8") as lines:
            refused = answer_all(chat, todo, lines)
    if refused:
        raise ContextError(
            f"{refused} of {len(todo)} prompts were not answered to the end; see `error` there"
        )


def _prompts(files: FileArguments) -> list[Prompt]:
    """Collect the prompts; a source that is named twice is an error."""
    if files.texts and files.prompts:
        raise UsageError("prompts were given as arguments and as --prompts", "give one of them")
    if not files.texts and not files.prompts and sys.stdin.isatty():
        raise UsageError("no prompts", 'nfox generate "text", --prompts FILE, or a pipe')
    from nfox.batch import Prompt, parse_prompts

    if files.prompts == "-":
        return parse_prompts(sys.stdin, "stdin")
    if files.prompts:
        path = Path(files.prompts)
        if not path.is_file():
            raise UsageError(f"--prompts {path}: no such file")
        return parse_prompts(path.read_text(encoding="utf-8").split("\n"), str(path))
    texts = files.texts or [line.strip() for line in sys.stdin if line.strip()]
    return [Prompt(str(index), index, (), (text,)) for index, text in enumerate(texts)]


def answer_all(
    chat: Any,
    prompts: Sequence[Prompt],
    lines: TextIO,
    more: Callable[[dict[str, Any]], dict[str, Any]] = lambda line: {},
) -> int:
    """Answer all prompts, with a progress bar on a terminal; return how many were refused.

    Args:
        chat: that answers.
        prompts: in order.
        lines: where a JSON line goes for each.
        more: what to add to a line.
    """
    from rich.console import Console
    from rich.progress import track

    from nfox.batch import answer

    console = Console(stderr=True)
    quiet = not console.is_terminal or lines is sys.stdout
    refused = 0
    for prompt in track(prompts, f"{chat.method}", console=console, disable=quiet):
        line = answer(chat, prompt)
        refused += "error" in line
        lines.write(json.dumps(line | more(line), ensure_ascii=False) + "\n")
        lines.flush()
    return refused


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("generate")(grouped(generate))
