"""What a file says, read within limits: text and JSON; `yaml_reading` has YAML.

Whatever a file causes, here or in the code that makes something of its content, passes one border
(`refusing`) and becomes one line: the file, the place in it, and what was expected.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from nfox.characters import BEGINNING, check_beginning, decoding_complaint, whole_characters
from nfox.errors import NfoxError, UsageError

MAX_BYTES = 1 << 26
"""The largest file that is read as one value; files of records may be larger."""

MAX_DEPTH = 200
"""How deep lists and objects may lie in one another; the parser of JSON has the same limit."""

# What the parser takes for an infinity, or no float can be made of.
_BEYOND_FLOATS = re.compile(r"\d{309}|\d[eE]\+?0*[1-9]\d\d")
# Half of a pair of \u escapes without the other half; it may follow escaped backslashes.
_LONE_SURROGATE = re.compile(
    r"(?<!\\)((?:\\\\)*)"
    r"(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F]"
    r"[0-9a-fA-F]{2})"
)


@contextmanager
def refusing(
    where: str | Path,
    expected: str = "",
    error_type: type[NfoxError] = UsageError,
    *,
    hint: str = "",
) -> Iterator[None]:
    """Raise whatever reading raises within this context as one line; errors of nfox pass, with
    this hint where they have none.

    Args:
        where: the file, and the place in it.
        expected: what should stand there; the hint says so.
        error_type: the type of the error, which has the exit code.
        hint: what to do about it, in place of what was expected.

    Raises:
        NfoxError: of `error_type`, in place of any other error.
    """
    hint = hint or (f"expected {expected}" if expected else "")
    try:
        yield
    except NfoxError as error:
        error.hint = error.hint or hint
        raise
    except Exception as error:  # nobody knows all that a wrong value causes behind its reader
        raise error_type(f"{where}: {describe(error)}", hint) from error


def describe(error: BaseException) -> str:
    """Return in a few words of one line what is wrong with what was read."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    elif isinstance(error, UnicodeDecodeError):
        text = decoding_complaint(error)
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
    elif isinstance(error, KeyError):
        text = f"{error.args[0]!r} is missing" if error.args else "a name is missing"
    elif isinstance(error, RecursionError):
        text = "nested too deep"
    elif isinstance(error, MemoryError):
        text = "too large for the memory"
    else:
        text = str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def read_text(path: Path, expected: str = "", error_type: type[NfoxError] = UsageError) -> str:
    """Return the text of a file in UTF-8, without a byte order mark.

    Args:
        path: the file.
        expected: what should stand in it, for the hint of the error.
        error_type: the type of the error.

    Raises:
        NfoxError: of `error_type`, if there is no such file, or it is too large or not UTF-8.
    """
    with refusing(path, expected, error_type):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("a folder" if path.is_dir() else "not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return data.decode("utf-8-sig")


def read_bytes(path: Path, *, packed: bytes = b"") -> bytes:
    """Return the bytes of a text file, however large.

    Args:
        path: the file.
        packed: how a file begins that may be no text all the same; b"" for none.

    Raises:
        UsageError: if the file cannot be read, or its beginning is no text.
    """
    with refusing(path):
        if path.is_char_device() or path.is_block_device():  # /dev/zero has no end
            raise ValueError("a device, expected a file")
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
            if not (packed and beginning.startswith(packed)):
                check_beginning(beginning, path)
            return beginning + file.read()


def read_json(
    path: Path,
    expected: str = "",
    error_type: type[NfoxError] = UsageError,
    *,
    non_finite: bool = False,
) -> Any:
    """Return the value that a JSON file holds; see `parse_json`.

    Raises:
        NfoxError: of `error_type`, if the file cannot be read, or is not JSON within the limits.
    """
    text = read_text(path, expected, error_type)
    return parse_json(text, path, expected, error_type, non_finite=non_finite)


def parse_json(
    text: str | bytes,
    where: str | Path,
    expected: str = "",
    error_type: type[NfoxError] = UsageError,
    *,
    non_finite: bool = False,
) -> Any:
    """Return the value of a JSON text.

    Half of a surrogate pair, which is no character, becomes U+FFFD.

    Args:
        text: the text; bytes are UTF-8.
        where: the file, and the place in it, for the error.
        expected: what should stand there, for the hint of the error.
        error_type: the type of the error.
        non_finite: whether NaN, infinities and numbers beyond all floats are read, as some programs
            write them.

    Raises:
        NfoxError: of `error_type`, if the text is not JSON within the limits.
    """
    with refusing(where, expected, error_type):
        text = (text if isinstance(text, str) else text.decode()).removeprefix("\ufeff")
        try:
            value = _parse(text, non_finite)
        except ValueError as error:
            reason = str(error).replace("recursion limit exceeded", "nested too deep")
            raise ValueError(f"not JSON: {reason}") from error
        if not non_finite and (found := _BEYOND_FLOATS.search(text)) and not _is_finite(value):
            line = text.count("\n", 0, found.start()) + 1
            raise ValueError(f"a number in line {line} is too large")
        return value


def _parse(text: str, non_finite: bool) -> Any:
    try:
        return from_json(text, allow_inf_nan=non_finite)
    except TypeError:  # Python reads bytes that are no UTF-8 as halves of pairs
        return from_json(whole_characters(text), allow_inf_nan=non_finite)
    except ValueError as error:
        if "hex escape" not in str(error):
            raise
        mended = _LONE_SURROGATE.sub(lambda match: match[1] + (match[2] or "\\ufffd"), text)
        return from_json(mended, allow_inf_nan=non_finite)


def _is_finite(value: Any) -> bool:
    """Return whether a float can be made of all numbers of a value."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict | list):
            rest.extend(item.values() if isinstance(item, dict) else item)
        elif isinstance(item, int | float) and not abs(item) <= sys.float_info.max:
            return False
    return True


def read_object(
    path: Path,
    expected: str = "",
    error_type: type[NfoxError] = UsageError,
    *,
    non_finite: bool = False,
) -> dict[str, Any]:
    """Return the JSON object that a file holds; see `parse_json`.

    Raises:
        NfoxError: of `error_type`, if the file cannot be read, or holds no JSON object.
    """
    value = read_json(path, expected, error_type, non_finite=non_finite)
    with refusing(path, expected, error_type):
        if not isinstance(value, dict):
            raise TypeError(f"expected a JSON object, got {json_type(value)}")
    return value


def json_type(value: Any) -> str:
    """Return what a value is called in JSON."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
