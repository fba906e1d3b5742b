"""The terminal program: `nfox`, or `python -m nfox.cli`."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    import sys

    from .app import app

    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks becomes "?" instead of an error.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()
