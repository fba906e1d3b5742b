"""Whether a model thinks before it answers: what its template can be told, and where it begins to.

Templates differ in how they are told. The one idea: what a template reads from outside is known by
its source, and what it makes of it is seen: a name that changes nothing is no switch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nfox.text.forms import Render, Turn
from nfox.text.pieces import THINK_TAGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Think = Literal["auto", "on", "off"]
"""Whether a model is told to think before it answers; "auto" tells it nothing."""

_VALUES: dict[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),  # Qwen 3, GLM 4.5, SmolLM 3, Gemma 4, Hunyuan
    "thinking": (True, False),  # Granite 3.2, DeepSeek V3.1, Kimi K2
    "thinking_mode": ("enabled", "disabled"),  # MiniMax M3
    "thinking_budget": (-1, 0),  # Seed-OSS: tokens, of which -1 are any number
}
"""What templates are told by, each with its values for on and off."""

_ASKED: tuple[list[Turn], ...] = (
    [{"role": "user", "content": "a"}],
    [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
)
_NEAR = 16  # tokens at the end of a prompt that are enough to spell a tag and what follows it


@dataclass(frozen=True)
class ThinkSwitch:
    """What a template is told by whether its model is to think.

    Args:
        name: of the variable in the template.
        on: the template that was told yes.
        off: the template that was told no.
    """

    name: str
    on: Render
    off: Render


def find_switch(
    names: Collection[str], told: Callable[[Mapping[str, Any]], Render]
) -> ThinkSwitch | None:
    """Return the switch for thinking that a template has; None if it has none.

    Args:
        names: of the variables that the template reads.
        told: returns the template with values for some of its variables.
    """
    for name, (on, off) in _VALUES.items():
        if name in names:
            switch = ThinkSwitch(name, told({name: on}), told({name: off}))
            if _differs(switch):
                return switch
    return None


def think_of(told: Mapping[str, Any]) -> Think:
    """Return what values for the variables of a template say about thinking, by any of the names
    that templates have for it: the one that asks need not know the template's.
    """
    for name, (on, off) in _VALUES.items():
        if told.get(name) in (on, off):
            return "on" if told[name] == on else "off"
    return "auto"


def _differs(switch: ThinkSwitch) -> bool:
    """Return whether both ways of a switch lead to different prompts."""
    for asked in _ASKED:
        try:
            return switch.on(asked, True) != switch.off(asked, True)
        except Exception:  # a template is a program, and not ours
            continue
    return False


def begins_thought(tokenizer: Tokenizer, prompt: Sequence[int]) -> bool:
    """Return whether a reply to a prompt begins inside what the model thinks, as the prompt ends
    with the tag that opens it.
    """
    return str(tokenizer.decode(prompt[-_NEAR:])).rstrip().endswith(THINK_TAGS[0])


def is_thought_at_end(text: str) -> bool | None:
    """Return whether a text ends inside what the model thinks; None if it has no tag that says."""
    opened, closed = (text.rfind(tag) for tag in THINK_TAGS)
    return None if opened == closed else opened > closed
