"""Optional packages that peers need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nfox.errors import ModelError


def package(name: str, install: str) -> Any:
    """Import an optional package.

    Args:
        name: of the module.
        install: the package's name for pip.

    Raises:
        ModelError: if it is not installed, or does not start.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(f"{install} is not installed", f"pip install {install}") from error
    except (ImportError, OSError, RuntimeError) as error:
        line = str(error).partition("\n")[0]
        raise ModelError(f"{install} does not start: {line}", f"pip install {install}") from error
