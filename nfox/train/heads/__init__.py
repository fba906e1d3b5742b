"""Heads on a frozen base, or together with it."""
