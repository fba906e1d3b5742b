"""What a faster way to compute says of a model that it does not compute."""

from __future__ import annotations


class UnsupportedError(Exception):
    """Layers, sizes or a device are of another kind than this way of computing takes: another one
    is taken in its place. The message says what it is.
    """
