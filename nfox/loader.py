"""From names to a `Engine`: which model, which method, which template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nfox.decoding.costs import measure_costs
from nfox.drafters import method as method_class
from nfox.drafters import names
from nfox.drafters.common.method import WeightSources
from nfox.engine import Engine
from nfox.errors import ModelError
from nfox.files.progress import Progress
from nfox.heads.checkpoint import base_of
from nfox.models.loading import load_model
from nfox.models.memory import check_memory
from nfox.models.options import LoadedModel, ModelOptions
from nfox.reply import Settings
from nfox.text.resolve import resolve
from nfox.text.template import Template


def load(
    model: str | None = None,
    *,
    method: str | None = None,
    options: dict[str, str] | None = None,
    draft_model: str | None = None,
    heads: str | None = None,
    base_model: str | None = None,
    loading: ModelOptions | None = None,
    draft_loading: ModelOptions | None = None,
    template: str | None = None,
    system: str | None = None,
    settings: Settings | None = None,
    max_context: int | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Progress = lambda what, done, total: None,
) -> Engine:
    """Load a model, choose a method, and return a `Engine`.

    Args:
        model: folder or hub id of a base model or of heads, whose config names the base; None is
            the embedded one.
        method: None takes the best one whose weights are there.
        options: of the method, {"gamma": "4"}.
        draft_model: folder or hub id of a draft model.
        heads: folder or hub id of trained heads.
        base_model: overrides the base that a heads checkpoint names.
        loading: how the target is loaded.
        draft_loading: how a draft model is loaded; like the target, but not quantised, by default.
        template: name of a conversation template; by default the tokenizer's own.
        system: replaces the template's system message.
        settings: for all replies, until changed.
        max_context: positions to use at most.
        on_stage: told what is being done, for a progress display.
        on_progress: told how far downloads and the loading of weights are.

    Raises:
        NfoxError: if anything is missing or does not fit.
    """
    from nfox.demo import TARGET

    loading = loading or ModelOptions()
    draft_loading = draft_loading or loading.for_draft()
    name = model or str(TARGET)
    if name.startswith("~"):  # a hub id must not become a path, nor ./model an id
        name = str(Path(name).expanduser())
    base = base_of(name, loading.hub)
    if base is not None:
        heads, name = heads or name, base_model or base
    elif base_model is not None:
        heads, name = heads or name, base_model
    # Heads and draft models have branches and tags of their own.
    places = WeightSources(draft_model, heads, replace(loading.hub, revision=None))
    if heads:
        _check_heads(heads, name, places)
    found = {method_class(m).locate(name, places) for m in ([method] if method else names())}
    also = [(place, draft_loading) for place in found if place]

    def load_target(adapter: str | None) -> LoadedModel:
        on_stage(f"checking memory for {name}")
        check_memory([(name, loading), *also], min(max_context or 4096, 4096))
        on_stage(f"loading {name}")
        return load_model(name, replace(loading, adapter=adapter), on_progress)

    loaded = load_target(loading.adapter)
    if loading.device_map and not (draft_loading.device or draft_loading.device_map):
        # what it drafts is compared with what comes out at the target's end
        draft_loading = replace(draft_loading, device=str(loaded.target.output_device))
    made = _template(loaded, template, system)
    on_stage("measuring t(N)/t(1)")
    costs = measure_costs(loaded.target)
    on_stage("preparing the method")

    def load_draft(draft: str) -> LoadedModel:
        on_stage(f"loading {draft}")
        return load_model(draft, draft_loading, on_progress)

    return Engine(
        loaded,
        made,
        method=method,
        options=options,
        settings=settings,
        max_context=max_context,
        costs=costs,
        system=system,
        places=places,
        load_draft=load_draft,
        load_target=load_target,
    )


def _check_heads(heads: str, model: str, places: WeightSources) -> None:
    """Refuse what no method can read, before a model is loaded for it."""
    if heads in [method_class(name).locate(model, places) for name in names()]:
        return
    if heads.startswith((".", "/")) and not Path(heads).is_dir():
        raise ModelError(f"--heads {heads}: no such folder", "check the path")
    raise ModelError(
        f"{heads} holds no heads that a method of nfox reads",
        f"an adapter goes with its base: --model {model} --adapter {heads}",
    )


def _template(loaded: LoadedModel, template: str | None, system: str | None) -> Template:
    if loaded.tokenizer is None:
        raise ModelError(
            f"{loaded.name} has no tokenizer", "copy the tokenizer's files into the folder"
        )
    if loaded.target.is_encoder_decoder and template is None:
        template = "plain"
    return resolve(loaded.tokenizer, template, model_name=loaded.name, system=system)
