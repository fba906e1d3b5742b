"""What a drafter is: anything that guesses. It may know the `Context` and must make a tree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from nfox.decoding.cache import KVCache
from nfox.decoding.costs import Costs
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Rule
from nfox.errors import ModelError
from nfox.heads.checkpoint import About
from nfox.models.loading import LoadedModel, ModelOptions


@dataclass(frozen=True)
class Context:
    """All a drafter may know when it proposes.

    Args:
        cache: what the target has read; a drafter only looks at it.
        root: the pending token: decided by the target, not yet read.
        path: the accepted nodes of the last tree ([] before the first).
        choices: the target's token after every node of that tree.
        room: how deep the tree may be at most.
        rule: how tokens are chosen in this reply; a draft model draws by it.
    """

    cache: KVCache
    root: int
    path: Sequence[int]
    choices: Sequence[int]
    room: int
    rule: Rule

    @property
    def tokens(self) -> Sequence[int]:
        """Every token the target has read."""
        return self.cache.tokens

    @property
    def hidden(self) -> Tensor:
        """[len(tokens), D] the target's last (post-norm) hidden states for them."""
        return self.cache.hidden

    @property
    def source(self) -> tuple[int, ...] | None:
        """What the encoder has read, for encoder-decoder targets."""
        return self.cache.source


@dataclass(frozen=True)
class Options:
    """What a person can set for a method, `-o name=value`; each method derives its own."""


def option(default: Any, help: str) -> Any:
    """Declare a field of `Options`, with the line that `nfox methods` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Places:
    """Where weights of methods were said to be.

    Args:
        draft_model: folder or hub id.
        heads: folder or hub id.
        hub: how things are fetched from the hub: offline or not.
    """

    draft_model: str | None = None
    heads: str | None = None
    hub: ModelOptions = field(default_factory=ModelOptions)


@dataclass(frozen=True)
class Parts:
    """What a drafter is made from.

    Args:
        model: the target it drafts for.
        costs: what one forward over so many tokens takes; None if it was not measured.
        weights: the folder or hub id of its weights; None if it has none.
        load: loads a language model, with the draft model's settings (dtype, quantisation).
        hub: how files are fetched from the hub.
    """

    model: LoadedModel
    costs: Costs | None = None
    weights: str | None = None
    load: Callable[[str], LoadedModel] | None = None
    hub: ModelOptions = field(default_factory=ModelOptions)

    def load_weights(self) -> LoadedModel:
        """Load the language model that `weights` names."""
        if self.weights is None or self.load is None:
            raise ModelError("no draft model was named", "pass --draft-model FOLDER or hub id")
        return self.load(self.weights)

    def draft_length(
        self,
        given: int | None,
        most: int,
        draft: float = 0.0,
        beside: int = 0,
    ) -> int:
        """Return how many tokens to draft: the given number, else as many as pay, up to `most`.

        Args:
            given: what the person asked for.
            most: the default where width costs nothing.
            draft: seconds per drafted token.
            beside: other nodes of the tree.
        """
        if given is not None:
            return given
        return self.costs.best_gamma(most, draft, beside) if self.costs else most


class Drafter(ABC):
    """A method: how continuations of the root are guessed. One file under `nfox/drafters/`.

    Attributes:
        summary: one line for `nfox methods`.
        needs: what it cannot do without, in a few words; "" if nothing.
        rank: among methods whose needs are met, the highest is the default.
        adapter: name of the adapter that makes a model fit for it, where one lies beside the model.
        drafts: False if it never proposes anything, which is plain decoding.
        options: the class of its options.
        gives: the kind of thing that its weights are to other engines, see `nfox.export.formats`.
    """

    summary: ClassVar[str]
    needs: ClassVar[str] = ""
    rank: ClassVar[int] = 0
    adapter: ClassVar[str] = ""
    drafts: ClassVar[bool] = True
    options: ClassVar[type[Options]] = Options
    gives: ClassVar[type | None] = None

    @classmethod
    def method(cls) -> str:
        """Return the method's name, that of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def find(cls, model: str, given: Places) -> str | None:
        """Say where the weights of this method for a model are, or None.

        Args:
            model: the target's folder or hub id.
            given: what was named on the command line.
        """
        return None

    @classmethod
    def fetch(cls, model: str) -> str | None:
        """Return the hub id of published weights for a model, or None. They are taken only for a
        method that was asked for by name: nobody downloads gigabytes by accident.
        """
        return None

    @classmethod
    def advice(cls, model: str) -> str:
        """Return what to do where the weights for a model are missing."""
        return "`nfox methods` lists the others"

    @classmethod
    def holds(cls, place: str, options: ModelOptions) -> About | None:
        """Say what weights of this method a folder or hub repository holds; None if none."""
        return None

    @classmethod
    def give(cls, place: str, what: About, base: str, hub: ModelOptions) -> Any:
        """Return weights as a thing of the kind `gives`.

        Args:
            place: folder or hub id of the weights.
            what: they are, with the name of their base to write down.
            base: folder or hub id to load the base from, where something of it is needed.
            hub: how files are fetched.

        Raises:
            ModelError: if the weights, or the base, are not what they should be.
        """
        raise TypeError(f"{cls.method()} gives nothing")

    @classmethod
    @abstractmethod
    def build(cls, parts: Parts, options: Any) -> Drafter:
        """Make a drafter for a target.

        Raises:
            NfoxError: if something that it needs is missing or does not fit the target.
        """

    @abstractmethod
    def propose(self, context: Context) -> TokenTree:
        """Guess what follows the root: a tree at most `context.room` deep."""

    def truncate(self, length: int) -> None:  # noqa: B027 - some keep nothing of the past
        """Learn that of the past only the first `length` tokens are still true."""

    def describe(self) -> str:
        """Say in a few words what it drafts with, for the header and `-v`."""
        return ""


def weights_beside(model: str, name: str) -> str | None:
    """Return `<model>/nfox/<name>` if there is such a folder."""
    folder = Path(model) / "nfox" / name
    return str(folder) if folder.is_dir() else None
