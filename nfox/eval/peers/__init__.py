"""Other programs that answer the same prompts with the same weights, in the same run."""

from __future__ import annotations

from importlib import import_module

from nfox.errors import UsageError
from nfox.eval.peers.base import Peer

_CLASSES = {
    "hf": "hf.Generate",
    "hf-assisted": "hf.Assisted",
    "hf-lookup": "hf.Lookup",
    "llama.cpp": "llama_cpp.LlamaCpp",
    "llama.cpp lookup": "llama_cpp_speculation.Lookup",
    "llama.cpp draft": "llama_cpp_speculation.Draft",
    "llama.cpp q8_0": "llama_cpp.Q80",
    "llama.cpp q4_0": "llama_cpp.Q40",
    "llama.cpp q4_1": "llama_cpp.Q41",
}
_PROGRAMS = {
    "hf": "transformers",
    "llama_cpp": "llama.cpp",
    "llama_cpp_speculation": "llama.cpp",
}


def names() -> list[str]:
    """Return the names of all peers."""
    return list(_CLASSES)


def program(name: str) -> str:
    """Return the program whose way to answer a peer is; of one that is not known, its own name."""
    return _PROGRAMS[_CLASSES[name].partition(".")[0]] if name in _CLASSES else name


def peer(name: str) -> type[Peer]:
    """Return the class of a peer.

    Raises:
        UsageError: if there is no such peer.
    """
    if name not in _CLASSES:
        raise UsageError(f"there is no peer {name!r}", f"one of {', '.join(names())}")
    module, _, class_name = _CLASSES[name].partition(".")
    chosen: type[Peer] = getattr(import_module(f"{__name__}.{module}"), class_name)
    return chosen
