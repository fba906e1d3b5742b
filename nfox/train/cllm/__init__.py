"""Consistency training (CLLM): Jacobi trajectories, and a model that is trained on them."""
