"""A method: a drafter with what a person must know to choose it, its weights and its options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Drafter
from nfox.errors import ModelError
from nfox.files.hub import HubOptions
from nfox.heads.checkpoint import HeadsInfo
from nfox.models.options import LoadedModel


@dataclass(frozen=True)
class Options:
    """What a person can set for a method by `-o name=value`; each method derives its own."""


def option(default: Any, help: str) -> Any:
    """Declare a field of `Options`, with the line that `nfox methods` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class WeightSources:
    """Where the person said that the weights of methods are.

    Args:
        draft_model: folder or hub id of a draft model; None if none was named.
        heads: folder or hub id of heads; None if none were named.
        hub: how files are fetched from the hub.
    """

    draft_model: str | None = None
    heads: str | None = None
    hub: HubOptions = field(default_factory=HubOptions)

    @property
    def named(self) -> tuple[str, ...]:
        """The folders and hub ids that the person named."""
        return tuple(filter(None, (self.draft_model, self.heads)))


@dataclass(frozen=True)
class DrafterSpec:
    """Which method drafts, and with what.

    Args:
        method: its name; None chooses as it goes from those whose needs are met.
        options: of the method, as texts.
        sources: where the person said that weights are.
    """

    method: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    sources: WeightSources = field(default_factory=WeightSources)


@dataclass(frozen=True)
class SavedWeights:
    """Weights of a method on disk or on the hub, to be written in another layout.

    Args:
        location: their folder or hub id.
        info: what they are, with the name of their base as it is to be written down.
        base: folder or hub id from which the base is loaded, where the layout needs some of it.
        hub: how files are fetched from the hub.
    """

    location: str
    info: HeadsInfo
    base: str
    hub: HubOptions = field(default_factory=HubOptions)


@dataclass(frozen=True)
class DrafterInputs:
    """What a drafter is built from.

    Args:
        model: the target that it drafts for.
        costs: the seconds of a target forward over N tokens; None if they were not measured.
        weights: the folder or hub id of the method's weights; None if it has none.
        load: loads a language model with the draft model's dtype, quantisation and device.
        hub: how files are fetched from the hub.
        others: for a method that chooses: what builds each of the others, by name, the best first.
        strict: whether it is an error if one of them cannot be built: the person named its weights.
    """

    model: LoadedModel
    costs: Costs | None = None
    weights: str | None = None
    load: Callable[[str], LoadedModel] | None = None
    hub: HubOptions = field(default_factory=HubOptions)
    others: Mapping[str, Callable[[], Method]] = field(default_factory=dict)
    strict: bool = True

    def load_draft_model(self) -> LoadedModel:
        """Load the language model that `weights` names.

        Raises:
            ModelError: if none is named, or it cannot be loaded.
        """
        if self.weights is None or self.load is None:
            raise ModelError("no draft model was named", "pass --draft-model FOLDER or hub id")
        return self.load(self.weights)


class Method(Drafter):
    """A drafter with what a person must know to choose it. One file in `nfox/drafters/`.

    Attributes:
        summary: one line for `nfox methods`.
        needs: the weights that it cannot do without, in a few words; "" if it needs none.
        rank: among the methods whose needs are met, the one with the highest rank is the default.
        adapter: the name of the adapter that trains a model for this method, where one lies beside
            the model.
        drafts: False if it never proposes anything, which is plain decoding.
        chooses: whether it drafts with the others; such a method is the default.
        options: the class of its options.
        nothing_found: why a reply goes without a guess where the method is not idle.
        exchange_type: the form in which its weights are handed to other engines, a class of
            `nfox.export.formats`; None if no other engine can use them.
    """

    summary: ClassVar[str]
    needs: ClassVar[str] = ""
    rank: ClassVar[int] = 0
    adapter: ClassVar[str] = ""
    drafts: ClassVar[bool] = True
    chooses: ClassVar[bool] = False
    options: ClassVar[type[Options]] = Options
    exchange_type: ClassVar[type | None] = None
    nothing_found: str = "no guess was likely enough to pay"

    @property
    def forecast(self) -> tuple[int, Sequence[float]]:
        """The nodes that its trees will have, and for each depth from 1 the share of the steps that
        is expected to accept so deep, by what was measured before; (1, ()) where nothing was.
        """
        return 1, ()

    @classmethod
    def method_name(cls) -> str:
        """Return the method's name, which is the name of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of the options that a person can set, in the order of their fields."""
        return [field.name for field in fields(cls.options)]

    @classmethod
    def locate(cls, model: str, sources: WeightSources) -> str | None:
        """Return the folder or hub id of this method's weights for a model; None if none are known.

        Args:
            model: the target's folder or hub id.
            sources: what the person named.
        """
        return None

    @classmethod
    def published(cls, model: str) -> str | None:
        """Return the hub id of published weights for a model; None if there are none.

        They are taken only for a method that was asked for by name: nobody should download
        gigabytes by accident.
        """
        return None

    @classmethod
    def hint(cls, model: str) -> str:
        """Return what the person can do where the weights for a model are missing."""
        return "`nfox methods` lists the others"

    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> HeadsInfo | None:
        """Return what weights of this method a folder or hub repository holds; None if none."""
        return None

    @classmethod
    def to_exchange(cls, weights: SavedWeights) -> Any:
        """Return weights as an object of `exchange_type`.

        Raises:
            ModelError: if the weights, or the base, are not whole or of another shape.
        """
        raise TypeError(f"weights of {cls.method_name()} have no form for other engines")

    def in_words(self) -> str:
        """Return what the method does here, in one line for whoever knows none of its terms."""
        return self.summary

    @property
    def idle(self) -> str:
        """Why it drafts nothing at present, in a few words; "" if it drafts where it can."""
        return ""

    def _with_idle(self, size: str) -> str:
        """Return in words how much it drafts, and where that is nothing, why."""
        return f"{size}; plain decoding, {self.idle}" if self.idle else size

    def explain(self) -> list[str]:
        """Return lines about what the method has tried, and why it does what it does now."""
        return []

    @classmethod
    @abstractmethod
    def build(cls, inputs: DrafterInputs, options: Any) -> Method:
        """Return a drafter for a target.

        Args:
            inputs: the target, its costs and the method's weights.
            options: of the class `cls.options`.

        Raises:
            NfoxError: if something that it needs is missing or does not fit the target.
        """
