"""Records of JSON: from a file, from an address, or from a dataset on the hub."""

from __future__ import annotations

import gzip
import importlib.util
import io
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx

from nfox.characters import BOM, decode, decode_escaped, has_broken_characters
from nfox.errors import NfoxError, UsageError
from nfox.files.reading import parse_json, read_bytes, refusing

log = logging.getLogger(__name__)

TEXT_ENDING = ".txt"
"""Of files with a question on each line."""
_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_NO_RECORDS = (".provenance.json", "dataset_infos.json", "training.json", "tables.json")
_GZIP = b"\x1f\x8b"  # what begins so is gzipped, whatever its name
_LEAST_LIMIT, _MOST_PACKED = 1 << 28, 100  # JSON is packed to a tenth, zeros to a thousandth
_LAYOUT = "a list of records, or a record on each line"


def read_records(data_path: str, cache_dir: str | None = None) -> Iterable[Any]:
    """Return the records of a dataset, with None for a line that is not JSON in UTF-8. An escape in
    JSON that is half of a surrogate pair is U+FFFD.

    Args:
        data_path: a file with a JSON list, or with a JSON record on each line, gzipped or not, or
            a folder with one such file; a .txt file with a question on each line; the http address
            of JSON; or the id of a dataset on the hub, with its configuration after an @ if it has
            several, and its split after a colon ("train" without).
        cache_dir: the folder where downloads from the hub are kept; None is the hub's own folder.

    Raises:
        UsageError: if there is no such dataset, or it is not JSON, or not UTF-8.
        NfoxError: if it cannot be fetched.
    """
    if data_path.startswith(("http://", "https://")):
        return _parse(_fetch(data_path), data_path)
    path = Path(data_path).expanduser()
    if not path.exists():
        return _read_dataset(data_path, cache_dir)
    return (_texts if path.suffix == TEXT_ENDING else _parse)(_read(path), data_path)


def _read(path: Path) -> bytes:
    return read_bytes(_only_file(path) if path.is_dir() else path, packed=_GZIP)


def _only_file(folder: Path) -> Path:
    """Return the only file of records in a folder, as in a clone of a data set's repository.

    Raises:
        UsageError: if it has none, or several.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.name.endswith(_ENDINGS)]
    files = [path for path in files if not path.name.endswith(_NO_RECORDS)]
    names = [str(path.relative_to(folder)) for path in files]
    if not files and any(folder.rglob("*.ckpt")):
        raise UsageError(
            f"{folder} holds hidden states (.ckpt), which are computed anew as training goes",
            "name the JSON file of the conversations that they were made of",
        )
    if len(files) != 1:
        raise UsageError(
            f"{folder}: expected a file, or a folder with one; found "
            f"{f'{len(files)}: ' + ', '.join(names[:5]) if files else 'none'}",
            "name a JSON or JSONL file",
        )
    log.warning("%s: %s is read", folder, names[0])
    return files[0]


def _fetch(address: str) -> bytes:
    try:
        return httpx.get(address, follow_redirects=True, timeout=60).raise_for_status().content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise NfoxError(
            f"cannot read {address}: {line}", "check the network, or name a file"
        ) from error


def _texts(data: bytes, data_path: str) -> list[Any]:
    """Return the lines of a text file as records of questions."""
    lines = decode_escaped(data, data_path).split("\n")
    return [
        None
        if has_broken_characters(line)
        else {"messages": [{"role": "user", "content": line.strip()}]}
        for line in lines
        if line.strip()
    ]


def _parse(data: bytes, data_path: str) -> Iterable[Any]:
    """Return the records of a JSON list, a JSON object, or JSON lines."""
    if data.startswith(_GZIP):
        data = _unpack(data, data_path)
    text = decode_escaped(data, data_path)
    first, _, rest = text.partition("\n")
    if not text.lstrip().startswith("[") or (rest.strip() and _parse_line(first) is not None):
        return _parse_lines(text)  # a record may be a list, too
    text = decode(data, data_path)  # a part of a list cannot be left out
    records: list[Any] = parse_json(text, data_path, _LAYOUT, non_finite=True)
    return records


def _unpack(data: bytes, data_path: str) -> bytes:
    """Return gzipped bytes unpacked.

    Raises:
        UsageError: if they are damaged, or many more than text gives.
    """
    limit = _LEAST_LIMIT + _MOST_PACKED * len(data)
    with refusing(f"{data_path}: not readable", expected=_LAYOUT):
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit + 1)
        if len(unpacked) > limit:
            raise ValueError(f"{len(data):,} bytes unpack to more than {limit:,}")
        return unpacked


def _parse_lines(text: str) -> Iterator[Any]:
    """Yield the record of a text, or of each of its lines; None for a line that is not JSON.

    Args:
        text: the text, with "surrogateescape" for bytes that are no UTF-8.
    """
    whole = _parse_line(text)  # one record over several lines
    if whole is not None:
        yield whole
        return
    for line in text.split("\n"):
        if line.strip():
            yield _parse_line(line)


def _parse_line(text: str) -> Any:
    if has_broken_characters(text):
        return None
    try:
        return parse_json(text.removeprefix(BOM), "", non_finite=True)
    except UsageError:
        return None


def _read_dataset(data_path: str, cache_dir: str | None) -> Iterable[Any]:
    """Return the records of a dataset on the hub."""
    named, _, split = data_path.partition(":")
    name, _, configuration = named.partition("@")
    if data_path.endswith((".json", ".jsonl", ".gz")) or data_path.startswith((".", "/", "~")):
        raise UsageError(f"{data_path}: no such file", "check the path")
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(
            f"{data_path} is no file here, and to read it from the hub `datasets` is not installed",
            "pip install 'nfox[train]', or name a JSON file",
        )
    import datasets

    try:
        records: Iterable[Any] = datasets.load_dataset(
            name, *filter(None, [configuration]), split=split or "train", cache_dir=cache_dir
        )
    except (OSError, ValueError, RuntimeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise NfoxError(
            f"cannot read {data_path} from the hub: {line}", "check the id and the network"
        ) from error
    return records
