"""Collect the Jacobi trajectories of a dataset's conversations in a file of JSON lines, which can
be resumed and written by several processes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nfox.errors import NfoxError
from nfox.files.atomic import write_text
from nfox.files.jsonl import WorkShare, append_lines, finished_ids, line_id, locked
from nfox.files.provenance import add_name_without_line, names_without_line
from nfox.text.messages import Message
from nfox.train.cllm.collector import Collector


@dataclass
class CollectCounts:
    """How many conversations of a dataset gave trajectories.

    Args:
        counts: the numbers of conversations that were "kept", of these "cut" where they began to
            repeat one token, were "repetitive" from the first block on, now or before, "failed", or
            were in the file "before"; and the number of "trajectories" that were written.
        last_error: why the last conversation failed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    last_error: str = ""


def collect(
    conversations: Sequence[Sequence[Message]],
    collector: Collector,
    out: Path,
    *,
    share: WorkShare | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> CollectCounts:
    """Collect the trajectories of conversations, and append those of each to a file when all its
    blocks are decoded.

    Args:
        conversations: the conversations, of which the first questions are answered.
        collector: the maker of the trajectories.
        out: JSON lines; conversations that are there already are skipped, and also, where a
            provenance is beside it, those whose answers were repetitive.
        share: this process's share of the conversations; all of them by default.
        on_done: is called with the number of conversations that were finished since the last call.
    """
    share = share or WorkShare()
    with locked(out):
        written = drop_unfinished(out)
    repetitive = names_without_line(out)
    result = CollectCounts()
    for number in share.of(len(conversations)):
        if str(number) in written:
            result.counts["before"] += 1
        elif str(number) in repetitive:
            result.counts["repetitive"] += 1
        else:
            _collect_one(number, conversations[number], collector, out, result)
        on_done(1)
    return result


def _collect_one(
    number: int,
    messages: Sequence[Message],
    collector: Collector,
    out: Path,
    result: CollectCounts,
) -> None:
    """Append the trajectories of one conversation to the file, and count it in `result`."""
    try:
        trajectories, repeating = collector.collect(number, messages)
    except (NfoxError, torch.OutOfMemoryError) as error:
        result.counts["failed"] += 1
        result.last_error = error.message if isinstance(error, NfoxError) else "out of memory"
        return
    result.counts["kept"] += bool(trajectories)
    result.counts["cut"] += bool(trajectories) and repeating
    result.counts["repetitive"] += not trajectories
    result.counts["trajectories"] += len(trajectories)
    if not trajectories:
        add_name_without_line(out, str(number))
        return
    # The last line has the id of the conversation: where it stands, so do the others.
    ids = [*(f"{number}/{index}" for index in range(len(trajectories) - 1)), str(number)]
    lines = [
        json.dumps({"id": line_id, **trajectory.record()})
        for line_id, trajectory in zip(ids, trajectories, strict=True)
    ]
    append_lines(out, "\n".join(lines) + "\n")


def drop_unfinished(out: Path) -> set[str]:
    """Remove the blocks of conversations that a file does not have to their end, and return the
    ids of the others.

    Such blocks stand in the middle of a file, where another process went on behind one that was
    killed.

    Raises:
        UsageError: if the file is not an output of `collect`.
    """
    line_ids = finished_ids(out)
    finished = {line_id for line_id in line_ids if "/" not in line_id}
    if {line_id.partition("/")[0] for line_id in line_ids} - finished:
        lines = list(enumerate(out.read_text(encoding="utf-8").split("\n")[:-1], 1))
        names = {
            number: line_id(out, number, line).partition("/")[0]
            for number, line in lines
            if line.strip()
        }
        kept = [line for number, line in lines if names.get(number) in finished]
        write_text(out.resolve(), "".join(f"{line}\n" for line in kept))  # a link stays one
    return finished
