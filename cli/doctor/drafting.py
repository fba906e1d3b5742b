"""What can draft for a loaded model: what lies where, whether it fits, and what else there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.drafters import method_class, method_names
from nfox.errors import NfoxError
from nfox.export.formats import DraftModel
from nfox.files.hub import beside, short_name
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
        finding: what is said of it.
        method: what drafts; None if it does not fit.
    """

    finding: Finding
    method: Method | None = None


def of_methods(subject: Subject, engine: Engine) -> Iterator[Found]:
    """Yield every method that drafts with what it needs, built where it is there."""
    if engine.model.target.proposals == "nothing":
        words = "no method: the model keeps a state that cannot forget a refused token"
        yield Found(Finding(_SECTION, "none", words, "-"))
        return
    for name in method_names():
        kind = method_class(name)
        if not kind.drafts or kind.chooses:
            continue
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
            advice = Advice(f"what fits, for {name}", error.hint) if error.hint else None
            return Found(Finding(_SECTION, name, words, "wrong", advice, facts))
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


def of_cache(subject: Subject, engine: Engine) -> Iterator[Finding]:
    """Yield what lies in the cache of the hub, or was fetched, and could draft for the model."""
    place, own = place_of(subject.named.base, subject.loading), subject.sources.named
    names = [name for name in _on_this_machine(subject) if name not in (subject.named.base, *own)]
    for name in names:
        for method in method_names():
            kind = method_class(method)
            try:
                info = kind.inspect(name, subject.sources.hub)
                if info is None or place_of(name, subject.draft_loading) == place:
                    continue
                if kind.exchange_type is DraftModel:
                    fits, option = _can_draft(subject, engine, name, info.config), "draft_model"
                else:
                    fits, option = _has_sizes(engine, info.config), "heads"
            except NfoxError:  # something else, or not whole
                continue
            if fits:
                command = subject.command("doctor", **{option: name})
                advice = Advice(f"{method} with {name}: this measures it", command)
                words = f"{name} is on this machine, and not used"
                yield Finding(_SECTION, method, words, advice=advice, facts={"cached": name})


def _on_this_machine(subject: Subject) -> list[str]:
    """Return the names of the models and heads that were fetched or lie in the hub's cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    kept = [name for name in KNOWN if kept_at(name)]
    try:
        repositories = scan_cache_dir(subject.loading.cache_dir).repos
    except CacheNotFound:
        return kept
    return kept + sorted(one.repo_id for one in repositories if one.repo_type == "model")


def _can_draft(subject: Subject, engine: Engine, name: str, config: dict[str, Any]) -> bool:
    """Return whether a language model is smaller than the target and has its tokens."""
    own = place_of(name, subject.draft_loading)
    size = weight_bytes(own, subject.draft_loading)
    ratio = config.get("vocab_size", 0) / engine.model.target.vocabulary_size
    if not 1 / _SIMILAR < ratio < _SIMILAR:  # to compare all tokens takes a while
        return False
    loading = replace(subject.loading, quantisation=None)
    target = weight_bytes(place_of(subject.named.base, loading), loading)
    if not 0 < _SMALLER * size < target:
        return False
    tokenizer, other = engine.model.tokenizer, tokenizer_of(own, subject.draft_loading)
    return None not in (tokenizer, other) and nearly_agree(tokenizer, other)


def _has_sizes(engine: Engine, config: dict[str, Any]) -> bool:
    """Return whether heads have the sizes of the target."""
    target = engine.model.target
    sizes = (config.get("hidden_size"), config.get("vocab_size") or target.vocabulary_size)
    return sizes == (target.hidden_size, target.vocabulary_size)
