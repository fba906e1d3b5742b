"""The embedded model: loaded when no other is named, without a network."""

from pathlib import Path

TARGET = Path(__file__).parent / "target"
"""Its folder; the draft model lies in `nfox/spec/` inside, where every method looks."""
