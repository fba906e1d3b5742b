"""What is asked of the engine, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, get_args

from typing_extensions import override

from nfox.decoding.generate import FinishReason, Prompt, Step
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.stats import Stats
from nfox.decoding.verify import Rule
from nfox.errors import UsageError
from nfox.text.messages import Message
from nfox.text.pieces import Piece
from nfox.text.thinking import Think

Finish = FinishReason | Literal["interrupt"]
"""Why a reply ended; "interrupt" where it was cancelled, or has not ended yet."""


@dataclass(frozen=True)
class Settings:
    """What can change from reply to reply.

    Args:
        sampling: how tokens are chosen.
        accept: the acceptance rule: "exact", "rejection" or "typical".
        lenience: of rejection; below 1 it is no longer lossless.
        epsilon: of typical acceptance (Medusa, Cai et al. 2024).
        delta: of typical acceptance.
        max_new_tokens: the most tokens of a reply.
        stop: strings that end a reply, besides the template's.
        keep_logits: put the target's logits into each step.
        think: whether the model is told to think before it answers, by its template's own switch;
            where that has none, it does as it does.
    """

    sampling: Sampling = field(default_factory=Sampling)
    accept: str = "exact"
    lenience: float = 1.0
    epsilon: float = 0.09
    delta: float = 0.3
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    keep_logits: bool = False
    think: Think = "auto"

    def __post_init__(self) -> None:
        if self.think not in get_args(Think):
            raise UsageError(f"think must be {' or '.join(get_args(Think))}, not {self.think!r}")
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        self.rule(0)  # refuses what does not fit together

    def rule(self, number: int) -> Rule:
        """Return a new acceptance rule for one reply.

        Args:
            number: of the reply; with the seed it fixes the noise.
        """
        return make_rule(
            self.accept,
            self.sampling,
            reply=number,
            lenience=self.lenience,
            epsilon=self.epsilon,
            delta=self.delta,
        )

    @property
    def lossless(self) -> bool:
        """Whether replies follow the target's own distribution."""
        return self.rule(0).lossless

    def changed(self, **changes: Any) -> Settings:
        """Return these settings with some of them changed.

        Args:
            changes: fields of `Settings`, or of its `Sampling`, by name; None leaves one as it is,
                and a single `stop` string is taken as a tuple of one.

        Raises:
            UsageError: for a name that there is not, or a value of another type or range.
        """
        checked = {name: _checked(name, value) for name, value in changes.items()}
        changes = {name: value for name, value in checked.items() if value is not None}
        drawn = {name: changes.pop(name) for name in SAMPLING_FIELDS & changes.keys()}
        sampling = replace(changes.pop("sampling", self.sampling), **drawn)
        return replace(self, sampling=sampling, **changes)


SAMPLING_FIELDS = frozenset(field.name for field in fields(Sampling))
"""The names of the settings that are fields of `Sampling`."""

_DEFAULTS = {
    field.name: getattr(values, field.name)
    for values in (Settings(), Sampling())
    for field in fields(values)
}


def _checked(name: str, value: Any) -> Any:
    """Return the value of a setting in its own type; None stays None."""
    if name not in _DEFAULTS:
        known = ", ".join(sorted(_DEFAULTS))
        raise UsageError(f"there is no setting {name!r}", f"it is one of {known}")
    default = _DEFAULTS[name]
    if value is None or (type(value) is type(default) and not isinstance(default, tuple)):
        return value
    if isinstance(default, tuple):
        strings = (value,) if isinstance(value, str) else value
        if isinstance(strings, list | tuple) and all(isinstance(text, str) for text in strings):
            return tuple(filter(None, strings))
        raise UsageError(f"{name} must be a string or several, not {value!r}")
    if isinstance(default, bool | str | Sampling) or isinstance(value, bool):
        raise UsageError(f"{name} must be of type {type(default).__name__}, not {value!r}")
    if isinstance(default, int) and isinstance(value, Integral):  # also those of numpy
        return int(value)
    if isinstance(default, float) and isinstance(value, Real):
        return float(value)
    wanted = "a whole number" if isinstance(default, int) else "a number"
    raise UsageError(f"{name} must be {wanted}, not {value!r}")


@dataclass(frozen=True)
class Request:
    """One reply that is wanted: everything that it depends on but the model.

    Args:
        prompt: what is decoded on from.
        settings: how.
        number: of the reply; with the seed it fixes the noise.
        stop_strings: strings that end the reply, besides those of the settings.
        stop_ids: tokens that end the reply; None for those of the engine's template.
    """

    prompt: Prompt
    settings: Settings
    number: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] | None = None


@dataclass(frozen=True)
class Exchange:
    """A reply, complete or not, and what it was asked by.

    Args:
        request: what was asked for.
        reply: what came of it so far.
        adapter: the adapter of the model that answered; None for none.
        template: the name of the template that the prompt was made with.
    """

    request: Request
    reply: Reply
    adapter: str | None = None
    template: str = ""


@dataclass(frozen=True)
class Update:
    """What one step added to a reply.

    Args:
        pieces: text that is now certain; it may lag behind the tokens.
        step: of the loop; None for the last text, which waited for more.
    """

    pieces: tuple[Piece, ...]
    step: Step | None


@dataclass
class Reply:
    """A reply, complete or not: it grows while it is streamed.

    Args:
        method: the name of the method that drafted it.
        ids: its token ids, without the stop token.
        text: what they say.
        is_cut_inside: whether a stop string cut the text inside of the token that followed `ids`,
            so that the text says more than they do.
        finish: why it ended; "interrupt" until it does.
        stats: counts and times of its steps.
    """

    method: str
    ids: list[int] = field(default_factory=list)
    text: str = ""
    is_cut_inside: bool = False
    finish: Finish = "interrupt"
    stats: Stats = field(default_factory=Stats)

    @override
    def __str__(self) -> str:
        return self.text

    @property
    def timings(self) -> dict[str, float]:
        """Tokens, milliseconds and tokens/s of prompt and reply, under llama.cpp's names."""
        return self.stats.timings()

    def message(self) -> Message:
        """Return it as a message; ids that are all of its text go along, so that they are never
        tokenised again.
        """
        is_spelled = self.ids and not self.is_cut_inside
        return Message("assistant", self.text, tuple(self.ids) if is_spelled else None)
