"""The imports that take seconds: torch, transformers, and what loads a model by them."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def import_engine() -> None:
    """Import all that an engine takes, in three quarters of the time that it takes by itself.

    The garbage collector rests meanwhile, and passes over what was imported for ever after: it
    would walk through these million objects again and again, which all stay up to the end.
    """
    if "nfox.loader" in sys.modules:  # to pass over would be what is no import
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("nfox.loader")
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
