"""Changes of what is valid: odd values in any place, and bytes that were flipped, cut or put in.

Each is drawn from a `random.Random`, so that a seed makes the same ones again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.1, 1e308, 1e-308, -0.0, "", "x",
    "\x00", "\ufffe", "\U0010ffff", "a" * 5000, [], {}, [[]], [None], {"type": "text"}, "</s>",
    [1, "x"], [-1], [10**6], ["user"] * 40, "\x1b[31m", "@reply0;", "{{ 7 * 7 }}", "{% x %}",
)  # fmt: skip
"""Values that nobody expects, wherever they stand."""

_UNWRITTEN = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e400", "1" * 5000, "01", "tru", "'x'", "1.0", "-",
    '"\\ud800"', '"\\udc00 \\ud83d\\ude00"', '"\\x"', '"', "/*c*/1", "[" * 100_000, "{" * 9,
    "[" * 150 + "]" * 150, "[" * 900 + "]" * 900, '{"a":' * 5_000, "1,", "", "1 2", "\ufeff",
)  # fmt: skip
"""What a program would not write for a value; some of it is JSON all the same."""

_MARK = "\ue000"
_JUNK = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b\x08\x00", b"\n", b"\r\n", b"{", b"]",
    b"\xed\xa0\x80", b"\x80\x04\x95", b"PK\x03\x04", b"- &a [*a]\n", b"!!python/name:os.system ",
    b"&a ", b"*a ", b"9" * 400, b" " * 1000, b"{%", b"}}", b"\x1b]0;x\x07",
)  # fmt: skip


def damage(content: bytes, numbers: random.Random) -> bytes:
    """Return bytes of which some were changed, cut out, repeated or put in."""
    changed = bytearray(content)
    for _ in range(numbers.choice((1, 1, 2, 5))):
        start = numbers.randrange(len(changed) + 1)
        end = min(len(changed), start + numbers.choice((1, 2, 8, 64, 1000)))
        kind = numbers.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] = numbers.randrange(256)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end]
        elif kind == 3:
            changed[start:start] = numbers.choice(_JUNK)
        elif kind == 4:
            del changed[start:]  # as a full disk leaves it
        else:
            changed[start:end] = numbers.randbytes(end - start)
    return bytes(changed)


def change_json(text: str, numbers: random.Random, *, pretty: bool = True) -> str:
    """Return a JSON text of which values were replaced, left out, moved, repeated or added."""
    value = json.loads(text)
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        value = _changed(value, numbers)
    # One place may get what no value can be written as.
    if numbers.random() < 0.3:
        place = numbers.choice([*_places(value), None])
        if place is None:
            value = _MARK
        else:
            place[0][place[1]] = _MARK
    indent = numbers.choice((None, 1)) if pretty else None
    written = json.dumps(value, ensure_ascii=numbers.random() < 0.5, indent=indent)
    for mark in (json.dumps(_MARK), f'"{_MARK}"'):
        written = written.replace(mark, numbers.choice(_UNWRITTEN))
    return written


def change_lines(text: str, numbers: random.Random) -> str:
    """Return JSON lines of which one was changed as JSON, or lines were moved, cut or repeated."""
    lines = text.splitlines()
    place = numbers.randrange(len(lines))
    kind = numbers.randrange(8)
    if kind == 0:
        lines.insert(place, lines[numbers.randrange(len(lines))])
    elif kind == 1:
        del lines[place]
    elif kind == 2:
        lines[place] = json.dumps(numbers.choice(ODD))
    else:
        lines[place] = change_json(lines[place], numbers, pretty=False)
    return "\n".join(lines) + numbers.choice(("\n", "\n", "\n", "", "\n\n", "\r\n"))


def any_of(
    *changes: Callable[[str, random.Random], str],
) -> Callable[[bytes, random.Random], bytes]:
    """Return a function that changes bytes in any of several ways, or damages them."""

    def change(content: bytes, numbers: random.Random) -> bytes:
        chosen = numbers.choice((*changes, None)) if numbers.random() < 0.9 else None
        if chosen is None:
            return damage(content, numbers)
        return chosen(content.decode(), numbers).encode("utf-8", "surrogatepass")

    return change


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a value as a list or dict and its index or key."""
    rest = [value]
    while rest:
        holder = rest.pop()
        if not isinstance(holder, dict | list):
            continue
        for key in [*holder] if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            rest.append(holder[key])


def _changed(value: Any, numbers: random.Random) -> Any:
    """Return a JSON value with one change; it may be changed itself."""
    places = list(_places(value))
    if not places or numbers.random() < 0.02:
        return numbers.choice(ODD)
    # Short lists and objects say more than the 100 numbers of a long one.
    holder, key = numbers.choice(places) if numbers.random() < 0.5 else _shallow(places, numbers)
    kind = numbers.randrange(10)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, elsewhere = numbers.choice(places)
        if elsewhere in other if isinstance(other, dict) else elsewhere < len(other):
            holder[key] = json.loads(json.dumps(other[elsewhere]))
    elif kind == 2 and isinstance(holder, dict):
        holder[numbers.choice(("x", "", key + "s", key.upper()))] = holder.pop(key)
    elif kind == 2:
        holder[key:key] = [holder[key]] * numbers.choice((1, 50))
    elif kind == 3:
        holder[key] = [holder[key]]
    elif kind == 4 and isinstance(holder[key], int | float):
        holder[key] = numbers.choice((-holder[key], holder[key] + 1, holder[key] * 10**9))
    elif kind == 5:
        holder[key] = str(holder[key])
    else:
        holder[key] = json.loads(json.dumps(numbers.choice(ODD)))
    return value


def _shallow(places: list[tuple[Any, Any]], numbers: random.Random) -> tuple[Any, Any]:
    return places[min(numbers.randrange(len(places)) for _ in range(4))]


def change_tensors(content: bytes, numbers: random.Random) -> bytes:
    """Return a safetensors file with another header, or another length of it."""
    if numbers.random() < 0.3:
        return damage(content, numbers)
    length = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + length].decode(), content[8 + length :]
    if numbers.random() < 0.5:
        header = change_json(header, numbers)
    elif numbers.random() < 0.5:
        # Half of an infinity's bits are those of a NaN: numbers that are none in 32 bits and in 16.
        start = numbers.randrange(len(rest) // 4) * 4
        rest = rest[:start] + numbers.choice((b"\x00\x00\x80\x7f", b"\xff" * 4)) + rest[start + 4 :]
    else:
        rest = damage(rest, numbers)
    changed = header.encode("utf-8", "surrogatepass")
    size = numbers.choice((len(changed),) * 9 + (2**63, 0, len(changed) + 1, 2**64 - 1))
    return size.to_bytes(8, "little") + changed + rest


def change_beginning(content: bytes, numbers: random.Random) -> bytes:
    """Return a file of which the first two thousand bytes were changed."""
    return damage(content[:2000], numbers) + content[2000:]


def change_source(text: str, numbers: random.Random) -> str:
    """Return a template's file whose Jinja source was changed."""
    value = json.loads(text)
    value["chat_template"] = _changed_source(value["chat_template"], numbers)
    return json.dumps(value)


def change_template(content: bytes, numbers: random.Random) -> bytes:
    """Return a Jinja source that was changed."""
    return _changed_source(content.decode(), numbers).encode()


def _changed_source(source: str, numbers: random.Random) -> str:
    place = numbers.randrange(len(source) + 1)
    cut = numbers.choice((0, 0, 1, 5, 30))
    return source[:place] + numbers.choice(_JINJA) + source[place + cut :]


def change_yaml(text: str, numbers: random.Random) -> str:
    """Return settings as YAML writes them, of which a line was changed."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in json.loads(text).items()]
    lines[numbers.randrange(len(lines))] += numbers.choice(_YAML)
    lines.insert(numbers.randrange(len(lines)), numbers.choice(_YAML))
    return "\n".join(lines) + "\n"


def change_toml(text: str, numbers: random.Random) -> str:
    """Return options as TOML writes them, of which a line was changed and one is new."""
    lines = text.splitlines()
    lines[numbers.randrange(len(lines))] += numbers.choice(_TOML)
    lines.insert(numbers.randrange(len(lines)), numbers.choice(_TOML))
    return "\n".join(lines) + "\n"


_TOML = (
    "", " x", "[", "[[serve]]", "[serve]", "[serve.port]", "[nowhere]", " # [x]", "seed = nan",
    "seed = " + "9" * 5000, "top-k = 1e999", "seed = 1979-05-27T07:32:00Z", "seed = 0x1F",
    "serve.port = 1", "stop = [[1], 2]", "stop = {a = 1}", '"" = 1', '"a\\n" = 1', "quiet = ''",
    "verbose = true", "a" + ".a" * 3000 + " = 1", "x = " + "[" * 3000, 'model = "\\ud800"',
    'system = """', "'seed' = -1", "top_p = 0.5", "no-live = true", "config = 'x'", "\x07",
)  # fmt: skip
_JINJA = (
    "", "{{", "%}", "{% if %}", "{{ x.y.z }}", "{{ messages[99].content }}", "{{ 1/0 }}",
    "{{ raise_exception('no') }}", "{{ ''.__class__.__mro__ }}", "{{ messages }}", "{% x %}",
    "{% for a in messages %}{% for b in messages %}{{ b.content }}{% endfor %}{% endfor %}",
    "{{ messages | tojson }}", "{% set x = messages.append({'role': 'user', 'content': 'x'}) %}",
    "{% include 'x' %}", "{{ range(10**12) | list }}", "\x00", "{{ 'a' | fox }}", "{{ bos_token }}",
    "{% generation %}", "{{ 10 ** 400 }}", "{# ", "@reply@0;", "{{ messages[0]['role'] + 1 }}",
)  # fmt: skip
_YAML = (
    "", " x", ": ", " {", " [", " &a", " *a", " - 1", " !!python/object:x {}", " !!binary aGk=",
    "a: &a [1, 2]", "b: *a", "<<: *a", "learning_rate: .nan", "? [1]", "--- x", "%YAML 9", "\t",
    "num_epochs: 1e999", "micro_batch_size: 2024-01-01", "x: 0x1F", "lr: 1_000", "bs: 1:30",
    "z: &z {<<: *z}", '"\\ud800": 1', "learning_rate: {a: 1}", "bf16: [yes, no]", "fp16: ~", "a: =",
    "base_model: !!int x", "num_epochs: " + "9" * 400, "output_dir: \x07", "seed: -1", "seed: 1.5",
)  # fmt: skip
