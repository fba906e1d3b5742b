"""What comes in is made of characters: U+FFFD where something is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import folder
import pytest

from nfox.characters import check_beginning, check_escaped, decode, decode_escaped, whole_characters
from nfox.errors import UsageError
from nfox.files.reading import read_bytes
from nfox.text.messages import Message
from nfox.text.resolve import resolve


def slowly(text: str) -> Iterator[str]:
    """Yield the characters of a text, found one by one."""
    rest = list(text)
    while rest:
        first = rest.pop(0)
        if "\ud800" <= first <= "\udbff" and rest and "\udc00" <= rest[0] <= "\udfff":
            yield chr(0x10000 + ((ord(first) - 0xD800) << 10) + ord(rest.pop(0)) - 0xDC00)
        else:
            yield "\ufffd" if "\ud800" <= first <= "\udfff" else first


def test_halves_of_pairs_become_one_character_or_none() -> None:
    for parts in product("a\ufeff😀\ud83d\ude00\udcff\0", repeat=4):
        text = "".join(parts)
        assert whole_characters(text) == "".join(slowly(text))
        assert whole_characters(text).encode().decode() == whole_characters(text)


def test_every_message_is_read_by_every_tokenizer() -> None:
    tokenizer: Any = folder.tokenizer()
    for text in (
        "caf\udce9",
        json.loads('"cut \\ud83d"'),
        b"\xed\xa0\x80".decode("utf-8", "surrogatepass"),
    ):
        message = Message("user", text)
        assert "\ufffd" in message.content
        assert tokenizer(message.content).input_ids


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("hi".encode("utf-16"), "UTF-16"),
        ("hi".encode("utf-16-be").join((b"\xfe\xff", b"")), "UTF-16"),
        ("a\nb\ncafé".encode("latin-1"), "byte 0xe9 at offset 7, in line 3"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not a text"),
    ],
)
def test_what_is_not_utf_8_is_named(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=f"FILE: .*{said}"):
        decode(data, "FILE")


def test_a_byte_order_mark_is_no_text_and_what_is_no_utf_8() -> None:
    assert decode(b"\xef\xbb\xbfhi", "FILE") == "hi"
    text = decode_escaped(b"\xef\xbb\xbfa\r\n\xff\ncaf\xc3\xa9", "FILE")
    assert text == "a\r\n\udcff\ncafé"
    for data in (b"\xff\xfeh\0i\0", b"\xfe\xff\0h", b"\xff\0"):
        with pytest.raises(UsageError, match="FILE"):
            decode_escaped(data, "FILE")
    check_escaped("a\0b", "FILE")  # odd, but a text
    check_beginning("a\0é".encode()[:-1], "FILE")  # cut within a character


def test_a_large_file_that_is_no_text_is_refused_by_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as written:
        written.write(b"\x88\0\0\0")
        written.truncate(1 << 40)  # takes no room
    with pytest.raises(UsageError, match="not a text"):
        read_bytes(file)
    with pytest.raises(UsageError, match="directory"):
        read_bytes(tmp_path)


@pytest.mark.parametrize("source", ["\ud83d", "{{ '\\ud83d' }}"])
def test_what_a_template_writes_is_read_by_every_tokenizer(source: str) -> None:
    tokenizer: Any = folder.tokenizer()
    asked = [Message("user", "hi")]
    texts = []
    for mark in ("\ufffd", source):
        tokenizer.chat_template = folder.TEMPLATE + mark
        texts.append(resolve(tokenizer, None).encode(tokenizer, asked))
    assert texts[0] == texts[1]
