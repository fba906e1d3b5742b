"""Which conversation template a model gets.

It is one of `conversation_templates/`, one of FastChat's, the tokenizer's own, or that of a file.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, NonNegativeInt

from nfox.characters import cleaned
from nfox.errors import ModelError
from nfox.files.reading import parse_json, refusing
from nfox.text.forms import Turn
from nfox.text.template import HINT, Template, say
from nfox.text.tokenizer_templates import jinja_renderer, jinja_switch, own_source

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from transformers import PreTrainedTokenizerBase as Tokenizer

log = logging.getLogger(__name__)

TOKENIZER_OR_PLAIN = "tokenizer-or-plain"
"""The name that stands for the model's own template, and where it has none for the text alone."""
TOKENIZER_OR_NONE = "tokenizer-or-none"
"""The name that stands for the model's own template, and where it has none for one that refuses
conversations, so that texts can be continued."""
FALLBACKS: dict[str, str] = {TOKENIZER_OR_PLAIN: "plain", TOKENIZER_OR_NONE: "none"}

_METADATA_FIELDS = {"description", "models", "overrides_tokenizer"}
_COMMON_FIELDS = _METADATA_FIELDS | {"name", "system_message", "stop_str", "stop_token_ids"}
_JINJA_FIELDS = _COMMON_FIELDS | {"chat_template"}
_FASTCHAT_FIELDS = _COMMON_FIELDS | {"system_template", "roles", "sep_style", "sep", "sep2"}


class _TemplateFields(BaseModel, extra="ignore", strict=True):
    """The types of the fields of a template's file, of which some may be absent."""

    name: str
    chat_template: str | list[str] = ""
    system_message: str | None = None
    stop_str: str | list[str] | None = None
    stop_token_ids: list[NonNegativeInt] | None = None
    system_template: str = ""
    roles: list[str] = Field(["", ""], min_length=2, max_length=2)
    sep: str = ""
    sep2: str | None = None


def available() -> list[str]:
    """Return the names of the templates that come with nfox, then those of FastChat's others."""
    bundled = _bundled_files()
    return [*bundled, *sorted(_fastchat_templates().keys() - bundled.keys())]


def resolve(
    tokenizer: Tokenizer, name: str | None, *, model_name: str = "", system: str | None = None
) -> Template:
    """Return the template of a model. None is ever guessed.

    Args:
        tokenizer: the tokenizer of the model.
        name: the name of a template that comes with nfox, or else of one of FastChat's; a path
            that ends in .json; "tokenizer" for the tokenizer's own template, or "tokenizer:" and
            the name of one, where it has several. None is the tokenizer's own, or else the one
            that comes with nfox and lists the model; where there is neither, `TOKENIZER_OR_PLAIN`
            and `TOKENIZER_OR_NONE` say what is taken. A template that lists the model and says
            that it was not trained with its tokenizer's comes first.
        model_name: the model's name on the hub, for the `models` that templates list.
        system: the system message, in place of the template's.

    Raises:
        ModelError: if there is no such template, or it cannot be read.
    """
    if name is None or name in FALLBACKS:
        fallback = FALLBACKS.get(name or "")
        name = _default_name(model_name, bool(tokenizer.chat_template), fallback)
    if name == "none":
        return _without_template(model_name)
    template = _named(tokenizer, name)
    if is_foreign(template, tokenizer):
        say(
            f"the conversation template {template.name} is not the model's own, which its "
            "tokenizer has: --conv-template tokenizer"
        )
    if system is not None:
        template = replace(template, system=cleaned(system))
    return template.with_end(tokenizer)


def is_foreign(template: Template, tokenizer: Tokenizer) -> bool:
    """Return whether a template is another than that which the model's tokenizer has."""
    return template.origin != "tokenizer" and bool(tokenizer.chat_template)


def _named(tokenizer: Tokenizer, name: str) -> Template:
    """Return the template of a name."""
    if name in _bundled_files():
        return _from_file(tokenizer, _bundled_files()[name], "conversation_templates")
    if name in _fastchat_templates():
        return _from_conversation(_fastchat_templates()[name].copy(), "fastchat")
    if name.endswith(".json"):
        return _from_file(tokenizer, Path(name), name)
    if name.partition(":")[0] == "tokenizer":
        source = own_source(tokenizer, name)
        render, switch = jinja_renderer(tokenizer, source), jinja_switch(tokenizer, source)
        return Template(name, "tokenizer", render, adds_bos=False, switch=switch)
    close = ", ".join(difflib.get_close_matches(name, [*available(), "tokenizer"]))
    nearest = f"; did you mean {close}?" if close else ""
    raise ModelError(f"there is no conversation template {name}{nearest}", HINT)


def _default_name(
    model_name: str, tokenizer_has_template: bool, fallback: str | None = None
) -> str:
    """Return the name of the template of a model for which the person names none.

    Args:
        model_name: the model's name.
        tokenizer_has_template: whether its tokenizer has one of its own.
        fallback: the template where it has none; None refuses the model.

    Raises:
        ModelError: if there is none.
    """
    for name, file in _bundled_files().items():
        fields = parse_json(file.read_bytes(), file.name)
        if tokenizer_has_template and not fields.get("overrides_tokenizer"):
            continue
        patterns = fields.get("models", [])
        if any(re.match(pattern, Path(model_name).name, re.IGNORECASE) for pattern in patterns):
            return name
    if tokenizer_has_template:
        return "tokenizer"
    if fallback is not None:
        told = {"plain": "texts are taken as they are", "none": "it goes on with texts only"}
        log.warning("%s has no chat template: %s", model_name, told[fallback])
        return fallback
    raise ModelError(
        f"{model_name or 'the model'} has no chat template: say which one it was trained with",
        f"--conv-template {', '.join(_bundled_files())} (plain: a base model), or one of "
        "FastChat's",
    )


def _without_template(model_name: str) -> Template:
    """Return the template of a model that has none: it refuses all conversations."""

    def refuse(turns: Sequence[Turn], generate: bool) -> str:
        raise ValueError(f"{model_name} has no chat template; a text can be continued")

    return Template("none", "none", refuse)


def _bundled_files() -> dict[str, Traversable]:
    """Return the files of the templates that come with nfox, by the templates' names."""
    files = resources.files("nfox.conversation_templates").iterdir()
    by_name = {file.name[:-5]: file for file in files if file.name.endswith(".json")}
    return dict(sorted(by_name.items()))


def _fastchat_templates() -> dict[str, Any]:
    """Return FastChat's conversation templates by their names."""
    # FastChat's other modules take seconds to import, and guess a model's template.
    templates: dict[str, Any] = import_module("fastchat.conversation").conv_templates
    # Those without a style are lists of messages for the services of others.
    return {name: template for name, template in templates.items() if template.sep_style}


def _from_file(tokenizer: Tokenizer, path: Traversable, origin: str) -> Template:
    """Read a template from a file.

    The file has either a `chat_template` in Jinja, or the fields of FastChat's `Conversation`.
    """
    where = f"conversation template {path}"
    with refusing(where, error_type=ModelError, hint=HINT):
        fields = {"name": path.name, **parse_json(path.read_bytes(), where, error_type=ModelError)}
        known = _JINJA_FIELDS if "chat_template" in fields else _FASTCHAT_FIELDS
        if unknown := sorted(fields.keys() - known):
            raise ValueError(f"{', '.join(unknown)} unknown; known are {', '.join(sorted(known))}")
        _TemplateFields.model_validate(fields)
        if "chat_template" in fields:
            source, system = "".join(fields["chat_template"]), fields.get("system_message")
            render, switch = jinja_renderer(tokenizer, source), jinja_switch(tokenizer, source)
            stops, ids = _stops(fields.get("stop_str"), fields.get("stop_token_ids"))
            return Template(fields["name"], origin, render, stops, ids, system, switch=switch)
        fastchat = import_module("fastchat.conversation")
        styles = {style.name: style for style in fastchat.SeparatorStyle}
        if (style := fields.pop("sep_style", None)) not in styles:
            raise ValueError(f"sep_style {style} is none of {', '.join(styles)}")
        fields = {key: value for key, value in fields.items() if key not in _METADATA_FIELDS}
        return _from_conversation(fastchat.Conversation(sep_style=styles[style], **fields), origin)


def _from_conversation(conversation: Any, origin: str) -> Template:
    """Return the template that renders as a `Conversation` of FastChat does."""

    def render(turns: Sequence[Turn], generate: bool) -> str:
        filled = conversation.copy()
        if turns[0]["role"] == "system":
            filled.set_system_message(turns[0]["content"])
            turns = turns[1:]
        for number, turn in enumerate(turns):
            if turn["role"] != ("user", "assistant")[number % 2]:
                raise ValueError("behind a system message user and assistant take turns, no tools")
            filled.append_message(filled.roles[number % 2], turn["content"])
        if generate:
            filled.append_message(filled.roles[1], None)
        return str(filled.get_prompt())

    stops, ids = _stops(conversation.stop_str, conversation.stop_token_ids)
    return Template(conversation.name, origin, render, stops, ids)


def _stops(
    strings: str | list[str] | None, ids: list[int] | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return stop strings and stop ids as tuples, from what a template's file may hold there."""
    return ((strings,) if isinstance(strings, str) else tuple(strings or ())), tuple(ids or ())
