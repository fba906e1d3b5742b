"""Which template a model gets: one of ours, of FastChat's, its tokenizer's, or a file's."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.errors import ModelError
from nfox.text.template import HINT, Template, Turn

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from transformers import PreTrainedTokenizerBase as Tokenizer

_NOTES = {"description", "models", "overrides_tokenizer"}
_COMMON = _NOTES | {"name", "system_message", "stop_str", "stop_token_ids"}
_JINJA = _COMMON | {"chat_template"}
_FASTCHAT = _COMMON | {"system_template", "roles", "sep_style", "sep", "sep2"}


def available() -> list[str]:
    """Return the names of our templates, then of FastChat's others."""
    return [*_own(), *sorted(_fastchat().keys() - _own().keys())]


def resolve(
    tokenizer: Tokenizer, name: str | None, *, model_name: str = "", system: str | None = None
) -> Template:
    """Find a model's template; never guess one.

    Args:
        tokenizer: the model's.
        name: one of ours, else of FastChat's; a path that ends in .json; or "tokenizer", the
            tokenizer's own. None: the tokenizer's own, else that of ours which lists the model;
            the other way round where ours says that the model was not trained with its tokenizer's.
        model_name: the model's name on the hub, for the `models` that our files list.
        system: replaces the template's system message.
    """
    if name is None:
        name = _published(model_name, bool(tokenizer.chat_template))
    if name in _own():
        template = _from_file(tokenizer, _own()[name], "conversation_templates")
    elif name in _fastchat():
        template = _from_conversation(_fastchat()[name].copy(), "fastchat")
    elif name.endswith(".json"):
        template = _from_file(tokenizer, Path(name), name)
    elif name == "tokenizer" and tokenizer.chat_template:
        template = Template(name, name, _jinja(tokenizer, None), adds_bos=False)
    else:
        close = ", ".join(difflib.get_close_matches(name, [*available(), "tokenizer"]))
        nearest = f"; did you mean {close}?" if close and name != "tokenizer" else ""
        raise ModelError(f"there is no conversation template {name}{nearest}", HINT)
    template = template if system is None else replace(template, system=system)
    return template.with_end(tokenizer)


def _published(model_name: str, has_own: bool) -> str:
    """Return which of our templates lists the model, or that its tokenizer has one to take."""
    for name, path in _own().items():
        fields = json.loads(path.read_text(encoding="utf-8"))
        if has_own and not fields.get("overrides_tokenizer"):
            continue
        patterns = fields.get("models", [])
        if any(re.match(pattern, Path(model_name).name, re.IGNORECASE) for pattern in patterns):
            return name
    if has_own:
        return "tokenizer"
    raise ModelError(
        f"{model_name or 'the model'} has no chat template: say which one it was trained with",
        f"--conv-template {', '.join(_own())} (plain: a base model), or one of FastChat's",
    )


def _own() -> dict[str, Traversable]:
    """Return our files by name."""
    files = resources.files("nfox.conversation_templates").iterdir()
    found = {file.name[:-5]: file for file in files if file.name.endswith(".json")}
    return dict(sorted(found.items()))


def _fastchat() -> dict[str, Any]:
    """Return FastChat's templates. Its other modules take seconds to import, and guess."""
    templates: dict[str, Any] = import_module("fastchat.conversation").conv_templates
    # Those without a style are lists of messages for the services of others.
    return {name: template for name, template in templates.items() if template.sep_style}


def _jinja(tokenizer: Tokenizer, source: str | None) -> Callable[[Sequence[Turn], bool], str]:
    def render(turns: Sequence[Turn], generate: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                list(turns), chat_template=source, tokenize=False, add_generation_prompt=generate
            )
        )

    return render


def _from_file(tokenizer: Tokenizer, path: Traversable, origin: str) -> Template:
    """Read a template: ours has a `chat_template`, FastChat's the fields of its Conversation."""
    try:
        fields = {"name": path.name, **json.loads(path.read_text(encoding="utf-8"))}
        known = _JINJA if "chat_template" in fields else _FASTCHAT
        if unknown := sorted(fields.keys() - known):
            raise ValueError(f"{', '.join(unknown)} unknown; known are {', '.join(sorted(known))}")
        if "chat_template" in fields:
            render = _jinja(tokenizer, "".join(fields["chat_template"]))
            stops, ids = _stops(fields.get("stop_str"), fields.get("stop_token_ids"))
            return Template(
                fields["name"], origin, render, stops, ids, fields.get("system_message")
            )
        fastchat = import_module("fastchat.conversation")
        styles = {style.name: style for style in fastchat.SeparatorStyle}
        if (style := fields.pop("sep_style", None)) not in styles:
            raise ValueError(f"sep_style {style} is none of {', '.join(styles)}")
        fields = {key: value for key, value in fields.items() if key not in _NOTES}
        return _from_conversation(fastchat.Conversation(sep_style=styles[style], **fields), origin)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"conversation template {path}: {error}", HINT) from error


def _from_conversation(conversation: Any, origin: str) -> Template:
    """Make a template of one of FastChat's."""

    def render(turns: Sequence[Turn], generate: bool) -> str:
        written = conversation.copy()
        if turns[0]["role"] == "system":
            written.set_system_message(turns[0]["content"])
            turns = turns[1:]
        for number, turn in enumerate(turns):
            if turn["role"] != ("user", "assistant")[number % 2]:
                raise ValueError("after the system message user and assistant must take turns")
            written.append_message(written.roles[number % 2], turn["content"])
        if generate:
            written.append_message(written.roles[1], None)
        return str(written.get_prompt())

    stops, ids = _stops(conversation.stop_str, conversation.stop_token_ids)
    return Template(conversation.name, origin, render, stops, ids)


def _stops(
    strings: str | list[str] | None, ids: list[int] | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return ((strings,) if isinstance(strings, str) else tuple(strings or ())), tuple(ids or ())
