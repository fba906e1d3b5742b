"""`nfox generate`: many prompts, each answered with one line of JSON."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.counting import counted
from nfox.errors import ContextError, NfoxError, UsageError

from .. import standard_input, unused
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.dataclass_options import option
from ..output_files import check_out
from ..printing import say_json
from ..processes import own_share, split_over_gpus
from .answering import answer_all

if TYPE_CHECKING:
    from nfox.batch import BatchPrompt
    from nfox.engine import Engine
    from nfox.files.jsonl import WorkShare


_SOURCES = 'nfox generate "TEXT", --prompts FILE, or lines in a pipe'


@dataclass(frozen=True)
class FileArguments:
    """Where prompts are read from, and where answers are written."""

    texts: Annotated[
        list[str] | None, typer.Argument(help="Prompts. [default: the lines of stdin]")
    ] = None
    prompts: Annotated[
        str | None,
        option(
            "Files",
            "JSON lines: {id, prompt}, {id, messages} or {id, turns}; a .txt of prompts; -: stdin.",
            "--prompts",
        ),
    ] = None
    out: Annotated[
        Path | None,
        option("Files", "Where lines are added; finished ids are skipped.", "--out"),
    ] = None
    gpus_per_process: Annotated[
        int,
        option("Files", "GPUs that a process splits the model over.", "--gpus-per-process", min=1),
    ] = 1


def generate(
    context: typer.Context, files: FileArguments, engine_arguments: EngineArguments
) -> None:
    """Answer prompts from arguments, stdin or a file; one JSON line each. Resumes by id.

    Several processes share a file of prompts under `accelerate launch -m nfox.cli generate ...`.
    """
    engine_arguments.check()
    check_out(files.out, "answers")
    engine_arguments = replace(engine_arguments, model=usual_model(engine_arguments.model))
    share = own_share(engine_arguments.model, files.gpus_per_process)
    prompts = _prompts(files, share)

    def load() -> Engine:
        model = split_over_gpus(engine_arguments.model, files.gpus_per_process)
        engine = replace(engine_arguments, model=model).load(quiet=share.rank > 0)
        unused.report_typed(context, unused.of_loading(engine) | unused.for_one_reply(engine))
        unused.report_idle_method(engine.drafter)
        return engine

    if not prompts:
        where = standard_input.NAME if files.prompts in (None, "-") else files.prompts
        raise UsageError(f"there are no prompts in {where}", _SOURCES)
    if files.out is not None:
        from .output import add_answers, depends_on

        options = depends_on(engine_arguments)
        refused = add_answers(files.out, prompts, share, load, options)
    else:
        refused = answer_all(load(), prompts, say_json)
    if refused:
        kind = ContextError if set(refused) == {ContextError.code} else NfoxError
        count = f"{len(refused)} of {counted(len(prompts), 'prompt')}"
        raise kind(f"{count} were not answered to the end; see `error` there")


def _prompts(files: FileArguments, share: WorkShare) -> list[BatchPrompt]:
    """Return the prompts of the arguments, of a file or of stdin.

    Raises:
        UsageError: if there are two sources or none, or if several processes cannot share them.
    """
    if files.texts and files.prompts:
        raise UsageError("prompts were given as arguments and as --prompts", "give one of them")
    from_stdin = files.prompts == "-" or not (files.texts or files.prompts)
    if share.size > 1 and from_stdin:
        raise UsageError("several processes cannot share stdin", "give --prompts FILE")
    if share.size > 1 and files.out is None:
        raise UsageError("several processes cannot share stdout", "give --out FILE")
    if from_stdin and files.prompts != "-" and sys.stdin.isatty():
        raise UsageError("there are no prompts", _SOURCES)
    if files.prompts not in (None, "-") and not Path(files.prompts).is_file():
        raise UsageError(f"--prompts {files.prompts}: no such file")
    from nfox.batch import BatchPrompt, parse_prompts, parse_texts
    from nfox.characters import cleaned, decode_escaped
    from nfox.files.reading import read_bytes
    from nfox.files.records import TEXT_ENDING

    if files.prompts == "-":
        return parse_prompts(standard_input.lines(), standard_input.NAME)
    if files.prompts:
        path = Path(files.prompts)
        parse = parse_texts if path.suffix == TEXT_ENDING else parse_prompts
        return parse(decode_escaped(read_bytes(path), path).split("\n"), str(path))
    lines = [] if files.texts else [line.strip() for line in standard_input.lines()]
    texts = map(cleaned, files.texts or filter(None, lines))
    return [BatchPrompt(str(index), index, (), (text,)) for index, text in enumerate(texts)]
