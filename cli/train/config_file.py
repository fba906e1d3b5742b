"""Settings of a training in a YAML or JSON file, as they would be typed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nfox.errors import UsageError


def read_config(place: str) -> dict[str, Any]:
    """Read a config file.

    Raises:
        UsageError: if there is none, or it does not hold names and values.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        raise UsageError(f"{place}: no such config file", "settings are written --name value")
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except ValueError as error:
        raise UsageError(f"{place}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{place}: expected names and values, got {type(found).__name__}")
    return {str(key): value for key, value in found.items()}


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def typed(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield settings as they would be typed."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield f"--{name}={json.dumps(value)}"
        elif isinstance(value, list) and value:
            said = (json.dumps(item) if isinstance(item, dict) else str(item) for item in value)
            yield from (f"--{name}", *said)
        elif value is not None and value != []:
            yield f"--{name}={value}"
