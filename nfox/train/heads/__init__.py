"""Heads that are trained on a frozen base, or jointly with it."""
