"""Trained layers on a target's hidden states: their layers, losses and weights on disk."""
