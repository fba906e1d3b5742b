"""Consistency training: Jacobi trajectories, and a model that jumps along them."""
