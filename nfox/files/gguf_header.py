"""The header of a GGUF file: what it says of a model, and where its tensors lie.

The package gguf reads the same in seconds for a vocabulary of a hundred thousand tokens, and what
it raises about a file that is not whole names neither the file nor the cause.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from nfox.errors import ModelError
from nfox.files.reading import refusing

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_FORMATS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
}
"""The types of metadata that have a fixed width, as `struct` names them."""
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a GGUF file.

    Args:
        shape: its rows first, as torch has them.
        type_id: the number of its type in GGUF.
        start: the first of its bytes in the file.
        size: the number of its bytes.
    """

    shape: tuple[int, ...]
    type_id: int
    start: int
    size: int

    @property
    def count(self) -> int:
        """The number of its elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the tensors of a GGUF file.

    Args:
        path: of the file.
        metadata: its values by their keys.
        tensors: by their names in GGUF.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @property
    def architecture(self) -> str:
        """The name of the model's architecture in GGUF."""
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str, default: Any = None) -> Any:
        """Return the value of a key that begins with the architecture's name."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def strings(self, key: str) -> list[str]:
        """Return the strings that a key has; [] if it has none, or something else."""
        values = self.metadata.get(key)
        is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
        return values if is_list and values else []


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file, all of whose tensors are there.

    Args:
        path: of the file.

    Raises:
        ModelError: if it is no GGUF file, or not whole, or has a tensor of an unknown type.
    """
    with refusing(path, error_type=ModelError, hint=_COPY_AGAIN), path.open("rb") as file:
        beginning = file.read(len(MAGIC))
        if beginning != MAGIC:
            found = f"begins with {beginning.decode('latin-1')!a}" if beginning else "is empty"
            raise ModelError(
                f"{path}: not a GGUF file: it {found}, and {MAGIC.decode()!a} was expected",
                _pointer_hint(beginning),
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(path, data).header()
            except (struct.error, IndexError, EOFError) as error:
                raise ModelError(f"{path}: the file ends within its header", _COPY_AGAIN) from error


def _pointer_hint(beginning: bytes) -> str:
    if beginning == b"vers":  # "version https://git-lfs..."
        return "this is a pointer of git-lfs and not the file itself: git lfs pull"
    return _COPY_AGAIN


class _Reader:
    """Reads from the beginning of a file on."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.position = path, data, len(MAGIC)

    def header(self) -> GgufHeader:
        (version,) = self.take("I")
        if version not in _VERSIONS:
            known = " and ".join(map(str, _VERSIONS))
            raise ValueError(f"GGUF of version {version}, where {known} (little-endian) are known")
        tensor_count, entry_count = self.take("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(entry_count):
            key = self.string()
            metadata[key] = self.value(*self.take("I"))
        entries = [self.tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise ValueError(f"general.alignment is {alignment!r}")
        start = -(-self.position // alignment) * alignment
        sizes = _type_sizes()
        tensors = {
            name: self.placed(name, shape, type_id, start + offset, sizes)
            for name, shape, type_id, offset in entries
        }
        return GgufHeader(self.path, metadata, tensors)

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.position)
        self.position += struct.calcsize(f"<{layout}")
        return values

    def string(self) -> str:
        (length,) = self.take("Q")
        end = self.position + length
        if end > len(self.data):
            raise EOFError
        text = self.data[self.position : end].decode("utf-8", "replace")
        self.position = end
        return text

    def value(self, kind: int) -> Any:
        if kind in _FORMATS:
            return self.take(_FORMATS[kind])[0]
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise ValueError(f"a value of type {kind}, which GGUF does not have")
        kind, count = self.take("IQ")
        if count > len(self.data) - self.position:  # one byte each at least
            raise EOFError
        if kind in _FORMATS:
            return list(self.take(f"{count}{_FORMATS[kind]}"))
        read: Callable[[], Any] = self.string
        if kind != _STRING:
            raise ValueError(f"a list of values of type {kind}, which no model has")
        return [read() for _ in range(count)]

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        (dimensions,) = self.take("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = self.take(f"{dimensions}Q")
        type_id, offset = self.take("IQ")
        return name, tuple(reversed(shape)), type_id, offset

    def placed(
        self,
        name: str,
        shape: tuple[int, ...],
        type_id: int,
        start: int,
        sizes: dict[int, tuple[int, int]],
    ) -> StoredTensor:
        """Return a tensor whose bytes are all in the file."""
        if type_id not in sizes:
            raise ModelError(
                f"{self.path}: {name} is of type {type_id}, which is not known here",
                "pip install -U gguf, or take a file with another quantisation (Q8_0, Q4_K_M, ...)",
            )
        block, size = sizes[type_id]
        if not shape or shape[-1] % block or not prod(shape):
            raise ValueError(f"{name} of shape {shape} has no whole blocks of {block}")
        size *= prod(shape) // block
        if start + size > len(self.data):
            raise ValueError(
                f"the file ends within {name}: it has {len(self.data):,} bytes, and "
                f"{start + size:,} are needed"
            )
        return StoredTensor(shape, type_id, start, size)


def _type_sizes() -> dict[int, tuple[int, int]]:
    """Return the elements and bytes in a block of each type."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
