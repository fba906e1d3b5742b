"""What the doctor looks at: a model with the options of its engine, and the commands that change
them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..loading_options import model_options
from ..options.engine import ModelArguments

if TYPE_CHECKING:
    from nfox.drafters.common.method import WeightSources
    from nfox.heads.named_model import NamedModel
    from nfox.models.options import ModelOptions


@dataclass(frozen=True)
class Subject:
    """A model with the options of its engine. Nothing is downloaded for it.

    Args:
        arguments: the options.
    """

    arguments: ModelArguments

    @cached_property
    def loading(self) -> ModelOptions:
        """How the target is loaded."""
        return replace(model_options(self.arguments)[0], offline=True)

    @cached_property
    def draft_loading(self) -> ModelOptions:
        """How a draft model is loaded."""
        return replace(model_options(self.arguments)[1], offline=True)

    @cached_property
    def named(self) -> NamedModel:
        """The base, heads and adapter that the options name.

        Raises:
            NfoxError: if they contradict each other.
        """
        from nfox.heads.named_model import find_named

        given = self.arguments
        return find_named(
            given.model,
            heads=given.heads,
            adapter=given.adapter,
            base_model=given.base_model,
            hub=self.loading.hub,
        )

    @cached_property
    def sources(self) -> WeightSources:
        """Where the person said that weights are."""
        from nfox.drafters.common.method import WeightSources

        hub = replace(self.loading.hub, revision=None)
        return WeightSources(self.arguments.draft_model, self.named.heads, hub)

    def command(self, name: str = "", method: str | None = None, **changes: Any) -> str:
        """Return the command that runs the model with some options changed.

        Args:
            name: of the subcommand; "" for the chat.
            method: that is to draft.
            changes: of the options, by their names in Python.
        """
        options = _typed(replace(self.arguments, **changes))
        chosen = ["--method", method] if method else []
        return shlex.join(["nfox", *filter(None, [name]), *options, *chosen])


def _typed(arguments: ModelArguments) -> Iterator[str]:
    """Yield the words of the options that differ from their defaults."""
    for field in fields(arguments):
        value = getattr(arguments, field.name)
        if value == field.default:
            continue
        yield f"--{field.name.replace('_', '-')}"
        if value is not True:
            yield str(value)
