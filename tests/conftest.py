"""Settings of the whole suite: one thread per process, no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import torch

torch.set_num_threads(1)
