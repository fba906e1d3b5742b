"""What a person means by the name of a model: a model, heads that name their base, an adapter that
does, or the output folder of a training, in which all three may lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from nfox.demo import NAME, TARGET
from nfox.errors import UsageError
from nfox.files.hub import HubOptions, file_of
from nfox.files.model_names import local_folder
from nfox.heads.checkpoint import INFO_FILE, base_of, read_info
from nfox.models.adapter_files import CONFIG_FILE
from nfox.models.training_folders import MODEL_CONFIG, adapter_in, base_in


@dataclass(frozen=True)
class NamedModel:
    """The parts of a named model.

    Args:
        base: folder or hub id of the base model.
        heads: folder or hub id of heads; None if none were named.
        adapter: folder, hub id or name of an adapter; None if none was named.
    """

    base: str
    heads: str | None = None
    adapter: str | None = None


def find_named(
    name: str | None,
    *,
    heads: str | None = None,
    adapter: str | None = None,
    base_model: str | None = None,
    hub: HubOptions | None = None,
) -> NamedModel:
    """Return what a name means, together with the others that were given.

    Args:
        name: folder or hub id of a model, of heads, of an adapter, or the output folder of a
            training; None or "embedded" is the embedded model.
        heads: folder or hub id of heads, in place of those that the name means.
        adapter: the same of an adapter.
        base_model: the base, in place of the one that heads or an adapter name.
        hub: how files are fetched.

    Raises:
        UsageError: if two bases were named.
    """
    hub = hub or HubOptions()
    if name is None or (name == NAME and local_folder(name) is None):
        name = str(TARGET)
    if name.startswith("~"):  # a hub id must not become a path, nor ./model an id
        name = str(local_folder(name) or name)
    whole, found = base_in(name), _adapter_of(name, hub)
    if whole is None and found is None:
        return _without_adapter(name, heads, adapter, base_model, hub)
    base = base_model or whole or base_of(found or name, hub)
    own = name if read_info(name, hub) is not None else None
    return NamedModel(str(base), heads or own, adapter or found)


def _adapter_of(name: str, hub: HubOptions) -> str | None:
    """Return the folder or hub id of the adapter that a name means; None if it means none."""
    if local_folder(name) is not None:
        found = adapter_in(name)
        return None if found is None else str(found)
    if any(file_of(name, file, hub) for file in (MODEL_CONFIG, INFO_FILE)):
        return None
    return name if file_of(name, CONFIG_FILE, hub) else None


def _without_adapter(
    name: str,
    heads: str | None,
    adapter: str | None,
    base_model: str | None,
    hub: HubOptions,
) -> NamedModel:
    """Return what the name of a model, or of heads alone, means."""
    base = base_of(name, hub)
    if base is None and base_model is None:
        return NamedModel(name, heads, adapter)
    if base is None and heads is not None:
        raise UsageError(
            f"--model {name} and --base-model {base_model} are two bases of {heads}",
            "leave one of them out",
        )
    return NamedModel(str(base_model or base), heads or name, adapter)
