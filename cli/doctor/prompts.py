"""Whether a model reads prompts that it was trained with, and its draft model the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nfox.drafters import method_class, method_names
from nfox.errors import ModelError, NfoxError
from nfox.export.formats import DraftModel
from nfox.models.draft_pairs import common_tokens, nearly_agree
from nfox.models.gguf_files import local_gguf, read_model_header
from nfox.models.gguf_model import gguf_tokenizer
from nfox.models.options import ModelOptions
from nfox.models.tokenizers import load_tokenizer
from nfox.text.messages import Message
from nfox.text.resolve import FALLBACKS, is_foreign, resolve

from .before import place_of
from .findings import Advice, Finding
from .subject import Subject

if TYPE_CHECKING:
    from nfox.engine import Engine

_SECTION = "prompts"


def of_template(subject: Subject, engine: Engine) -> Finding:
    """Return whether the target's prompts are those that it was trained with."""
    template, tokenizer = engine.template, engine.model.tokenizer
    own = template.origin == "tokenizer"
    words = "the tokenizer's own" if own else f"{template.name}, of {template.origin}"
    if template.name in FALLBACKS.values() and not subject.arguments.conv_template:
        words += ": the model has no chat template"
        command = subject.command(conv_template="list")
        advice = Advice("a template, if it is a chat model: this lists them", command)
        return Finding(_SECTION, "template", words, "warn", advice)
    if is_foreign(template, tokenizer):
        words += "; the model's tokenizer has another one of its own"
        advice = Advice("the model's own template", subject.command(conv_template="tokenizer"))
        return Finding(_SECTION, "template", words, "warn", advice)
    return Finding(_SECTION, "template", words)


def of_pairs(subject: Subject, engine: Engine) -> Iterator[Finding]:
    """Yield whether the draft model has the target's tokens and its chat template."""
    kinds = map(method_class, method_names())
    base, options = subject.named.base, subject.draft_loading
    for kind in kinds:
        location = kind.locate(base, subject.sources)
        if kind.exchange_type is not DraftModel or location is None:
            continue
        try:
            other = tokenizer_of(place_of(location, options), options)
        except ModelError as error:
            yield Finding(_SECTION, "tokenizer", error.message, "wrong")
            continue
        if other is None or engine.model.tokenizer is None:
            yield Finding(_SECTION, "tokenizer", "the draft model has none: it takes the target's")
            continue
        equal, smaller = common_tokens(engine.model.tokenizer, other)
        words = f"{equal:,} of {smaller:,} tokens of the draft model are the target's"
        agrees = nearly_agree(engine.model.tokenizer, other)
        yield Finding(_SECTION, "tokenizer", words, "ok" if agrees else "wrong")
        if agrees:
            yield _templates(engine, other)


def _templates(engine: Engine, other: Any) -> Finding:
    """Return whether a draft model was taught the prompts that it will read."""
    messages = [Message("user", "Hello")]
    if not other.chat_template:
        return Finding(_SECTION, "template", "the draft model has none: it reads the target's")
    try:
        same = resolve(other, "tokenizer").text(messages) == engine.template.text(messages)
    except NfoxError as error:
        return Finding(_SECTION, "template", error.message, "warn")
    if same:
        return Finding(_SECTION, "template", "target and draft model have the same prompts")
    words = "the draft model was made for other prompts than the target's, which it reads"
    return Finding(_SECTION, "template", words, "warn")


def tokenizer_of(place: str, options: ModelOptions) -> Any:
    """Return the tokenizer of a model's folder or GGUF file; None if it has none."""
    if path := local_gguf(place):
        return gguf_tokenizer(read_model_header(path), options)
    return load_tokenizer(place, options)
