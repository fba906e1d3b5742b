"""Other engines, one file each, with the layouts that they read. An engine's name is its file's
name; files are listed, not imported, so that help texts need no torch."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfox.export.formats import ExportFormat


def names() -> list[str]:
    """Return the names of all engines."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if module.name != "formats"
    )


def find(name: str) -> ExportFormat | None:
    """Return the engine of a name; None if there is none of that name."""
    if name not in names():
        return None
    found: ExportFormat = import_module(f"{__name__}.{name}").FORMAT
    return found
