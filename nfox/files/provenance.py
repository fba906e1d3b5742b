"""The provenance of a data file: a file beside it, which also says what may be added to the data.

A line is known by the number of its question, so a data file can be continued only with the same
questions, answered in the same way.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nfox.characters import whole_characters
from nfox.controls import json_text
from nfox.errors import UsageError
from nfox.files.atomic import write_text
from nfox.files.jsonl import WorkShare, finished_ids, locked
from nfox.files.reading import read_object, refusing

Facts = dict[str, Any]
_WITHOUT_LINES = "without_lines"
_INFORMATIVE = ("command", "data", "read")  # for the person; the same may be put in other words


class _Share(BaseModel, extra="allow", strict=True):
    """What a process made of its share."""

    counts: dict[str, int]
    seconds: float


class _Provenance(BaseModel, extra="allow", strict=True):
    """The facts of a provenance that more is made of than a comparison."""

    processes: int | None = None
    shares: dict[str, _Share] = {}
    without_lines: list[str] = []


def provenance_file(out: Path) -> Path:
    """Return the path of the file with the provenance of a data file."""
    return out.with_name(f"{out.name}.provenance.json")


def check(out: Path, asked: Mapping[str, Any], data: str) -> None:
    """Check that a data file can be continued.

    Args:
        out: the data file; it may be absent or empty.
        asked: the facts that must be as they were when the file was begun; "questions" is the
            digest of the questions.
        data: the name of the questions.

    Raises:
        UsageError: if the file was made in another way or in an unknown one, or is a folder.
    """
    if out.is_dir():
        raise UsageError(
            f"{out} is a folder", f"name a file, such as --out {out / 'conversations.jsonl'}"
        )
    with locked(out):
        ids = finished_ids(out)
    if not ids:
        return
    if not provenance_file(out).is_file():
        raise UsageError(
            f"{out} has {len(ids)} conversations, but no {provenance_file(out).name} says how they "
            "were made",
            "choose another --out",
        )
    stored = _read(out)
    asked = _as_written(asked)
    different = [name for name, value in asked.items() if stored.get(name) != value]
    if different:
        differences = [_difference(name, stored, {**asked, "data": data}) for name in different]
        raise UsageError(
            f"{out} was begun with {', '.join(differences)}",
            "choose another --out, or ask for the same",
        )


def _difference(name: str, stored: Facts, asked: Facts) -> str:
    """Return in words how the stored value of a fact differs from the one that is asked for."""
    if name == "questions" and stored.get("data") == asked["data"]:
        return f"another content of {asked['data']}"
    name = "data" if name == "questions" else name
    before, now = ("none" if value is None else value for value in (stored.get(name), asked[name]))
    return f"{name} {str(before)[:100]}, not {str(now)[:100]}"


def begin(out: Path, facts: Facts, share: WorkShare) -> None:
    """Write the provenance of a data file, before the file has any line.

    Args:
        out: the data file.
        facts: the facts to write, among them those that `check` compares.
        share: the share of this process.
    """
    with locked(out):
        shares: Facts = {}
        stored = _stored(out) if out.exists() else {}
        if finished_ids(out):
            same = stored.get("processes") == share.size
            shares = dict(stored.get("shares", {})) if same else {}
        shares.pop(str(share.rank), None)
        # A file without lines may be begun in another way: what gave none may give some then.
        asked = _as_written({key: fact for key, fact in facts.items() if key not in _INFORMATIVE})
        if _WITHOUT_LINES in stored and all(stored.get(name) == asked[name] for name in asked):
            facts = facts | {_WITHOUT_LINES: stored[_WITHOUT_LINES]}
        _write(out, facts | {"processes": share.size}, shares)


def names_without_line(out: Path) -> set[str]:
    """Return the names of the conversations that are known to give no line."""
    with locked(out):
        stored = _stored(out)
    return set(stored.get(_WITHOUT_LINES, []))


def add_name_without_line(out: Path, name: str) -> None:
    """Record that a conversation gives no line, so that it is not asked again.

    Args:
        out: the data file; without a provenance beside it nothing is recorded.
        name: the name of the conversation.
    """
    with locked(out):
        if not provenance_file(out).is_file():
            return
        out.touch()  # where the file is gone, so is what is recorded of it
        stored = _read(out)
        stored[_WITHOUT_LINES] = [*stored.get(_WITHOUT_LINES, []), name]
        _write(out, stored, stored.get("shares", {}))


def finish(
    out: Path, share: WorkShare, counts: Mapping[str, int], seconds: float
) -> Counter[str] | None:
    """Add the counts of a process's share to the provenance.

    Args:
        out: the data file.
        share: the share of this process.
        counts: see `nfox.train.data.self_distillation.DistillCounts`.
        seconds: it took.
    """
    with locked(out):
        stored = _read(out)
        result = {"counts": dict(counts), "seconds": round(seconds)}
        shares = stored.get("shares", {}) | {str(share.rank): result}
        total = _write(out, stored, shares)
    return total if len(shares) == share.size else None


def _as_written(facts: Mapping[str, Any]) -> Facts:
    """Return facts as a file has them: a name that is no UTF-8 cannot be written as it is."""
    written: Facts = json.loads(whole_characters(json.dumps(facts, ensure_ascii=False)))
    return written


def _write(out: Path, facts: Facts, shares: Facts) -> Counter[str]:
    """Write facts, and the counts of all shares; return the sum of these."""
    total: Counter[str] = Counter()
    for result in shares.values():
        total.update(result["counts"])
    seconds = max((result["seconds"] for result in shares.values()), default=0)
    facts = facts | {"counts": dict(total), "seconds": seconds, "shares": shares}
    write_text(provenance_file(out), json_text(facts, indent=1) + "\n")
    return total


def _stored(out: Path) -> Facts:
    """Return the provenance of a data file; an empty one if there is none."""
    return _read(out) if provenance_file(out).is_file() else {}


def _read(out: Path) -> Facts:
    """Return the provenance of a data file.

    Raises:
        UsageError: if there is none, or it is not one that nfox wrote.
    """
    file = provenance_file(out)
    with refusing(file, hint=f"choose another --out: it says how {out.name} was made"):
        facts = read_object(file)
        _Provenance.model_validate(facts)
        return facts
