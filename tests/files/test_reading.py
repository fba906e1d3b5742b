"""What a file holds is read, or refused in one line that names it, whatever it holds."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from nfox.errors import ModelError, NfoxError, UsageError
from nfox.files.reading import (
    MAX_DEPTH,
    parse_json,
    read_json,
    read_object,
    read_text,
    refusing,
)
from nfox.files.records import read_records
from nfox.files.yaml_reading import parse_yaml


def _name(value: object) -> str:
    return repr(value)[:30]  # some have a million characters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "ä"]}', {"a": [1, 2.5, None, True, "ä"]}),
        ("\ufeff[1]", [1]),
        (b"\xef\xbb\xbf[1]", [1]),
        ("1000000000000000019884624838656", 1000000000000000019884624838656),  # of tokenizers
        ("1e308", 1e308),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("1e-400", 0.0),
        ('"1e999 NaN"', "1e999 NaN"),
        ('{"a": 1, "a": 2}', {"a": 2}),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\ud800!\udc00 \\ud800 \\\ud800"', "\ufffd!\ufffd \\ud800 \\\ufffd"),
        ('"\udcff"', "\ufffd"),  # as Python reads a byte that is not UTF-8
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
    ],
    ids=_name,
)
def test_json_is_read(text: str | bytes, value: Any) -> None:
    assert parse_json(text, "F") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "F: not JSON: EOF"),
        ("{} x", "not JSON: trailing characters at line 1 column 4"),
        ("[1,\n2,]", "not JSON: trailing comma at line 2"),
        (b'"\xff"', "not UTF-8: byte 0xff at offset 1"),
        ("NaN", "not JSON"),
        ("[-Infinity]", "not JSON"),
        ("[1,\n1e999]", "a number in line 2 is too large"),
        ("-1E+0309", "too large"),
        ("1" * 400, "too large"),
        ("1" * 10_000, "out of range"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested too deep"),
        ('{"a":' * 10**6, "nested too deep"),
        (r'"\ud8xx"', "escape"),
    ],
    ids=_name,
)
def test_other_json_is_refused_in_one_line(text: str | bytes, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_json(text, "F", "a list", ModelError)
    assert reason in caught.value.message
    assert caught.value.message.startswith("F: ")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 250
    assert caught.value.hint == "expected a list"


def test_what_other_programs_write_for_numbers_that_are_none_is_read_where_it_may_stand() -> None:
    assert parse_json("[Infinity, -1e999]", "F", non_finite=True) == [float("inf"), float("-inf")]


def test_a_file_is_read_or_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(file) == {"a": 1}
    assert read_text(file) == '{"a": 1}'
    file.write_text("[1]")
    assert read_json(file) == [1]
    with pytest.raises(UsageError, match="expected a JSON object, got a list"):
        read_object(file)
    for path, reason in {
        tmp_path / "none": "No such file",
        tmp_path: "a folder",
        Path("/dev/zero"): "not a regular file",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "a\0b": "null byte",
    }.items():
        with pytest.raises(UsageError, match=reason) as caught:
            read_text(path)
        assert caught.value.message.startswith(str(path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        read_text(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.files.reading.MAX_BYTES", 1 << 20)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # of which nothing is on the disk
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_json(tmp_path / "large")


class _Sizes(BaseModel):
    sizes: list[int]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: {}["a"], "F: 'a' is missing"),
        (lambda: int(float("inf")), "F: cannot convert float infinity to integer"),
        (lambda: _Sizes.model_validate({"sizes": [1, "x"]}), "F: sizes.1: Input should be"),
        (lambda: [].a, "F: 'list' object has no attribute 'a'"),  # type: ignore[attr-defined]
        (lambda: "\n".join(["a", "b"]).index("c"), "F: substring not found"),
        (lambda: next(iter([])), "F: StopIteration"),
        (lambda: bytes(1 << 62), "F: too large for the memory"),
        (lambda: repr(_deep()), "F: nested too deep"),
        (lambda: Path("/").write_text(""), "F: Is a directory"),
    ],
)
def test_whatever_a_value_causes_is_one_line(make: Any, reason: str) -> None:
    with pytest.raises(UsageError) as caught, refusing("F", "a thing"):
        make()
    assert caught.value.message.startswith(reason)
    assert caught.value.hint == "expected a thing"


def _deep() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


def test_our_own_errors_and_interrupts_pass_the_border() -> None:
    for passed in (NfoxError("said already"), KeyboardInterrupt()):
        with pytest.raises(type(passed)) as caught, refusing("F"):
            raise passed
        assert caught.value is passed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, yes, ~]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("a: 2024-01-01\nb: =", {"a": "2024-01-01", "b": "="}),
        ("d: &d {x: 1, y: 1}\ne: {<<: *d, y: 2}", {"d": {"x": 1, "y": 1}, "e": {"x": 1, "y": 2}}),
    ],
)
def test_yaml_is_read(text: str, value: Any) -> None:
    assert parse_yaml(text, "F") == value


_LISTS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
_MERGED = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: b: c", "F: not YAML: line 1: mapping values are not allowed here"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: values of the type"),
        ("a: 1\nb: !!binary aGk=", "line 2: values of the type"),
        ("a: !!set {x}", "values of the type"),
        ("a: !!timestamp x", "values of the type"),
        ("a: &a [*a]", "too many values, or nested too deep"),
        ("a0: &a0 [x]\n" + _LISTS, "too many values"),
        ("a0: &a0 {x: 1}\n" + _MERGED, "too many values"),
        ("[" * 10_000, "nested too deep"),
        ("? [1]\n: 2", "line 1: found unhashable key"),
        ("a: !!int x", "invalid literal"),
        ("1" * 5_000, "Exceeds the limit"),
        (r'a: "\ud800"', "surrogates not allowed"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("\0", "unacceptable character"),
        ("a: *b", "undefined alias"),
        ("a: x\n" * 100_000, "more than 262,144 characters"),
    ],
    ids=_name,
)
def test_other_yaml_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, "F", "names and values")
    assert reason in caught.value.message
    assert caught.value.message.startswith("F: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "expected names and values"


def test_records_that_unpack_to_far_more_than_text_does_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.files.records._LEAST_LIMIT", 1 << 16)
    file = tmp_path / "a.json.gz"
    file.write_bytes(gzip.compress(b'[{"a": 1}' + b' , {"a": 1}' * 100 + b"]"))
    assert len(list(read_records(str(file)))) == 101
    file.write_bytes(gzip.compress(b"[" + b" " * (1 << 22) + b"]"))
    with pytest.raises(UsageError, match="bytes unpack to more than"):
        read_records(str(file))
    with pytest.raises(UsageError, match="/dev/zero: a device"):
        read_records("/dev/zero")
