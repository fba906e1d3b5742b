"""What the shell completes behind an option: names that there are, and paths.

The one idea: an option of a name is completed alike in every command that has it. What completes is
imported when it is asked for, and none of it takes torch, since a shell waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from nfox.errors import NfoxError

from ..paths import NO_FILES, complete_path

Complete = Callable[[typer.Context, str], list[str]]
"""Returns the words to which what was typed of a value can be completed."""

WITHOUT_HEADS = ("cllm", "draft")
"""What is trained besides heads, by the names after `nfox train`."""


def model_names() -> list[str]:
    """Return the names of models: those that nfox knows, and those that the hub's cache has."""
    from nfox.demo import NAME
    from nfox.files.model_names import kept_repositories
    from nfox.known_models import KNOWN

    return [*KNOWN, NAME, *kept_repositories()]


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a model: its name, its folder or its GGUF file."""
    return [*_beginning(model_names(), incomplete), *_paths(incomplete, (".gguf",))]


def heads(context: typer.Context, incomplete: str) -> list[str]:
    """Complete trained weights: their hub id or folder."""
    from nfox.files.model_names import kept_repositories

    return [*_beginning(kept_repositories(), incomplete), *_paths(incomplete, NO_FILES)]


def _adapters(context: typer.Context, incomplete: str) -> list[str]:
    from nfox.demo import TARGET
    from nfox.files.model_names import adapters_beside

    names = adapters_beside(context.params.get("model") or str(TARGET))
    return [*_beginning(names, incomplete), *_paths(incomplete, NO_FILES)]


def _methods(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a method, or the last of several with commas between them."""
    from nfox.drafters import method_names

    return _last_of_several(method_names(), incomplete)


def _peers(context: typer.Context, incomplete: str) -> list[str]:
    from nfox.eval.peers import names

    return _last_of_several(names(), incomplete)


def _with_heads() -> list[str]:
    """Return the names of the methods with heads, by their source: to import them takes torch."""
    from nfox import drafters

    place = Path(drafters.__path__[0])
    sources = {name: (place / f"{name}.py").read_text("utf-8") for name in drafters.method_names()}
    return [name for name, source in sources.items() if "HeadsDrafter):" in source]


def trained(context: typer.Context, incomplete: str) -> list[str]:
    """Complete what `nfox train` trains."""
    return _beginning([*_with_heads(), *WITHOUT_HEADS], incomplete)


def layouts(context: typer.Context, incomplete: str) -> list[str]:
    """Complete whose layout `nfox export` writes."""
    from nfox.export import engine_names

    return _beginning([*_with_heads(), *engine_names()], incomplete)


def conversations(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the number of a conversation in the log, the newest first."""
    from ..log.database import ConversationLog

    log = ConversationLog()
    try:
        entries = log.entries() if log.path.is_file() else []
    except NfoxError:
        return []
    return _beginning((str(entry.id) for entry in entries), incomplete)


def known(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a model that nfox fetches by its name."""
    from nfox.known_models import KNOWN

    return _beginning(KNOWN, incomplete)


def _templates(context: typer.Context, incomplete: str) -> list[str]:
    from nfox.text.resolve import available

    names = ["list", "tokenizer", *available()]
    return [*_beginning(names, incomplete), *_paths(incomplete, (".json",))]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _last_of_several(names: Iterable[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _beginning(names, last)]


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return folders and files of these endings; none where what was typed is in no folder."""
    try:
        return sorted(complete_path(incomplete, suffixes))
    except (OSError, RuntimeError, ValueError):
        return []


COMPLETED: dict[str, Complete] = {
    "--model": models,
    "--base-model": models,
    "--draft-model": models,
    "--heads": heads,
    "--adapter": _adapters,
    "--method": _methods,
    "--methods": _methods,
    "--allow-method": _methods,
    "--peers": _peers,
    "--conv-template": _templates,
}
"""What completes the value of an option, by its long name."""
