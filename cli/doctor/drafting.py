"""What can draft for a loaded model: what lies where, whether it fits, and what else there is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nfox.drafters import build_drafter, method_class, method_names
from nfox.drafters.common.heads_weights import HeadsMethod
from nfox.drafters.common.method import DrafterInputs
from nfox.errors import NfoxError
from nfox.export.formats import DraftModel
from nfox.files.model_names import beside, short_name
from nfox.heads.checkpoint import INFO_FILE, HeadsInfo
from nfox.heads.compatibility import mismatch_warning
from nfox.known_models import KNOWN, SHIPPED, kept_at
from nfox.models.draft_pairs import nearly_agree
from nfox.models.memory import weight_bytes

from .before import place_of
from .findings import Advice, Finding, warnings_kept
from .prompts import tokenizer_of
from .subject import Subject

if TYPE_CHECKING:
    from nfox.drafters.common.method import Method
    from nfox.engine import Engine

_SECTION = "drafting"
_SMALLER = 2  # times, that a draft model has to be smaller than the target
_SIMILAR = 1.1  # times, by which vocabularies with the same tokens may differ in size


@dataclass(frozen=True)
class Found:
    """A method with what it drafts with.

    Args:
        finding: what is said of it, under the method's name.
        method: what drafts; None if it was not built, or does not fit.
        changes: the options, by their names in Python, by which its weights are used; none where
            they are used already.
    """

    finding: Finding
    method: Method | None = None
    changes: Mapping[str, str] = field(default_factory=dict)


def of_methods(subject: Subject, engine: Engine) -> Iterator[Found]:
    """Yield every method that drafts with what it needs, built where it is there."""
    if engine.model.target.proposals == "nothing":
        words = "no method: the model keeps a state that cannot forget a refused token"
        yield Found(Finding(_SECTION, "none", words, "-"))
        return
    kinds = {name: method_class(name) for name in method_names()}
    kinds = {name: kind for name, kind in kinds.items() if kind.drafts and not kind.chooses}
    for name, kind in kinds.items():
        weights = kind.locate(subject.named.base, subject.sources)
        if kind.needs and weights is None:
            yield Found(_absent(subject, name))
        else:
            yield _built(subject, engine, name, weights)


def _built(subject: Subject, engine: Engine, name: str, weights: str | None) -> Found:
    where = _where(subject, weights) if weights else "needs no weights"
    facts = {"method": name, "weights": weights}
    with warnings_kept() as told:
        try:
            method = engine.make(name)
        except NfoxError as error:
            words = f"{where}: {error.message}"
            return Found(Finding(_SECTION, name, words, "wrong", Advice.of(error), facts))
    words = "; ".join([where, *told])
    return Found(Finding(_SECTION, name, words, "warn" if told else "ok", facts=facts), method)


def _absent(subject: Subject, name: str) -> Finding:
    """Return that a method lacks what it needs, and whether that is published."""
    kind, base = method_class(name), subject.named.base
    if published := kind.published(base):
        advice = Advice(f"the published weights for {name}", f"hf download {published}")
        words = f"not here; published as {published}"
        return Finding(_SECTION, name, words, "-", advice, {"published": published})
    return Finding(_SECTION, name, f"not here: it needs {kind.needs}", "-")


def _where(subject: Subject, weights: str) -> str:
    """Return in words where weights lie."""
    if weights in subject.sources.named:
        return f"named: {short_name(weights)}"
    path = Path(weights)
    if path.is_relative_to(SHIPPED):
        return "comes with nfox"
    if any(path.is_relative_to(place) for place in beside(subject.named.base)):
        return "beside the model"
    return f"in {weights}"


def of_training(subject: Subject) -> Finding:
    """Return how weights are trained for a model for which none are here."""
    kinds = [kind for kind in map(method_class, method_names()) if issubclass(kind, HeadsMethod)]
    best = max(kinds, key=lambda kind: kind.rank)
    advice = Advice(
        "heads of the model's own", best.training_command(shlex.quote(subject.named.base))
    )
    words = "there are none for this model here: they can be trained"
    return Finding(_SECTION, "weights", words, "-", advice)


def of_unused(subject: Subject, engine: Engine) -> Iterator[Found]:
    """Yield what comes with nfox, was fetched, or lies in the cache of the hub, could draft for the
    model and is not used. Heads, which are small, are built.
    """
    base, sources = subject.named.base, subject.sources
    place, kinds = place_of(base, subject.loading), [*map(method_class, method_names())]
    used = {base, *(kind.locate(base, sources) for kind in kinds)}
    for name in filter(lambda name: name not in used, _on_this_machine(subject)):
        for kind in kinds:
            try:
                info = kind.inspect(name, sources.hub)
                if info is None or place_of(name, subject.draft_loading) == place:
                    continue
                is_model = kind.exchange_type is DraftModel
                fits = (_can_draft if is_model else _are_for)(subject, engine, name, info)
            except NfoxError:  # something else, or not whole
                continue
            if fits:
                yield (_unused_model if is_model else _unused_heads)(subject, engine, kind, name)


def _unused_model(subject: Subject, engine: Engine, kind: type[Method], name: str) -> Found:
    command, method = subject.command("doctor", draft_model=name), kind.method_name()
    advice = Advice(f"{method} with {name}: this measures it", command)
    words = f"{name} is on this machine, has the model's tokens, and is not used"
    return Found(Finding(_SECTION, method, words, "-", advice, {"unused": name}))


def _unused_heads(subject: Subject, engine: Engine, kind: type[Method], name: str) -> Found:
    shipped, method, built = Path(name).is_relative_to(SHIPPED), kind.method_name(), None
    words = "comes with nfox" if shipped else f"{name} is on this machine"
    words += ", fits the model, and is not used"
    with warnings_kept() as told:
        try:
            inputs = DrafterInputs(engine.model, engine.costs, hub=subject.sources.hub)
            sources = replace(subject.sources, heads=name)
            built = build_drafter(method, {}, inputs, sources)
        except NfoxError as error:
            told.append(error.message)
    finding = Finding(_SECTION, method, "; ".join([words, *told]), "-", facts={"unused": name})
    return Found(finding, built, {"heads": name})


def _on_this_machine(subject: Subject) -> list[str]:
    """Return the places of the heads that come with nfox, and the names of the models and heads
    that were fetched or lie in the hub's cache.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    kept = [name for name in KNOWN if kept_at(name)]
    kept += sorted(str(file.parent) for file in SHIPPED.glob(f"*/*/{INFO_FILE}"))
    try:
        repositories = scan_cache_dir(subject.loading.cache_dir).repos
    except CacheNotFound:
        return kept
    return kept + sorted(one.repo_id for one in repositories if one.repo_type == "model")


def _can_draft(subject: Subject, engine: Engine, name: str, info: HeadsInfo) -> bool:
    """Return whether a language model is smaller than the target and has its tokens."""
    own = place_of(name, subject.draft_loading)
    size = weight_bytes(own, subject.draft_loading)
    ratio = info.config.get("vocab_size", 0) / engine.model.target.vocabulary_size
    if not 1 / _SIMILAR < ratio < _SIMILAR:  # to compare all tokens takes a while
        return False
    loading = replace(subject.loading, quantisation=None)
    target = weight_bytes(place_of(subject.named.base, loading), loading)
    if not 0 < _SMALLER * size < target:
        return False
    tokenizer, other = engine.model.tokenizer, tokenizer_of(own, subject.draft_loading)
    return None not in (tokenizer, other) and nearly_agree(tokenizer, other)


def _are_for(subject: Subject, engine: Engine, name: str, info: HeadsInfo) -> bool:
    """Return whether heads have the sizes of the target, and are not known to be another's."""
    model, config = engine.model, info.config
    sizes = (config.get("hidden_size"), config.get("vocab_size") or model.target.vocabulary_size)
    if sizes != (model.target.hidden_size, model.target.vocabulary_size):
        return False
    return not mismatch_warning(info, name, model.name, model.target, model.adapter)
