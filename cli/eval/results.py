"""What all evaluations share: they report records that they left out, and save their results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.controls import json_text
from nfox.errors import UsageError

from ..output_files import write_out
from ..printing import say, tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nfox.text.messages import Message
    from nfox.train.data.conversations import ConversationDataset


def report_left_out(data: str, dataset: ConversationDataset) -> list[list[Message]]:
    """Return the conversations of a data set; print to stderr what was left out of it, if anything.

    Args:
        data: the file or data set, for the message.
        dataset: what was read from it.
    """
    if _lost(dataset) or dataset.unread:
        tell(f"nfox: {data}: {dataset.describe()}")
    return dataset.conversations


def require_all(data: str, dataset: ConversationDataset, expected: str) -> list[list[Message]]:
    """Return the conversations of a data set, for a score that a part of it would change.

    Args:
        data: the file or data set, for errors.
        dataset: what was read from it.
        expected: the layout of a record, for errors.

    Raises:
        UsageError: if a record was left out.
    """
    if lost := _lost(dataset):
        raise UsageError(
            f"{data}: {lost} of its records cannot be read as they are, so the score would be "
            "over others",
            f"expected {expected}",
        )
    return dataset.conversations


def _lost(dataset: ConversationDataset) -> int:
    return dataset.malformed + dataset.cut + dataset.unanswered


def save_result(
    result: Mapping[str, Any],
    out: Path | None,
    picture: RenderableType,
    drawing: Path | None,
    title: str,
) -> None:
    """Write a result and its picture, and print where they are.

    Args:
        result: as JSON has it.
        out: the file for the result, if any.
        picture: what was drawn of it.
        drawing: the SVG file for the picture, if any.
        title: of the picture.
    """
    from ..display.pictures import save

    if out:
        write_out(out, json_text(result, indent=1) + "\n")
    if drawing:
        save(picture, drawing, title)
    for file in filter(None, (out, drawing)):
        say(f"written to {shlex.quote(str(file))}")
