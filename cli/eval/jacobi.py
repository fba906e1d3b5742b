"""`nfox eval jacobi`: what Jacobi iterations give on a model's own answers, and a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.errors import ContextError, UsageError

from .. import unused
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.chat import DisplayArguments
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..printing import tell
from .results import report_left_out, save_result

if TYPE_CHECKING:
    from rich.console import Group

    from nfox.engine import Engine
    from nfox.text.messages import Message
    from nfox.train.cllm.blocks import Block
    from nfox.train.cllm.statistics import JacobiStatistics

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


def jacobi(context: typer.Context, model: ModelArguments, arguments: JacobiArguments) -> None:
    """Measure Jacobi decoding in fixed blocks, as CLLMs are: what iterations give, and how.

    The chat's window slides instead, so that no guess is lost at the end of a block.
    """
    if arguments.data is None:
        raise UsageError("--data is missing", "nfox eval jacobi --model NAME --data FILE.jsonl")
    from ..display.pictures import check_file, draw
    from ..display.theme import make_screen
    from ..output_files import check_out

    check_out(arguments.out)
    check_file(arguments.picture)
    engine_arguments = EngineArguments.without_drafter(usual_model(model))
    engine_arguments.check()
    from nfox.train.cllm.statistics import summarise
    from nfox.train.data.tasks import read_tasks

    questions = read_tasks(arguments.data, arguments.schemas, replies=False)
    conversations = report_left_out(arguments.data, questions)[: arguments.limit]
    engine = engine_arguments.load()
    unused.report_typed(context, unused.without_drafter(engine))
    answers, refused = _answers(engine, conversations, arguments)
    statistics = summarise(answers, engine.stop_ids)
    names = {"model": engine.model.name, "data": arguments.data, "n": arguments.n}
    limits = {"max_new_tokens": arguments.max_new_tokens, "refused": refused}
    screen = make_screen(DisplayArguments())
    edge = screen.console.width if screen.console.is_terminal else None
    folded, unfolded = (
        picture(statistics, answers, engine.model.tokenizer, screen.symbols, width)
        for width in (edge, None)
    )
    draw(folded, screen)
    if refused:
        tell(f"{refused} of {len(conversations)} questions were left out: too long")
    result = {**names, **limits, **asdict(statistics)}
    save_result(result, arguments.out, unfolded, arguments.picture, title="Jacobi iterations")


def _answers(
    engine: Engine, conversations: Sequence[Sequence[Message]], arguments: JacobiArguments
) -> tuple[list[list[Block]], int]:
    """Answer the first question of every conversation.

    Returns:
        The blocks of each answer, and the number of questions that do not fit into the context.

    Raises:
        ContextError: if none fits.
    """
    from rich.progress import track

    from nfox.decoding.generate import Limits
    from nfox.train.cllm.statistics import decode_answer
    from nfox.train.cllm.trajectories import first_question

    from ..display.console import CleanConsole

    console = CleanConsole(stderr=True)
    bar: dict[str, Any] = {"console": console, "disable": not console.is_terminal}
    answers: list[list[Block]] = []
    limits = Limits(arguments.max_new_tokens, engine.max_context, engine.stop_ids)
    for number, messages in enumerate(track(conversations, "records", **bar)):
        prompt = engine.encode(first_question(messages))
        try:
            blocks = decode_answer(engine.model.target, prompt, arguments.n, limits, seed=number)
        except ContextError:
            continue
        answers.append(blocks)
    if not answers:
        raise ContextError(
            f"none of {len(conversations)} questions fits into the context of "
            f"{engine.max_context} tokens"
        )
    return answers, len(conversations) - len(answers)


def picture(
    statistics: JacobiStatistics,
    answers: Sequence[Sequence[Block]],
    tokenizer: Any,
    symbols: Symbols,
    width: int | None = None,
) -> Group:
    """Draw the statistics of Jacobi iterations, and a block that represents all.

    Args:
        statistics: of the answers.
        answers: the blocks of each answer.
        tokenizer: decodes the block's tokens.
        symbols: to draw with.
        width: the cells that the block is folded to; None leaves it as wide as it is.
    """
    from rich.console import Group
    from rich.text import Text

    from ..display.jacobi_picture import trajectory_picture
    from ..display.steps import visible_text

    block = representative_block(answers)
    texts = {
        token: visible_text(token, tokenizer, symbols) for state in block.states for token in state
    }
    odd = f" ({statistics.repetitive} repetitive ones left out)" if statistics.repetitive else ""
    lines = [
        f"{statistics.tokens} tokens in {statistics.blocks} blocks of {statistics.requests} answers"
        + odd,
        f"tokens per iteration     {statistics.tokens_per_iteration:6.2f}",
        f"iterations per block     {statistics.iterations_per_block:6.2f}, "
        f"{statistics.converge_steps:.2f} until nothing changes",
        f"fast-forwarded tokens    {statistics.fast_forwarded:6.2f} an iteration",
        f"stationary tokens        {statistics.stationary_per_block:6.2f} a block, "
        f"{statistics.stationary_per_request:.2f} an answer",
        "",
    ]
    return Group(Text("\n".join(lines)), trajectory_picture(block.states, texts, symbols, width))


def representative_block(answers: Sequence[Sequence[Block]]) -> Block:
    """Return the first of the longest blocks that took the median number of iterations."""
    blocks = [block for answer in answers for block in answer]
    length = max(len(block.tokens) for block in blocks)
    longest = [block for block in blocks if len(block.tokens) == length]
    median = sorted(len(block.states) for block in longest)[len(longest) // 2]
    return next(block for block in longest if len(block.states) == median)
