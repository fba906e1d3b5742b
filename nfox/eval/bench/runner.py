"""What answers for an entrant of a benchmark."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from nfox.decoding.cache import KVCache
from nfox.drafters.common.method import Method
from nfox.engine import Engine
from nfox.eval.bench.simulated_drafter import ForcedSettings, ReplayDrafter, SimulatedDrafter
from nfox.eval.peers.base import Peer
from nfox.eval.peers.process import PeerProcess
from nfox.eval.peers.replies import answer
from nfox.models.memory import memory_in_use
from nfox.reply import Reply, Request

REPLIES_PER_TASK = 1024
"""So many numbers of replies are set apart for each task: the noise depends on the task alone."""


@dataclass
class Runner(ABC):
    """Answers for an entrant.

    Args:
        engine: the engine whose model and template are used.
    """

    engine: Engine

    @abstractmethod
    def begin(self, plain_texts: Sequence[list[int]]) -> None:
        """Begin another conversation, with nothing read.

        Args:
            plain_texts: the token ids of prompt and plain reply, for each reply of the conversation
                to come; none if it was not run plainly yet.
        """

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """Answer a request: the next one of the conversation that was begun."""

    @abstractmethod
    def describe(self) -> str:
        """Return in a few words what it runs with."""

    def memory(self) -> int:
        """Return the bytes of memory in use, on a GPU the most that were since a trial began."""
        return memory_in_use(self.engine.model.target.device)

    def close(self) -> None:  # noqa: B027 - most leave nothing behind
        """End what it started."""


@dataclass
class MethodRunner(Runner):
    """Answers with a method of nfox.

    Args:
        engine: the engine whose model and template are used.
        drafter: of the method.

    Attributes:
        cache: what the target has read of the conversation.
    """

    drafter: Method
    cache: KVCache = field(init=False)

    @override
    def begin(self, plain_texts: Sequence[list[int]]) -> None:
        self.drafter.rewind(0)
        self.cache = self.engine.model.target.new_cache()

    @override
    def answer(self, request: Request) -> Reply:
        return self.engine.answer(request, drafter=self.drafter, cache=self.cache)

    @override
    def describe(self) -> str:
        return self.drafter.describe()


@dataclass
class ReplayRunner(MethodRunner):
    """Answers with a drafter that knows the plain reply.

    Args:
        engine: the engine whose model and template are used.
        drafter: takes the plain reply before it is asked for it.

    Attributes:
        plain_texts: the token ids of prompt and plain reply, for each reply of the conversation.
    """

    drafter: ReplayDrafter
    plain_texts: Sequence[list[int]] = ()

    @override
    def begin(self, plain_texts: Sequence[list[int]]) -> None:
        super().begin(plain_texts)
        self.plain_texts = plain_texts

    @override
    def answer(self, request: Request) -> Reply:
        number = request.number % REPLIES_PER_TASK
        # After another reply than the plain one a conversation may have more of them.
        self.drafter.know(self.plain_texts[number] if number < len(self.plain_texts) else [])
        return super().answer(request)


@dataclass
class SimulatedRunner(ReplayRunner):
    """Answers with a drafter that is right at a given rate; the replies are the plain ones."""

    drafter: SimulatedDrafter

    @override
    def answer(self, request: Request) -> Reply:
        settings = ForcedSettings.of(request.settings, self.drafter)
        return super().answer(replace(request, settings=settings))


@dataclass
class PeerRunner(Runner):
    """Answers with another program.

    Args:
        engine: the engine whose model and template are used.
        peer: the other program.
    """

    peer: Peer | PeerProcess

    @override
    def begin(self, plain_texts: Sequence[list[int]]) -> None:
        self.peer.begin()

    @override
    def answer(self, request: Request) -> Reply:
        return answer(self.peer, self.engine, request)

    @override
    def describe(self) -> str:
        return self.peer.describe()

    @override
    def memory(self) -> int:
        return self.peer.memory()

    @override
    def close(self) -> None:
        self.peer.close()
