"""From names to an `Engine`: which model, which method, which template."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nfox.decoding.costs import measure_costs
from nfox.decoding.threads import use_threads
from nfox.drafters import drafting_methods, method_class, method_names
from nfox.drafters.common.method import DrafterSpec, WeightSources
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.files.hub import asking_once
from nfox.files.reading import refusing
from nfox.heads.named_model import find_named
from nfox.model_loader import ModelLoader
from nfox.models.options import LoadedModel, LoadProgress, ModelOptions
from nfox.models.prompt import UnknownTokenError, encode_prompt
from nfox.models.training_folders import describe_folder, option_for
from nfox.reply import Settings
from nfox.text.messages import Message
from nfox.text.resolve import FALLBACKS, resolve
from nfox.text.template import Template

log = logging.getLogger(__name__)

_RUN_HINT = "a value in its config.json is not what it should be: copy the model's own"
LEAST_CONTEXT = 4096
"""The tokens of the cache that must find room before anything is loaded."""


@asking_once()
def load(
    model: str | None = None,
    *,
    method: str | None = None,
    options: Mapping[str, str] | None = None,
    draft_model: str | None = None,
    heads: str | None = None,
    base_model: str | None = None,
    loading: ModelOptions | None = None,
    draft_loading: ModelOptions | None = None,
    template: str | None = None,
    system: str | None = None,
    settings: Settings | None = None,
    max_context: int | None = None,
    progress: LoadProgress | None = None,
) -> Engine:
    """Load a model, choose a method, and return the engine that answers with them.

    Args:
        model: folder, GGUF file, hub id or known name of a model, of heads or an adapter that name
            their base, or the output folder of a training; None or "embedded" is nfox's own.
        method: name of the method; None chooses as it goes from those whose weights are there.
        options: of the method, such as {"gamma": "4"}.
        draft_model: folder, GGUF file or hub id of a draft model.
        heads: folder or hub id of trained heads.
        base_model: folder or hub id of the base, in place of the one that heads name.
        loading: how the target is loaded.
        draft_loading: how a draft model is loaded; by default as `ModelOptions.for_draft` says.
        template: name of a conversation template; by default the tokenizer's own.
        system: the system message, in place of the template's.
        settings: for all replies, unless a reply has its own.
        max_context: the most positions to use.
        progress: told how loading goes.

    Raises:
        NfoxError: if anything is missing or does not fit.
    """
    _check_types(locals())
    progress, loading = progress or LoadProgress(), loading or ModelOptions()
    given = {"heads": heads, "adapter": loading.adapter, "base_model": base_model}
    named = find_named(model, **given, hub=loading.hub)
    name, heads, loading = named.base, named.heads, replace(loading, adapter=named.adapter)
    # Heads and draft models have branches and tags of their own.
    sources = WeightSources(draft_model, heads, replace(loading.hub, revision=None))
    if heads:
        _check_heads(heads, name, sources)
    weights = _weights(name, method, sources)
    context = min(max_context or LEAST_CONTEXT, LEAST_CONTEXT)
    draft_loading = draft_loading or loading.for_draft()
    loader = ModelLoader(name, loading, draft_loading, weights, context, progress)
    loaded = loader.target(loading.adapter)
    rendered_by = _template(loaded, template, system)
    progress.stage("measuring how fast this machine is")
    with refusing(f"{loaded.name} cannot run", error_type=ModelError, hint=_RUN_HINT):
        threads, costs = use_threads(loaded.target, loading.threads), measure_costs(loaded.target)
    progress.stage("preparing to guess ahead")
    return Engine(
        loaded,
        rendered_by,
        drafting=DrafterSpec(method, options or {}, sources),
        settings=settings,
        max_context=max_context,
        costs=costs,
        threads=threads,
        system=system,
        loader=loader.beside(loaded),
    )


def load_another(engine: Engine, model: str | None, progress: LoadProgress | None = None) -> Engine:
    """Load another model as that of an engine was loaded, but for what was named for it alone.

    Args:
        engine: stays as it is; both are in memory.
        model, progress: as `load` takes them.

    Raises:
        NfoxError: if the model is missing or does not fit.
    """
    loader = engine.loader
    if loader is None:
        raise UsageError("this engine was not loaded by name, so no other can be loaded like it")
    limited = engine.max_context < engine.model.target.max_context
    return load(
        model,
        loading=replace(loader.loading, adapter=None, revision=None),
        draft_loading=loader.draft_loading,
        system=engine.system,
        settings=engine.settings,
        max_context=engine.max_context if limited else None,
        progress=progress,
    )


_TYPES: dict[str, type] = {
    **dict.fromkeys(("model", "method", "draft_model", "heads", "base_model"), str),
    **dict.fromkeys(("template", "system"), str),
    **dict.fromkeys(("loading", "draft_loading"), ModelOptions),
    "options": Mapping,
    "settings": Settings,
    "max_context": int,
    "progress": LoadProgress,
}


def _check_types(arguments: Mapping[str, object]) -> None:
    """Refuse arguments of `load` that are neither None nor of their type."""
    for name, value in arguments.items():
        wanted = _TYPES[name]
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise UsageError(f"{name} must be of type {wanted.__name__}, not {value!r}")


def _weights(model: str, method: str | None, sources: WeightSources) -> tuple[str, ...]:
    """Return the locations of the weights of a method, or of all methods, for a model."""
    names = drafting_methods(method, model, sources) if method else method_names()
    return tuple(filter(None, {method_class(name).locate(model, sources) for name in names}))


def _check_heads(heads: str, model: str, sources: WeightSources) -> None:
    """Refuse what no method can read, before a model is loaded for it."""
    if heads in [method_class(name).locate(model, sources) for name in method_names()]:
        return
    if heads.startswith((".", "/")) and not Path(heads).exists():
        raise ModelError(f"--heads {heads}: no such folder", "check the path")
    raise ModelError(
        f"{heads} holds no heads that a method of nfox reads",
        option_for(heads) or describe_folder(heads),
    )


def _template(loaded: LoadedModel, template: str | None, system: str | None) -> Template:
    if loaded.tokenizer is None:
        raise ModelError(
            f"{loaded.name} has no tokenizer", "copy the tokenizer's files into the folder"
        )
    if loaded.target.is_encoder_decoder and template in (None, *FALLBACKS):
        template = "plain"
    resolved = resolve(loaded.tokenizer, template, model_name=loaded.name, system=system)
    try:
        encode_prompt(loaded, resolved, [Message("user", "Hello")])
    except UnknownTokenError as error:  # in every prompt: it cannot be left out
        raise ModelError(f"{loaded.name}: {error.message}", error.hint) from error
    except NfoxError as error:  # some templates refuse this question, and not every one
        log.debug("trial of the template: %s", error.message)
    return resolved
