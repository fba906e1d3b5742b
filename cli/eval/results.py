"""What all evaluations share: they say what they left out, and keep what they have shown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.errors import UsageError

from ..output_files import write_out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nfox.text.template import Message
    from nfox.train.data.conversations import Conversations


def tell_left_out(data: str, found: Conversations) -> Conversations:
    """Say on stderr what was read where it is not all that there is; return it.

    Args:
        data: where it was read.
        found: there.
    """
    if _lost(found):
        print(f"nfox: {data}: {found.describe()}", file=sys.stderr)
    return found


def all_of(data: str, found: Conversations, expected: str) -> list[list[Message]]:
    """Return what was read, where a score over a part of it would be another score.

    Args:
        data: where it was read.
        found: there.
        expected: layout of a record.

    Raises:
        UsageError: if anything was left out.
    """
    if lost := _lost(found):
        raise UsageError(
            f"{data}: {lost} of its records cannot be read as they are, so the score would be "
            "over others",
            f"expected {expected}",
        )
    return found.kept


def _lost(found: Conversations) -> int:
    return found.skipped + found.cut + found.unanswered


def keep(
    result: Mapping[str, Any],
    out: Path | None,
    picture: RenderableType,
    drawing: Path | None,
    title: str,
) -> None:
    """Write what was measured and shown, and say where.

    Args:
        result: as JSON.
        out: where it goes, if anywhere.
        picture: of it.
        drawing: where that goes, if anywhere.
        title: of the picture.
    """
    from ..display.pictures import save

    if out:
        write_out(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    if drawing:
        save(picture, drawing, title)
    for file in filter(None, (out, drawing)):
        print(f"written to {shlex.quote(str(file))}")
