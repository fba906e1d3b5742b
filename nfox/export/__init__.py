"""Other engines, one file each, with the layouts that they read. The name of an engine is that of
its file; files are listed, not imported, so that help texts need no torch.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfox.export.formats import ExportFormat


def engine_names() -> list[str]:
    """Return the names of all engines."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if module.name != "formats"
    )


def find_format(name: str) -> ExportFormat | None:
    """Return the export format of an engine; None if there is no engine of that name."""
    if name not in engine_names():
        return None
    export_format: ExportFormat = import_module(f"{__name__}.{name}").FORMAT
    return export_format
