"""Distillation of a small draft model from its target."""
