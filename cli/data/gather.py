"""The frame of the commands that prepare data: one process does its share of the work under a
progress bar, keeps a provenance beside the file, and prints the counts and the last error at the
end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nfox.errors import NfoxError

from ..display.progress import progress_bar
from ..printing import tell

if TYPE_CHECKING:
    from collections import Counter

    from nfox.files.jsonl import WorkShare
    from nfox.train.cllm.collect import CollectCounts
    from nfox.train.data.self_distillation import DistillCounts

OnDone = Callable[[int], None]
Counts = TypeVar("Counts", "DistillCounts", "CollectCounts")


def gather(
    out: Path, facts: dict[str, Any], share: WorkShare, count: int, work: Callable[[OnDone], Counts]
) -> tuple[Counts, Counter[str] | None]:
    """Do a process's share of the work, and print its counts on stderr.

    Args:
        out: the file that lines are appended to; its provenance is kept beside it.
        facts: the facts of the provenance.
        share: this process's share.
        count: the number of conversations that all processes have to do.
        work: does the share, and calls its argument with each number of conversations finished.

    Returns:
        The counts that `work` returned, and those of all processes, which only the last one to end
        knows; None in the others.

    Raises:
        NfoxError: if the disk is full.
    """
    from nfox.files import provenance
    from nfox.files.atomic import reporting_full_disk

    start = time.time()
    with reporting_full_disk(out, "what was written is whole", "free some space; the same goes on"):
        provenance.begin(out, facts, share)
        with progress_bar("conversations", len(share.of(count))) as on_done:
            result = work(on_done)
        total = provenance.finish(out, share, result.counts, time.time() - start)
    counts = ", ".join(f"{n} {name}" for name, n in sorted(result.counts.items()) if n)
    tell(f"{facts['read']}; {counts}; {out}")
    return result, total


def report_failures(
    counts: DistillCounts | CollectCounts, total: Counter[str] | None, made: str
) -> None:
    """Print the last error on stderr, if there was any.

    Args:
        counts: the counts of this process.
        total: the counts of all processes; None unless this is the last one to end.
        made: what was to be done with a conversation, "conversation was answered".

    Raises:
        NfoxError: if no process did so, neither now nor in an earlier run.
    """
    if total and not total["kept"] + total["cut"] + total["before"]:
        numbers = ", ".join(f"{n} {name}" for name, n in sorted(total.items()) if n)
        last = f"; the last error: {counts.last_error}" if counts.last_error else ""
        raise NfoxError(f"no {made}: {numbers}{last}")
    if counts.last_error:
        tell(f"the last one that failed: {counts.last_error}")
