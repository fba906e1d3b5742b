"""Methods whose weights are heads: where these are, whether they fit a target, how they are loaded
and written. What such a method proposes is in `nfox.drafters.common.heads`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from nfox.drafters.common.method import Method, SavedWeights, WeightSources
from nfox.errors import ModelError
from nfox.files.hub import HubOptions
from nfox.files.model_names import weights_beside
from nfox.files.reading import refusing
from nfox.heads import checkpoint
from nfox.heads.base import Heads, HeadsConfig
from nfox.heads.compatibility import mismatch_warning
from nfox.models.options import LoadedModel

log = logging.getLogger(__name__)


class HeadsMethod(Method):
    """A method whose weights are heads, in nfox's own layout unless it knows others as well.

    Attributes:
        heads_class: the layers of the method.
        published_heads: the hub ids of published heads, by the hub id of their base.
    """

    heads_class: ClassVar[type[Heads]]
    published_heads: ClassVar[dict[str, str]] = {}

    @override
    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> checkpoint.HeadsInfo | None:
        """Return what heads of this method a folder or hub repository holds; None if none.

        Methods with published layouts of their own look for these as well.
        """
        info = checkpoint.read_info(location, hub)
        return info if info and info.method == cls.method_name() else None

    @classmethod
    def read_weights(cls, location: str, hub: HubOptions) -> dict[str, Tensor]:
        """Return the weights, by name, of the heads that `inspect` reports.

        Raises:
            ModelError: if they are not there or not whole.
        """
        return checkpoint.read_weights(location, hub)

    @override
    @classmethod
    def locate(cls, model: str, sources: WeightSources) -> str | None:
        if sources.heads is not None:
            return sources.heads if cls.inspect(sources.heads, sources.hub) else None
        return weights_beside(model, cls.method_name())

    @override
    @classmethod
    def published(cls, model: str) -> str | None:
        return cls.published_heads.get(model)

    @classmethod
    def export(cls, weights: SavedWeights, folder: Path) -> list[str]:
        """Write heads in the layout that was published for the method, else in nfox's own.

        Args:
            weights: the heads.
            folder: where the files are written.

        Returns:
            The names of the files.

        Raises:
            ModelError: if the heads are not whole.
        """
        checkpoint.write(folder, weights.info, cls.read_weights(weights.location, weights.hub))
        return [checkpoint.INFO_FILE, checkpoint.WEIGHTS_FILE]

    @classmethod
    def load_heads(
        cls, model: LoadedModel, location: str, hub: HubOptions
    ) -> tuple[Any, checkpoint.HeadsInfo]:
        """Load heads onto the target's output device and in its dtype, and check that they fit it.
        Where they fit, but seem to be trained for another model, a warning is logged.

        Args:
            model: the target.
            location: the folder or hub id of the heads.
            hub: how files are fetched.

        Returns:
            The heads, an instance of `heads_class`, and what their folder says of them.

        Raises:
            ModelError: if they are not there, not whole, or for another model.
        """
        info, target = cls.inspect(location, hub), model.target
        if info is None:
            raise ModelError(f"{location} holds no {cls.method_name()} heads", cls.hint(model.name))
        config = cls._fitting_config(model, location, info)
        weights = cls.read_weights(location, hub)
        checkpoint.check_layer_count(config.layer_count, weights, location)
        with torch.device("meta"):
            heads = cls.heads_class(config)
        checkpoint.load_weights(heads, weights, location)
        warning = mismatch_warning(info, location, model.name, model.target, model.adapter)
        if warning:
            log.warning(warning)
        return heads.to(target.output_device, target.dtype).eval().requires_grad_(False), info

    @classmethod
    def _fitting_config(
        cls, model: LoadedModel, location: str, info: checkpoint.HeadsInfo
    ) -> HeadsConfig:
        """Return the config of heads; refuse heads whose sizes are not those of the target."""
        target = model.target
        with refusing(location, error_type=ModelError, hint="copy it again, or train anew"):
            config = cls.heads_class.Config.model_validate(info.config)
        sizes = (target.hidden_size, target.vocabulary_size)
        if (config.hidden_size, config.vocab_size or sizes[1]) != sizes:
            raise ModelError(
                f"{location} was trained for {info.base} (hidden size {config.hidden_size}, "
                f"{config.vocab_size} tokens); {model.name} has hidden size {sizes[0]}, "
                f"{sizes[1]} tokens",
                cls.hint(model.name),
            )
        tokens = info.frequent_tokens
        if tokens != sorted(set(tokens)) or tokens[-1:] >= [target.vocabulary_size]:
            raise ModelError(
                f"{location}: its frequent tokens are not rising ids below {sizes[1]}",
                "copy it again, or train anew",
            )
        if not target.can_unembed:
            raise ModelError(
                f"{model.name} turns hidden states into logits in a way that heads cannot follow",
                "use --method lookup",
            )
        return config

    @override
    @classmethod
    def hint(cls, model: str) -> str:
        """Return how heads of this method for a model are had."""
        return f"train them: {cls.training_command(model)}, then --heads FOLDER"

    @classmethod
    def training_command(cls, model: str) -> str:
        """Return the command that trains heads of this method for a model."""
        return (
            f"nfox train {cls.method_name()} --model_name_or_path {model} "
            "--data_path conversations.json --output_dir FOLDER"
        )
