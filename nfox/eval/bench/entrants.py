"""Who takes part in a benchmark: methods with their options, simulated drafters, and peers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from nfox import drafters
from nfox.drafters.common.method import DrafterInputs
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.eval import peers
from nfox.eval.bench.runner import (
    MethodRunner,
    PeerRunner,
    ReplayRunner,
    Runner,
    SimulatedRunner,
)
from nfox.eval.bench.simulated_drafter import ReplayDrafter, SimulatedDrafter, SimulatedOptions
from nfox.eval.peers.process import PeerProcess

Kind = Literal["method", "simulated", "peer"]


@dataclass(frozen=True)
class Entrant(ABC):
    """One of those that are compared, as it was asked for.

    Args:
        name: as it was typed.
    """

    name: str
    kind: ClassVar[Kind]
    replays: ClassVar[bool] = False
    """Whether it must know the plain replies of a conversation before it holds it."""

    @property
    def file_name(self) -> str:
        """The name, as a file can have it."""
        return re.sub(r"[^\w.=-]+", "-", self.name)

    @abstractmethod
    def runner(self, engine: Engine, folder: Path) -> Runner:
        """Return what answers for the entrant.

        Args:
            engine: the engine whose model, template and settings hold.
            folder: for files that are needed until all runners are made.

        Raises:
            ModelError: if the entrant lacks what it needs, or does not fit the model.
        """

    def varied(self, option: str, values: Sequence[str]) -> list[Entrant]:
        """Return an entrant for each value of an option; none if there is no such option to set.

        Args:
            option: the name of an option of a method.
            values: as they were typed.

        Raises:
            UsageError: if a value does not fit the option.
        """
        return []


@dataclass(frozen=True)
class MethodEntrant(Entrant):
    """A method of nfox.

    Args:
        name: as it was typed: `spec`, `spec:gamma=4:branches=1`.
        method: the name of the method.
        options: of the method, as they were typed.
    """

    method: str
    options: dict[str, str] = field(default_factory=dict)
    kind: ClassVar[Kind] = "method"

    @classmethod
    def parse(cls, text: str) -> MethodEntrant:
        """Read a method with its options.

        Raises:
            UsageError: for a method that does not exist, or has no such options.
        """
        method, *pairs = text.strip().split(":")
        partitioned = (pair.partition("=") for pair in pairs)
        options = {name: value for name, _, value in partitioned}
        drafters.parse_options(method, options)
        return cls(text.strip(), method, options)

    @override
    def runner(self, engine: Engine, folder: Path) -> Runner:
        return MethodRunner(engine, engine.make(self.method, self.options))

    @override
    def varied(self, option: str, values: Sequence[str]) -> list[Entrant]:
        known = drafters.method_class(self.method).option_names()
        if option not in known or option in self.options:
            return []
        return [MethodEntrant.parse(f"{self.name}:{option}={value}") for value in values]


@dataclass(frozen=True)
class ReplayEntrant(Entrant):
    """A drafter that knows the plain reply: what it lacks of tau in speed is the engine's loss.

    Args:
        gamma: tokens drafted in a step.
    """

    gamma: int
    kind: ClassVar[Kind] = "simulated"
    replays = True

    @classmethod
    def of(cls, gamma: int) -> ReplayEntrant:
        """Return the entrant that drafts so many tokens in a step."""
        return cls(f"replay, gamma {gamma}", gamma)

    @override
    def runner(self, engine: Engine, folder: Path) -> Runner:
        return ReplayRunner(engine, ReplayDrafter(self.gamma))

    @override
    def varied(self, option: str, values: Sequence[str]) -> list[Entrant]:
        if option != "gamma":
            return []
        return [ReplayEntrant.of(token_count("--sweep gamma", value)) for value in values]


@dataclass(frozen=True)
class SimulatedEntrant(Entrant):
    """A drafter that is right at a given rate, whatever the model.

    Args:
        rate: the rate, and how much is drafted.
    """

    rate: SimulatedOptions
    kind: ClassVar[Kind] = "simulated"
    replays = True

    @classmethod
    def of(cls, acceptance: float, gamma: int) -> SimulatedEntrant:
        """Return the entrant of a rate.

        Args:
            acceptance: the chance that a drafted token is right, given that the one before was.
            gamma: tokens drafted in a step.

        Raises:
            UsageError: if that is no rate, or nothing would be drafted.
        """
        name = f"acceptance {acceptance:g}, gamma {gamma}"
        return cls(name, SimulatedOptions(acceptance, gamma))

    @override
    def runner(self, engine: Engine, folder: Path) -> Runner:
        drafter = SimulatedDrafter.build(DrafterInputs(engine.model), self.rate)
        return SimulatedRunner(engine, drafter)

    @override
    def varied(self, option: str, values: Sequence[str]) -> list[Entrant]:
        if option != "gamma":
            return []
        gammas = [token_count("--sweep gamma", value) for value in values]
        return [SimulatedEntrant.of(self.rate.acceptance, gamma) for gamma in gammas]


@dataclass(frozen=True)
class PeerEntrant(Entrant):
    """Another program.

    Raises:
        UsageError: if there is none of that name.
    """

    kind: ClassVar[Kind] = "peer"

    def __post_init__(self) -> None:
        if self.name not in peers.names():
            known = ", ".join(peers.names())
            raise UsageError(f"there is no peer {self.name!r}", f"one of {known}")

    @override
    def runner(self, engine: Engine, folder: Path) -> Runner:
        peer = peers.peer(self.name)
        return PeerRunner(engine, PeerProcess(peer, peer.recipe(engine, folder)))


def token_count(option: str, value: str) -> int:
    """Return the value of an option that is a number of tokens.

    Args:
        option: as it was typed.
        value: as it was typed.

    Raises:
        UsageError: if it is none.
    """
    if not value.isdecimal() or not int(value):
        raise UsageError(f"{option}: {value!r} is no number of tokens")
    return int(value)
