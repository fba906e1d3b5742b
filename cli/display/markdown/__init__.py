"""Markdown as it grows: what can no longer change is written once, and never drawn again."""
