"""Settings of a training that are read from a YAML or JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.files.reading import json_type, parse_json, read_text
from nfox.files.yaml_reading import parse_yaml

from .published_names import Setting, split

_CONFIG_FILES = ("configpath", "heads_config")
"""Settings whose values are files with further settings."""


def read_config(location: str) -> dict[str, Any]:
    """Return the settings of a config file by name.

    Args:
        location: the path of the file, which may begin with ~.

    Raises:
        UsageError: if there is no such file, or it does not hold names and values.
    """
    path = Path(location).expanduser()
    if not path.is_file():
        raise UsageError(f"{location}: no such config file", "settings are written --name value")
    text = read_text(path)
    parse = parse_json if path.suffix == ".json" else parse_yaml
    settings = parse(text, location, "names and values")
    if not isinstance(settings, Mapping):
        raise UsageError(f"{location}: expected names and values, got {json_type(settings)}")
    return {str(key): value for key, value in settings.items()}


def command_words(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of a command line with the same settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield f"--{name}={json.dumps(value)}"
        elif isinstance(value, list) and value:
            words = (json.dumps(item) if isinstance(item, dict) else str(item) for item in value)
            yield from (f"--{name}", *words)
        elif value is not None and value != []:
            yield f"--{name}={value}"


def settings_with_files(method: str, words: Sequence[str]) -> Iterator[Setting]:
    """Yield the settings of a command line, those of config files first, so that typed ones win.

    Args:
        method: the name after `nfox train`.
        words: the words after it: a config file or none, then settings.

    Raises:
        UsageError: if a config file is missing or cannot be used.
    """
    rest = list(words)
    if rest and not rest[0].startswith("-"):
        yield from settings_with_files(method, list(command_words(read_config(rest.pop(0)))))
    settings = list(split(rest))
    for name, values in settings:
        if name in _CONFIG_FILES:
            sizes = _read_sizes(method, values[0] if values else "")
            yield from [(name, values)] if sizes is None else split(list(command_words(sizes)))
    yield from ((name, values) for name, values in settings if name not in _CONFIG_FILES)


def _read_sizes(method: str, location: str) -> dict[str, Any] | None:
    """Return the sizes of heads from a config file of their own, as settings; None for the config
    of a model, as CTC-drafter has it: its draft module is a layer of that model.
    """
    sizes = read_config(location)
    if "architectures" in sizes or "model_type" in sizes:
        return None
    return {f"{method}_{name}": value for name, value in sizes.items()}
