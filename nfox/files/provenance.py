"""Where distilled data come from: a file beside them, which also says what may be added to them.

Lines are known by the number of their question, so only the same questions, answered in the same
way, can be gone on with.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.files.atomic import write_text
from nfox.files.hub import read_json
from nfox.files.jsonl import WorkShare, finished_ids, locked
from nfox.text.messages import Message

Facts = dict[str, Any]
_LINELESS = "without_lines"
_TOLD = ("command", "data", "read")  # for the person to know; the same may be said in other words


def beside(out: Path) -> Path:
    """Return the file that says where another one comes from."""
    return out.with_name(f"{out.name}.provenance.json")


def digest(conversations: Sequence[Sequence[Message]]) -> str:
    """Return what tells the questions of one dataset from those of another."""
    found = hashlib.sha256()
    for messages in conversations:
        turns = [(m.role, m.content) for m in messages if m.role != "assistant"]
        found.update(json.dumps(turns).encode())
    return found.hexdigest()


def check(out: Path, asked: Mapping[str, Any], data: str) -> None:
    """See whether a file can be gone on with.

    Args:
        out: the file; it may be absent or empty.
        asked: what must be as it was when the file was begun; "questions" is their digest.
        data: name of the questions.

    Raises:
        UsageError: if it was made in another way, or nobody knows how, or it is a folder.
    """
    if out.is_dir():
        raise UsageError(
            f"{out} is a folder", f"name a file, such as --out {out / 'conversations.jsonl'}"
        )
    with locked(out):
        known = finished_ids(out)
    if not known:
        return
    if not beside(out).is_file():
        raise UsageError(
            f"{out} has {len(known)} conversations, but no {beside(out).name} says how they were "
            "made",
            "choose another --out",
        )
    stored = read_json(beside(out))
    odd = [name for name, value in asked.items() if stored.get(name) != value]
    if odd:
        said = [_difference(name, stored, {**asked, "data": data}) for name in odd]
        raise UsageError(
            f"{out} was begun with {', '.join(said)}", "choose another --out, or ask for the same"
        )


def _difference(name: str, stored: Facts, asked: Facts) -> str:
    if name == "questions" and stored.get("data") == asked["data"]:
        return f"another content of {asked['data']}"
    name = "data" if name == "questions" else name
    return f"{name} {stored.get(name)}, not {asked[name]}"


def begin(out: Path, facts: Facts, share: WorkShare) -> None:
    """Write down where a file comes from, before there is any of it.

    Args:
        out: the file.
        facts: what to say, with what `check` compares.
        share: this process's.
    """
    with locked(out):
        shares: Facts = {}
        stored = read_json(beside(out)) if out.exists() and beside(out).is_file() else {}
        if finished_ids(out):
            same = stored.get("processes") == share.size
            shares = dict(stored.get("shares", {})) if same else {}
        shares.pop(str(share.rank), None)
        # A file without lines may be begun in another way: what gave none may give some then.
        asked = {name: value for name, value in facts.items() if name not in _TOLD}
        if _LINELESS in stored and all(stored.get(name) == asked[name] for name in asked):
            facts = facts | {_LINELESS: stored[_LINELESS]}
        _write(out, facts | {"processes": share.size}, shares)


def lineless(out: Path) -> set[str]:
    """Return the names of the conversations which, as was found before, give no line."""
    with locked(out):
        known = read_json(beside(out)) if beside(out).is_file() else {}
    return set(known.get(_LINELESS, []))


def add_lineless(out: Path, name: str) -> None:
    """Remember that a conversation gives no line, so that it is not asked again.

    Args:
        out: the file; without a provenance beside it nothing is remembered.
        name: of the conversation.
    """
    with locked(out):
        if not beside(out).is_file():
            return
        out.touch()  # where the file is gone, so is what is remembered of it
        stored = read_json(beside(out))
        stored[_LINELESS] = [*stored.get(_LINELESS, []), name]
        _write(out, stored, stored["shares"])


def finish(
    out: Path, share: WorkShare, counts: Mapping[str, int], seconds: float
) -> Counter[str] | None:
    """Add what came of a process's share; return what came of all, once all are finished.

    Args:
        out: the file.
        share: this process's.
        counts: see `nfox.train.data.self_distillation.DistillCounts`.
        seconds: it took.
    """
    with locked(out):
        stored = read_json(beside(out))
        own = {"counts": dict(counts), "seconds": round(seconds)}
        shares = stored["shares"] | {str(share.rank): own}
        total = _write(out, stored, shares)
    return total if len(shares) == share.size else None


def _write(out: Path, facts: Facts, shares: Facts) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in shares.values():
        total.update(one["counts"])
    seconds = max((one["seconds"] for one in shares.values()), default=0)
    said = facts | {"counts": dict(total), "seconds": seconds, "shares": shares}
    write_text(beside(out), json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    return total
