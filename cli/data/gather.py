"""What the commands that prepare data have in common: one process's share of the work, with a bar,
a provenance beside the file, and a line at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..display.progress import progress_bar

if TYPE_CHECKING:
    from collections import Counter

    from nfox.files.jsonl import WorkShare
    from nfox.train.cllm.collect import Collected
    from nfox.train.data.self_distillation import Replayed

OnDone = Callable[[int], None]
Kept = TypeVar("Kept", "Replayed", "Collected")


def gather(
    out: Path, facts: dict[str, Any], share: WorkShare, count: int, work: Callable[[OnDone], Kept]
) -> tuple[Kept, Counter[str] | None]:
    """Do a process's share of the work and say what came of it.

    Args:
        out: what is added to; its provenance is kept beside it.
        facts: of the provenance.
        share: of this process.
        count: of all that there is to do.
        work: does the share, and says after each piece how many were done.

    Returns:
        What `work` gave, and the counts of all processes, which only the last one to end knows.

    Raises:
        NfoxError: if the disk is full.
    """
    from nfox.files import provenance
    from nfox.files.atomic import reporting_full_disk

    start = time.time()
    with reporting_full_disk(out, "what was written is whole", "free some space; the same goes on"):
        provenance.begin(out, facts, share)
        with progress_bar("conversations", len(share.of(count))) as on_done:
            done = work(on_done)
        total = provenance.finish(out, share, done.counts, time.time() - start)
    said = ", ".join(f"{many} {what}" for what, many in sorted(done.counts.items()) if many)
    print(f"{facts['read']}; {said}; {out}", file=sys.stderr)
    return done, total
