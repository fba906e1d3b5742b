"""Who takes part in a benchmark: methods with their options, simulated drafters, and peers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from typing_extensions import override

from nfox import drafters
from nfox.drafters.common.method import DrafterInputs, Method
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.eval import peers
from nfox.eval.bench.simulated_drafter import DecreedSettings, Oracle, OracleOptions
from nfox.eval.peers.base import Peer, answer
from nfox.reply import Reply, Request

REPLIES_PER_TASK = 1024
"""So many numbers of replies are set apart for each task: the noise depends on the task alone."""

Kind = Literal["method", "simulated", "peer"]


@dataclass(frozen=True)
class Entrant:
    """One of those that are compared, as it was asked for.

    Args:
        name: as typed: `spec`, `spec:gamma=4:branches=1`, `hf`.
        kind: of it.
        method: or peer, its name.
        options: of the method.
        rate: at which a simulated method is right.
    """

    name: str
    kind: Kind = "method"
    method: str = ""
    options: dict[str, str] = field(default_factory=dict)
    rate: OracleOptions = field(default_factory=OracleOptions)

    @property
    def file_name(self) -> str:
        """Its name, as a file can have it."""
        return re.sub(r"[^\w.=-]+", "-", self.name)

    @classmethod
    def parse(cls, text: str) -> Entrant:
        """Read a method with its options.

        Raises:
            UsageError: for a method that does not exist, or has no such options.
        """
        method, *options = text.strip().split(":")
        pairs = (option.partition("=") for option in options)
        made = cls(text.strip(), "method", method, {name: value for name, _, value in pairs})
        drafters.options_for(method, made.options)
        return made

    @classmethod
    def simulated(cls, acceptance: float, gamma: int) -> Entrant:
        """Return one that is right at a given rate, whatever the model.

        Raises:
            UsageError: if that is no rate, or nothing would be drafted.
        """
        rate = OracleOptions(acceptance, gamma)
        return cls(f"acceptance {acceptance:g}, gamma {gamma}", "simulated", rate=rate)

    @classmethod
    def peer(cls, name: str) -> Entrant:
        """Return another program.

        Raises:
            UsageError: if there is none of that name.
        """
        if name not in peers.names():
            raise UsageError(f"there is no peer {name!r}", f"one of {', '.join(peers.names())}")
        return cls(name, "peer", name)


class Runner(ABC):
    """An entrant that can answer."""

    @abstractmethod
    def begin(self) -> None:
        """Begin another conversation, with nothing read."""

    @abstractmethod
    def reply(self, request: Request) -> Reply:
        """Answer a request."""

    @abstractmethod
    def describe(self) -> str:
        """Say in a few words what it runs with."""

    def close(self) -> None:  # noqa: B027 - most leave nothing behind
        """Take away what it made."""


class Drafting(Runner):
    """A method of nfox, or a simulated one.

    Args:
        engine: whose model, template and settings are used.
        drafter: of the method.
    """

    def __init__(self, engine: Engine, drafter: Method) -> None:
        self.engine = engine
        self.drafter = drafter
        self.cache = engine.model.target.new_cache()

    @override
    def begin(self) -> None:
        self.drafter.rewind(0)
        self.cache = self.engine.model.target.new_cache()

    @override
    def reply(self, request: Request) -> Reply:
        return self.engine.answer(request, drafter=self.drafter, cache=self.cache)

    @override
    def describe(self) -> str:
        return self.drafter.describe()


class Simulated(Drafting):
    """A drafter that is right at a given rate, and a text that is known.

    Args:
        engine: whose model, template and settings are used.
        oracle: who knows the reply, once it is told.

    Attributes:
        known: tokens of prompt and plain reply, for each reply of the conversation to come.
    """

    def __init__(self, engine: Engine, oracle: Oracle) -> None:
        super().__init__(engine, oracle)
        self.oracle = oracle
        self.known: Sequence[list[int]] = ()

    @override
    def reply(self, request: Request) -> Reply:
        self.oracle.know(self.known[request.number % REPLIES_PER_TASK])
        settings = DecreedSettings.of(request.settings, self.oracle)
        return super().reply(replace(request, settings=settings))


class Rival(Runner):
    """A peer.

    Args:
        engine: whose model, template and settings are used.
        peer: the other program.
    """

    def __init__(self, engine: Engine, peer: Peer) -> None:
        self.engine = engine
        self.peer = peer

    @override
    def begin(self) -> None:
        self.peer.begin()

    @override
    def reply(self, request: Request) -> Reply:
        return answer(self.peer, self.engine, request)

    @override
    def describe(self) -> str:
        return self.peer.describe()

    @override
    def close(self) -> None:
        self.peer.close()


def runner(entrant: Entrant, engine: Engine) -> Runner:
    """Make an entrant ready.

    Args:
        entrant: who.
        engine: whose model, template and settings are used.

    Raises:
        ModelError: if it lacks what it needs, or does not fit the model.
    """
    if entrant.kind == "peer":
        return Rival(engine, peers.peer(entrant.method).build(engine))
    if entrant.kind == "simulated":
        return Simulated(engine, Oracle.build(DrafterInputs(engine.model), entrant.rate))
    return Drafting(engine, engine.make(entrant.method, entrant.options))
