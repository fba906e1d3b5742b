"""From options to how models are loaded."""

from __future__ import annotations

import re
from dataclasses import replace

from nfox.errors import UsageError
from nfox.models.options import ModelOptions

from .options.engine import ModelArguments


def model_options(model: ModelArguments) -> tuple[ModelOptions, ModelOptions]:
    """Return how the target is loaded, and how a draft model is loaded.

    Raises:
        UsageError: if options contradict each other, or a limit of memory is malformed.
    """
    target = ModelOptions(
        dtype=model.dtype,
        quantisation=model.quantisation,
        compile=model.compile,
        reproducible=model.reproducible,
        attn=model.attn,
        device=model.device,
        device_map=model.device_map,
        max_memory=_memory_limits(model),
        revision=model.revision,
        offline=model.offline,
        trust_remote_code=model.trust_remote_code,
        adapter=model.adapter,
        threads=model.threads,
    )
    return target, replace(target.for_draft(), quantisation=model.draft_quantisation)


def parse_pairs(texts: list[str], option: str) -> dict[str, str]:
    """Return the values of an option's NAME=VALUE texts by their names.

    Raises:
        UsageError: for a text that is no such pair.
    """
    malformed = next((text for text in texts if "=" not in text.strip("=")), None)
    if malformed is not None:
        raise UsageError(f"{option} {malformed!r} is not NAME=VALUE")
    return dict((part.strip() for part in text.split("=", 1)) for text in texts)  # type: ignore[misc]


def _memory_limits(model: ModelArguments) -> dict[str, str]:
    """Return the most memory that the model may take on each device, by the device's name."""
    if model.max_memory and not model.device_map:
        raise UsageError("--max-memory limits a --device-map", "add --device-map auto")
    limits = parse_pairs(model.max_memory.split(",") if model.max_memory else [], "--max-memory")
    for device, size in limits.items():
        if not (_DEVICE.fullmatch(device) and _SIZE.fullmatch(size)):
            raise UsageError(
                f"--max-memory {device}={size}: expected a GPU's number, cpu or disk, and a size",
                "--max-memory 0=9GiB,cpu=500MB",
            )
    return limits


_DEVICE = re.compile(r"\d+|cpu|disk|mps")
_SIZE = re.compile(r"\d+(\.\d+)?[KMG]i?B")
