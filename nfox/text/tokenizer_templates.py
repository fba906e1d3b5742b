"""The chat templates of a tokenizer: one, or several by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nfox.characters import whole_characters
from nfox.errors import ModelError
from nfox.text.forms import Render, Turn
from nfox.text.template import HINT
from nfox.text.thinking import ThinkSwitch, find_switch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


def own_names(tokenizer: Tokenizer) -> list[str]:
    """Return the names of the tokenizer's own templates, as `resolve` takes them."""
    own = tokenizer.chat_template
    if not isinstance(own, dict):
        return ["tokenizer"] if own else []
    default = ["tokenizer"] if "default" in own else []
    return default + [f"tokenizer:{name}" for name in own]


def own_source(tokenizer: Tokenizer, name: str) -> str:
    """Return the tokenizer's template of a name: "tokenizer", or "tokenizer:" and the template's.

    Raises:
        ModelError: if it has none of that name.
    """
    own, which = tokenizer.chat_template, name.partition(":")[2] or "default"
    if isinstance(own, str) and own:
        own = {"default": own}
    sources = own.values() if isinstance(own, dict) else [own or ""]
    if not all(isinstance(source, str) for source in sources):
        raise ModelError("the tokenizer's conversation template is no text", HINT)
    if not own:
        raise ModelError("the tokenizer has no conversation template of its own", HINT)
    if len(own) == 1 and which == "default":
        return str(*own.values())
    if which not in own:
        raise ModelError(
            f"the tokenizer has no conversation template {which}",
            f"choose one of its own: --conv-template {', '.join(own_names(tokenizer))}",
        )
    return str(own[which])


def jinja_renderer(
    tokenizer: Tokenizer, source: str, told: Mapping[str, Any] | None = None
) -> Render:
    """Return a function that renders turns by a Jinja source.

    Args:
        tokenizer: has the special tokens that it may name.
        source: the template.
        told: the values of other variables that it reads.
    """

    def render(turns: Sequence[Turn], generate: bool) -> str:
        from nfox.text.sandbox import render as render_within_limits

        variables = {
            **{"tools": None, "documents": None},
            **tokenizer.special_tokens_map,
            **(told or {}),
            **{"messages": list(turns), "add_generation_prompt": generate},
        }
        size = sum(len(str(turn["content"])) for turn in turns)
        return whole_characters(render_within_limits(source, variables, size))

    return render


def jinja_switch(tokenizer: Tokenizer, source: str) -> ThinkSwitch | None:
    """Return the switch for thinking that a Jinja source has; None if it has none."""
    from nfox.text.sandbox import outer_variables

    return find_switch(outer_variables(source), partial(jinja_renderer, tokenizer, source))
