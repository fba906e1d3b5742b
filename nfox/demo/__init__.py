"""The embedded model: loaded when no other is named, without a network."""

from pathlib import Path

TARGET = Path(__file__).parent / "target"
"""Its folder; the draft model lies in `nfox/spec/` inside, where every method looks."""

NAME = "embedded"
"""What it goes by, where a model is named."""

QUESTIONS = (
    "What can you do?",
    "Write a Python function that reverses a text.",
    "What is speculative decoding?",
)
"""Questions that it answers well, also in the middle of a conversation."""
