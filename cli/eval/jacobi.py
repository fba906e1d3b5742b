"""`nfox eval jacobi`: what Jacobi iterations give on a model's own answers, and a picture of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nfox.errors import ContextError, UsageError

from ..load import check, load_plain
from ..options.dataclass_options import option
from ..options.groups import DisplayArguments, MethodArguments, ModelArguments
from .results import keep, tell_left_out

if TYPE_CHECKING:
    from rich.console import Group

    from nfox.engine import Engine
    from nfox.text.template import Message
    from nfox.train.cllm.blocks import Block
    from nfox.train.cllm.statistics import Iterations

    from ..display.theme import Symbols


@dataclass(frozen=True)
class JacobiArguments:
    """What is measured on, and where the result goes."""

    data: Annotated[
        str | None,
        option(
            "Data", "Conversations, GSM8K, Spider or CodeSearchNet: a file or hub id.", "--data"
        ),
    ] = None
    schemas: Annotated[
        Path | None, option("Data", "Spider's tables.json or folder of databases.", "--schemas")
    ] = None
    limit: Annotated[int, option("Data", "Records at most.", "--limit", min=1)] = 50
    n: Annotated[int, option("Data", "Tokens of a block.", "--n", min=1)] = 16
    max_new_tokens: Annotated[
        int, option("Data", "Tokens of an answer at most.", "--max-new-tokens", min=1)
    ] = 128
    out: Annotated[Path | None, option("Data", "Write the result as JSON.", "--out")] = None
    picture: Annotated[
        Path | None, option("Data", "Draw a block to this SVG file as well.", "--picture")
    ] = None
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


def jacobi(model: ModelArguments, arguments: JacobiArguments) -> None:
    """Measure Jacobi decoding in fixed blocks, as CLLMs are: what iterations give, and how.

    The engine's window slides instead, so that no guess is lost at the end of a block.
    """
    if arguments.data is None:
        raise UsageError("--data is missing", "nfox eval jacobi --model NAME --data FILE.jsonl")
    from ..display.pictures import check_file, draw
    from ..display.theme import make_screen
    from ..output_files import check_out

    check_out(arguments.out)
    check_file(arguments.picture)
    check(model, MethodArguments())
    from nfox.train.cllm.statistics import summarise
    from nfox.train.data.tasks import read

    told = read(arguments.data, arguments.schemas, replies=False)
    kept = tell_left_out(arguments.data, told).kept[: arguments.limit]
    engine = load_plain(model)
    answers, refused = _answers(engine, kept, arguments)
    found = summarise(answers, engine.stop_ids)
    names = {"model": engine.model.name, "data": arguments.data, "n": arguments.n}
    limits = {"max_new_tokens": arguments.max_new_tokens, "refused": refused}
    screen = make_screen(DisplayArguments())
    edge = screen.console.width if screen.console.is_terminal else None
    folded, whole = (
        picture(found, answers, engine.model.tokenizer, screen.symbols, width)
        for width in (edge, None)
    )
    draw(folded, screen)
    if refused:
        print(f"{refused} of {len(kept)} questions were left out: too long", file=sys.stderr)
    result = {**names, **limits, **asdict(found)}
    keep(result, arguments.out, whole, arguments.picture, title="Jacobi iterations")


def _answers(
    engine: Engine, kept: Sequence[Sequence[Message]], arguments: JacobiArguments
) -> tuple[list[list[Block]], int]:
    """Answer the first question of every record; return the blocks, and how many did not fit."""
    from rich.console import Console
    from rich.progress import track

    from nfox.decoding.generate import Limits
    from nfox.train.cllm.statistics import answer
    from nfox.train.cllm.trajectories import question

    console = Console(stderr=True)
    bar: dict[str, Any] = {"console": console, "disable": not console.is_terminal}
    found: list[list[Block]] = []
    limits = Limits(arguments.max_new_tokens, engine.max_context, engine.stop_ids)
    for number, messages in enumerate(track(kept, "records", **bar)):
        prompt = engine.encode(question(messages))
        try:
            blocks = answer(engine.model.target, prompt, arguments.n, limits, seed=number)
        except ContextError:
            continue
        found.append(blocks)
    if not found:
        raise ContextError(
            f"none of {len(kept)} questions fits into the context of {engine.max_context} tokens"
        )
    return found, len(kept) - len(found)


def picture(
    found: Iterations,
    answers: Sequence[Sequence[Block]],
    tokenizer: Any,
    symbols: Symbols,
    width: int | None = None,
) -> Group:
    """Draw what was measured, and the block that says most.

    Args:
        found: on the answers.
        answers: their blocks.
        tokenizer: spells tokens.
        symbols: to draw with.
        width: in cells that the block is folded to; None leaves it as wide as it is.
    """
    from rich.console import Group
    from rich.text import Text

    from ..display.jacobi_picture import trajectory_picture
    from ..display.steps import visible_text

    shown = representative_block(answers)
    texts = {
        token: visible_text(token, tokenizer, symbols) for state in shown.states for token in state
    }
    odd = f" ({found.repetitive} repetitive ones left out)" if found.repetitive else ""
    lines = [
        f"{found.tokens} tokens in {found.blocks} blocks of {found.requests} answers{odd}",
        f"tokens per iteration     {found.tokens_per_iteration:6.2f}",
        f"iterations per block     {found.iterations_per_block:6.2f}, "
        f"{found.converge_steps:.2f} until nothing changes",
        f"fast-forwarded tokens    {found.fast_forwarded:6.2f} an iteration",
        f"stationary tokens        {found.stationary_per_block:6.2f} a block, "
        f"{found.stationary_per_request:.2f} an answer",
        "",
    ]
    return Group(Text("\n".join(lines)), trajectory_picture(shown.states, texts, symbols, width))


def representative_block(answers: Sequence[Sequence[Block]]) -> Block:
    """Return a block to show: among the longest ones, the first one of usual speed."""
    every = [block for answer in answers for block in answer]
    length = max(len(block.tokens) for block in every)
    whole = [block for block in every if len(block.tokens) == length]
    usual = sorted(len(block.states) for block in whole)[len(whole) // 2]
    return next(block for block in whole if len(block.states) == usual)
