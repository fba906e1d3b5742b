"""Bytes and texts that come from outside, as text whose characters every tokenizer can read.

Half of a surrogate pair is no character: JSON can escape one ("\\ud83d", an emoji that a program
cut in two), and Python puts one where bytes of an argument or of a stream are no UTF-8. Whatever is
no character becomes U+FFFD, the replacement character.
"""

from __future__ import annotations

import codecs

from nfox.errors import UsageError

BEGINNING = 1 << 16
"""The number of bytes or characters that tell a text from another file."""

BOM = "\ufeff"
"""The byte order mark, which Windows writes before texts in UTF-8."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def whole_characters(text: str) -> str:
    """Return a text with U+FFFD for every half of a surrogate pair; two that belong together are
    joined.
    """
    if not has_broken_characters(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def cleaned(text: str) -> str:
    """Return a text that was typed or piped, without a byte order mark at its beginning (that of
    `"$(cat file)"`), and with U+FFFD for what is no character.
    """
    return whole_characters(text).removeprefix(BOM)


def has_broken_characters(text: str) -> bool:
    """Return whether a text has halves of surrogate pairs, which no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def decode(data: bytes, where: object) -> str:
    """Return the text of bytes in UTF-8, without a byte order mark.

    Args:
        data: the bytes.
        where: the name of the file, for the error.

    Raises:
        UsageError: if they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: {decoding_complaint(error)}", SAVE_AS_UTF_8) from error


SAVE_AS_UTF_8 = "save it as UTF-8"


def decoding_complaint(error: UnicodeDecodeError) -> str:
    """Return in a few words why bytes are not UTF-8, and in which line."""
    data = error.object
    if data.startswith(_UTF_16):
        return "UTF-16, expected UTF-8"
    if b"\0" in data:
        return "not a text: it has bytes that are 0"
    line = data.count(b"\n", 0, error.start) + 1
    return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, in line {line}"


def check_beginning(data: bytes, where: object) -> None:
    """Refuse by its first bytes what is no text at all, as `check_escaped` does, before gigabytes
    are read.

    Args:
        data: the first bytes; they may end within a character.
        where: the name of the file, for the error.

    Raises:
        UsageError: if it is UTF-16, or no text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    check_escaped(decoder.decode(data), where)


def decode_escaped(data: bytes, where: object) -> str:
    """Return the text of bytes in UTF-8, without a byte order mark. Bytes that are no UTF-8 are in
    it as halves of surrogate pairs (Python's "surrogateescape").

    Args:
        data: the bytes.
        where: the name of the file, for the error.

    Raises:
        UsageError: if they are UTF-16, or no text.
    """
    text = data.decode("utf-8", "surrogateescape")
    check_escaped(text, where)
    return text.removeprefix(BOM)


def check_escaped(text: str, where: object) -> None:
    """Refuse what is no text at all.

    Args:
        text: what was read, with "surrogateescape" for bytes that are no UTF-8.
        where: the name of the file, for the error.

    Raises:
        UsageError: if it is UTF-16, or has both bytes that are no UTF-8 and bytes that are 0.
    """
    start = text[:2].encode("utf-8", "surrogateescape")
    if start in _UTF_16 or ("\0" in text and has_broken_characters(text)):
        decode(text.encode("utf-8", "surrogateescape"), where)
