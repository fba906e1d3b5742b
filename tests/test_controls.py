"""Text that goes out steers no terminal, breaks no line, and can be written."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from nfox.controls import json_text, one_line, sanitize

EVERYTHING = "".join(map(chr, (*range(0x3100), *range(0xD7F0, 0x10020), 0x1F98A, 0x10FFFF)))
STEERING = {*map(chr, (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F)))} - {"\n", "\t"}
STEERING |= {*map(chr, range(0x2066, 0x206A))}


def test_what_is_left_steers_nothing_and_all_else_is_left() -> None:
    clean = sanitize(EVERYTHING)
    assert not STEERING & set(clean)
    lost = set(EVERYTHING) - set(clean)
    assert lost - STEERING == {*map(chr, range(0xD800, 0xE000)), "\ufffe", "\uffff"}
    assert sanitize("\ud800") == "\ufffd"
    clean.encode()


def test_what_is_left_can_stand_in_xml() -> None:
    text = sanitize(EVERYTHING).replace("&", "").replace("<", "")
    assert ElementTree.fromstring(f"<a>{text}</a>").text == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b]52;c;QUJD\x07name", "]52;c;QUJDname"),
        ("a\r\nnfox: forged", "a nfox: forged"),
        ("over\rwritten\x0bdown\x85next\u2028last", "over written down next last"),
        ("two  words\tand 你好", "two  words and 你好"),
    ],
)
def test_a_line_stays_one(text: str, line: str) -> None:
    assert one_line(text) == line
    assert len(one_line(EVERYTHING).splitlines()) == 1


def test_json_says_the_same_in_characters_that_do_nothing() -> None:
    text = EVERYTHING[::-1]  # in which no two halves make a character
    value = {text: [text, "你好 🦊"]}
    text = json_text(value)
    assert not set(text) & STEERING and len(text.splitlines()) == 1
    text.encode()
    assert json.loads(text) == value
    assert "你好 🦊" in text
    assert json.loads(json_text(value, indent=1)) == value


def test_indented_json_has_a_line_for_what_an_object_holds_and_lists_of_numbers_on_one() -> None:
    value = {"rows": [{"ids": [1, [2, "c"]], "none": {}}, {}], "empty": [], "text": "a\nb"}
    assert json_text(value, indent=1).splitlines() == [
        "{",
        ' "rows": [',
        "  {",
        '   "ids": [1, [2, "c"]],',
        '   "none": {}',
        "  },",
        "  {}",
        " ],",
        ' "empty": [],',
        ' "text": "a\\nb"',
        "}",
    ]
