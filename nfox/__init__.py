"""nfox: a local language model answers faster by speculation, visibly and provably."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.version import __version__ as __version__

if TYPE_CHECKING:
    from nfox.conversation import Conversation
    from nfox.decoding.sampling import Sampling
    from nfox.engine import Engine
    from nfox.engine_summary import EngineSummary
    from nfox.errors import NfoxError
    from nfox.loader import load
    from nfox.models.options import LoadProgress, ModelOptions
    from nfox.reply import Exchange, Reply, Request, Settings, Update
    from nfox.reply_stream import ReplyStream
    from nfox.text.messages import Message
    from nfox.text.pieces import Piece

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "cli").is_dir():
    # In a source checkout nfox.cli and nfox.conversation_templates lie beside this folder.
    __path__.append(str(_ROOT))

_HOMES = {
    "Conversation": "conversation",
    "Engine": "engine",
    "EngineSummary": "engine_summary",
    "Exchange": "reply",
    "LoadProgress": "models.options",
    "Message": "text.messages",
    "ModelOptions": "models.options",
    "NfoxError": "errors",
    "Piece": "text.pieces",
    "Reply": "reply",
    "ReplyStream": "reply_stream",
    "Request": "reply",
    "Sampling": "decoding.sampling",
    "Settings": "reply",
    "Update": "reply",
    "load": "loader",
}

_FORMER_NAMES = {"Chat": "Engine", "Session": "Conversation"}
"""What 0.1.0 called them; they warn, and go with the next release."""

__all__ = [
    "Conversation",
    "Engine",
    "EngineSummary",
    "Exchange",
    "LoadProgress",
    "Message",
    "ModelOptions",
    "NfoxError",
    "Piece",
    "Reply",
    "ReplyStream",
    "Request",
    "Sampling",
    "Settings",
    "Update",
    "load",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import nfox` must not import torch."""
    if name in _FORMER_NAMES:
        import warnings

        now = _FORMER_NAMES[name]
        warnings.warn(f"nfox.{name} is nfox.{now} now", DeprecationWarning, stacklevel=2)
        name = now
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
