"""Files of answers: what `nfox bench --answers` writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..output_files import make_folder, write_out

if TYPE_CHECKING:
    from nfox.eval.bench.trials import Task, Trial


def write_answers(
    folder: Path,
    trials: Sequence[Trial],
    tasks: Sequence[Task],
    decode: Callable[[Sequence[int]], str],
    model: str,
    peers: Collection[str] = (),
) -> list[Path]:
    """Write one file of answers for every entrant; return which.

    Args:
        folder: that `check_folder` had nothing against.
        trials: of all entrants.
        tasks: that they are of.
        decode: gives a reply's text.
        model: name or folder of the target.
        peers: entrants that are other programs.

    Raises:
        NfoxError: if they cannot be written, as on a full disk.
    """
    from nfox.eval.answers.files import write

    make_folder(folder)
    texts = write(trials, tasks, decode, Path(model).name, peers)
    for name, text in texts.items():
        write_out(folder / name, text)
    return [folder / name for name in texts]
