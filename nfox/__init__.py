"""nfox: a local language model answers faster by speculation, visibly and provably."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfox.chat import Chat
    from nfox.compose import load
    from nfox.conversation import Message
    from nfox.errors import NfoxError
    from nfox.loading import ModelOptions
    from nfox.reply import Reply, Settings, Update
    from nfox.sampling import Sampling
    from nfox.session import Session
    from nfox.stream import Piece

__version__ = "0.1.0"

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "cli").is_dir():
    # In a source checkout nfox.cli and nfox.conversation_templates lie beside this folder.
    __path__.append(str(_ROOT))

_HOMES = {
    "Chat": "chat",
    "Message": "conversation",
    "ModelOptions": "loading",
    "NfoxError": "errors",
    "Piece": "stream",
    "Reply": "reply",
    "Sampling": "sampling",
    "Session": "session",
    "Settings": "reply",
    "Update": "reply",
    "load": "compose",
}

__all__ = [
    "Chat",
    "Message",
    "ModelOptions",
    "NfoxError",
    "Piece",
    "Reply",
    "Sampling",
    "Session",
    "Settings",
    "Update",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import nfox` must not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
