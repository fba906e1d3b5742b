"""Records of JSON: from a file, from an address, or from a dataset on the hub."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx

from nfox.errors import NfoxError, UsageError

_GZIP = b"\x1f\x8b"  # what begins so is gzipped, whatever its name
_LAYOUT = "expected a list of records, or a record on each line"


def records(source: str, cache_dir: str | None = None) -> Iterable[Any]:
    """Return the records of a source, None for a line that is no JSON.

    Args:
        source: a JSON file (a list), a file of JSON lines, either of them gzipped or not, the
            http address of one, or a dataset's id on the hub, its configuration after an @ if it
            has several, its split after a colon (else "train").
        cache_dir: where a download from the hub is kept; None is the hub's own folder.

    Raises:
        UsageError: if there is nothing of that name, or it is no JSON.
        NfoxError: if it cannot be fetched.
    """
    if source.startswith(("http://", "https://")):
        return _parsed(_fetched(source), source)
    path = Path(source).expanduser()
    return _parsed(_read(path), source) if path.exists() else _hub(source, cache_dir)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path}: expected a file, found a folder", "name a JSON or JSONL file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: not readable: {error}") from error


def _fetched(address: str) -> bytes:
    try:
        return httpx.get(address, follow_redirects=True, timeout=60).raise_for_status().content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise NfoxError(
            f"cannot read {address}: {line}", "check the network, or name a file"
        ) from error


def _parsed(data: bytes, source: str) -> Iterable[Any]:
    """Return a list's records, one record, or one on each line (None where not)."""
    try:
        text = (gzip.decompress(data) if data.startswith(_GZIP) else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: not readable as text: {error}") from error
    if not text.lstrip().startswith("["):
        return _lines(text)
    try:
        found: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{source}: not JSON: {error}", _LAYOUT) from error
    return found


def _lines(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)  # one record over several lines
        return
    except json.JSONDecodeError:
        pass
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                yield None


def _hub(source: str, cache_dir: str | None) -> Iterable[Any]:
    """Return the records of a dataset on the hub."""
    named, _, split = source.partition(":")
    name, _, configuration = named.partition("@")
    if source.endswith((".json", ".jsonl", ".gz")) or source.startswith((".", "/", "~")):
        raise UsageError(f"{source}: no such file", "check the path")
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(
            f"{source} is no file here, and to read it from the hub `datasets` is not installed",
            "pip install 'nfox[train]', or name a JSON file",
        )
    import datasets

    try:
        found: Iterable[Any] = datasets.load_dataset(
            name, *filter(None, [configuration]), split=split or "train", cache_dir=cache_dir
        )
    except (OSError, ValueError, RuntimeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise NfoxError(
            f"cannot read {source} from the hub: {line}", "check the id and the network"
        ) from error
    return found
