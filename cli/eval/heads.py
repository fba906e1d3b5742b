"""`nfox eval heads`: how good heads are on a text, and the tree they promise the most with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.drafters import method_class, methods_with_heads, plain_method, ready_methods
from nfox.errors import UsageError

from .. import unused
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.chat import DisplayArguments
from ..options.dataclass_options import option
from ..options.engine import MethodArguments, ModelArguments
from ..printing import tell
from .results import report_left_out, save_result

if TYPE_CHECKING:
    from rich.console import Group

    from nfox.decoding.tree_shapes import TreeShape
    from nfox.drafters.common.heads import HeadsDrafter
    from nfox.engine import Engine
    from nfox.train.metrics import HeadsAccuracy

    from ..display.theme import Symbols


@dataclass(frozen=True)
class DataArguments:
    """What is measured on, and where the result goes."""

    data: Annotated[
        str | None, option("Data", "JSON, JSONL or a hub dataset of conversations.", "--data")
    ] = None
    limit: Annotated[int, option("Data", "Conversations at most.", "--limit", min=1)] = 200
    max_length: Annotated[
        int, option("Data", "Tokens of a conversation at most.", "--max-length", min=8)
    ] = 2048
    nodes: Annotated[
        int, option("Data", "Drafted nodes of a tree at most.", "--nodes", min=1, max=63)
    ] = 63
    out: Annotated[
        Path | None, option("Data", "Write the result as JSON, which --tree reads.", "--out")
    ] = None
    picture: Annotated[
        Path | None, option("Data", "Draw the result to this SVG file as well.", "--picture")
    ] = None


def heads(
    context: typer.Context, model: ModelArguments, method: MethodArguments, data: DataArguments
) -> None:
    """Measure heads on conversations, against what the target itself says there."""
    if data.data is None:
        raise UsageError("--data is missing", "nfox eval heads --heads FOLDER --data FILE.json")
    from ..display.pictures import check_file, draw
    from ..display.theme import make_screen
    from ..output_files import check_out

    check_out(data.out)
    check_file(data.picture)
    EngineArguments(model, method).check()
    plain = MethodArguments(method.method or plain_method())
    engine = EngineArguments(usual_model(model), plain).load()
    from nfox.decoding import tree_shapes
    from nfox.train.data.conversations import read_conversations
    from nfox.train.data.rows import Rows
    from nfox.train.heads.learner import HeadsLearner

    drafter = _heads_of(engine, method)
    _report_unused(context, engine, method)
    conversations = report_left_out(data.data, read_conversations(data.data))[: data.limit]
    length = min(data.max_length, engine.max_context)
    rows = Rows(conversations, engine.template, engine.model.tokenizer, length)
    seconds = drafter.measure_draft_seconds()
    heads, _ = drafter.load_heads(engine.model, drafter.name, engine.sources.hub)  # not packed
    measured = HeadsLearner(heads, engine.model.target).measure(rows)
    bounds = {"max_nodes": data.nodes, "max_width": drafter.max_width}
    largest = tree_shapes.fastest_shape(measured.accuracy, None, **bounds)
    fastest = tree_shapes.fastest_shape(measured.accuracy, engine.costs, seconds, **bounds)
    names = {"method": engine.method, "heads": drafter.name, "model": engine.model.name}
    tau = fastest.expected_tau(measured.accuracy)
    best = {"tree": fastest.paths, "tau": tau, "draft_seconds": seconds}
    sizes = {"data": data.data, "conversations": len(rows)}
    screen = make_screen(DisplayArguments())
    draw(drawing := picture(measured, len(rows), largest, fastest, screen.symbols), screen)
    means = {"loss": measured.loss, "accuracy": measured.accuracy, "places": measured.label_count}
    result = {**names, **sizes, **means, **best}
    save_result(result, data.out, drawing, data.picture, title=f"{engine.method} heads")


def _report_unused(context: typer.Context, engine: Engine, arguments: MethodArguments) -> None:
    """Print which options change nothing here."""
    drafting = [field.name for field in fields(arguments) if field.name != "method"]
    idle = dict.fromkeys((*drafting, *unused.DRAFTING[1:]), "the heads alone are measured")
    unused.report_typed(context, unused.of_loading(engine) | idle)


def _heads_of(engine: Engine, arguments: MethodArguments) -> HeadsDrafter:
    """Return the drafter with the heads that were named, or else with the best ones that lie beside
    the model.

    Raises:
        UsageError: if there are none, or another method was asked for.
    """
    from nfox.drafters.common.heads import HeadsDrafter

    if arguments.method is None:
        with_heads = methods_with_heads()
        ready = [
            name for name in ready_methods(engine.model.name, engine.sources) if name in with_heads
        ]
        if not ready:
            raise UsageError(f"there are no heads for {engine.model.name}", "add --heads FOLDER")
        engine.use(max(ready, key=lambda name: method_class(name).rank))
        if len(ready) > 1:
            others = ", ".join(name for name in ready if name != engine.method)
            tell(f"nfox: measured are those of {engine.method}; --method: {others}")
    if not isinstance(engine.drafter, HeadsDrafter):
        raise UsageError(f"{engine.method} has no heads to measure", "add --heads FOLDER")
    return engine.drafter


def picture(
    measured: HeadsAccuracy,
    conversations: int,
    largest: TreeShape,
    fastest: TreeShape,
    symbols: Symbols,
) -> Group:
    """Draw what was measured, and the tree to use.

    Args:
        measured: loss and accuracy of the heads.
        conversations: the number of those that were read.
        largest: the tree that promises the most tokens per step.
        fastest: the tree that promises the most tokens per second.
        symbols: to draw with.
    """
    from rich.console import Group
    from rich.text import Text

    from ..display.head_pictures import accuracy_bars, accuracy_table, tree_picture

    lines = [
        f"loss {measured.loss:.4f} over {measured.label_count} tokens of {conversations} "
        "conversations"
    ]
    for name, shape in (("largest tree", largest), ("best tree here", fastest)):
        tau = shape.expected_tau(measured.accuracy)
        lines.append(f"{name}: {len(shape)} nodes, {shape.depth} deep, tau {tau:.2f} to expect")
    return Group(
        accuracy_bars(accuracy_table(measured.accuracy), measured.accuracy, symbols),
        Text("\n".join(lines)),
        tree_picture(fastest, measured.accuracy, symbols),
    )
