"""What was measured on a loaded model: forwards, the methods that are ready, and what other options
would give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from nfox.decoding import clock
from nfox.drafters import choosing_method, drafting_methods, method_class, plain_method
from nfox.drafters.common.method import DrafterInputs, Method
from nfox.known_models import questions_to_try
from nfox.models.memory import memory_in_use
from nfox.models.options import LoadProgress

from ..display.gain import is_disturbed
from ..display.header import CHECKS
from ..display.reply_stats import forward_costs
from .drafting import Found
from .findings import Advice, Finding, Mark
from .subject import Subject

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.reply import Reply

_SECTION = "measured"
_SECONDS = 4.0  # of answering by all methods
_FEWEST, _MOST = 8, 64  # tokens of a reply
GAIN = 1.1
"""Below, nothing is worth a word."""


@dataclass
class Speed:
    """What a method gave over all questions, each as fast as in the fastest of several rounds:
    whatever else the machine does only adds to what they take.

    Args:
        tokens: emitted.
        seconds: of the steps.
        steps: target forwards.
        replies: the token ids of each reply of all rounds.
        rates: the tokens per second of each of them.
    """

    tokens: int = 0
    seconds: float = 0.0
    steps: int = 0
    replies: list[list[int]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, rounds: Sequence[Sequence[Reply]]) -> Speed:
        """Return what a method gave in several rounds of the same questions."""
        every = [reply for replies in rounds for reply in replies]
        least = [
            max((reply.stats for reply in same), key=lambda stats: stats.tokens_per_second)
            for same in zip(*rounds, strict=True)
        ]
        return cls(
            sum(stats.tokens for stats in least),
            sum(stats.seconds for stats in least),
            sum(stats.steps for stats in least),
            [reply.ids for reply in every],
            [reply.stats.tokens_per_second for reply in every],
        )

    @property
    def tokens_per_second(self) -> float:
        """The tokens emitted in a second of decoding."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def tau(self) -> float:
        """The tokens of a step."""
        return self.tokens / max(self.steps, 1)


def of_loading(engine: Engine, seconds: float) -> Iterator[Finding]:
    """Yield what was loaded, what runs its forwards, and what steps of it cost.

    Args:
        engine: with the model.
        seconds: that loading took.
    """
    target, summary = engine.model.target, engine.summary()
    used = decimal(memory_in_use(target.device))
    words = f"{seconds:.1f} s, {summary.dtype} on {', '.join(target.devices)}, {used} in use"
    facts: dict[str, Any] = {"seconds": seconds, "memory_bytes": memory_in_use(target.device)}
    yield Finding(_SECTION, "loading", words, facts=facts)
    why = target.why_not_native if not target.is_native and target.device.type == "cpu" else ""
    forward = target.forward_description
    words = f"{forward}; {CHECKS[target.proposals]}"
    if target.copied_bytes:
        words += f"; {decimal(target.copied_bytes)} of weights are copied for it"
    words += f"; not native: {why}" if why and why not in words else ""
    facts = {"forward": forward, "native": target.is_native, "copies": target.copied_bytes}
    yield Finding(_SECTION, "forward", words, "warn" if why else "ok", facts=facts)
    if engine.costs is not None:
        words, pays = forward_costs(engine.costs), engine.costs.speculation_pays
        pays = pays or target.proposals == "nothing"  # then there is nothing to pay
        words += "" if pays else "; guessing cannot pay, whoever guesses"
        facts = {"seconds": engine.costs.seconds, "speculation_pays": pays}
        yield Finding(_SECTION, "step", words, "ok" if pays else "warn", facts=facts)


def of_methods(
    subject: Subject, engine: Engine, found: Iterable[Found], progress: LoadProgress
) -> Iterator[Finding]:
    """Yield how fast each method answers some questions, in turn, and which is to be taken.

    Args:
        subject: the model with its options.
        engine: with the model.
        found: the methods that fit it.
        progress: told what is measured.
    """
    plain, choosing = plain_method(), choosing_method()
    ways, commands, ready = {plain: engine.make(plain)}, dict[str, str](), dict[str, Method]()
    for one in found:
        if one.method is not None:
            ways[_label(one)] = one.method
            commands[_label(one)] = subject.command(method=one.finding.name, **one.changes)
            ready |= {} if one.changes else {one.finding.name: one.method}
    if ready:
        ways[choosing] = _choosing(subject, engine, ready)
    speeds = _measured(engine, ways, progress)
    base = speeds[plain]
    now = speeds.get(choosing, base)
    best = max(speeds, key=lambda name: speeds[name].tokens_per_second)
    for name, speed in speeds.items():
        gain = speed.tokens_per_second / now.tokens_per_second if now.seconds else 0.0
        advice = None
        surely = all(one > other for one, other in zip(speed.rates, now.rates, strict=False))
        sound = not any(_is_disturbed(one, base) for one in (speed, now))
        if name == best and gain > GAIN and surely and sound:
            text = f"{name} is faster on these questions than {choosing}, the default"
            command = commands.get(name, subject.command(method=name))
            advice = Advice(text, command, round(gain, 2))
        yield _of_speed(engine, name, speed, base, advice)


def _label(found: Found) -> str:
    """Return the name of a method, and that its weights are not used, where they are not."""
    return f"{found.finding.name} (unused)" if found.changes else found.finding.name


def _choosing(subject: Subject, engine: Engine, methods: Mapping[str, Method]) -> Method:
    """Return the method that chooses from the others, with those that are there already."""
    kind = method_class(choosing_method())
    names = drafting_methods(choosing_method(), subject.named.base, subject.sources)
    for method in methods.values():
        method.rewind(0)
    others = {name: (lambda it=methods[name]: it) for name in names if name in methods}
    return kind.build(DrafterInputs(engine.model, engine.costs, others=others), kind.options())


def _measured(
    engine: Engine, ways: Mapping[str, Method], progress: LoadProgress
) -> dict[str, Speed]:
    """Return the speeds of methods that answer questions in turn, so that all of them meet what
    else the machine does. Where there is time for several rounds, the first one is not counted:
    some methods learn in it.
    """
    questions = questions_to_try(engine.model.name)
    step = engine.costs.forward_seconds(1) if engine.costs else 0.1
    share = _SECONDS / 2 / (step * len(ways) * len(questions))
    tokens = int(min(max(share, _FEWEST), _MOST))
    rounds: list[dict[str, list[Reply]]] = []
    begin = clock.now()
    while not rounds or _has_time(clock.now() - begin, len(rounds)):
        replies: dict[str, list[Reply]] = {name: [] for name in ways}
        rounds.append(replies)
        for question in questions:
            for name, method in ways.items():
                progress.stage(f"measuring {name}")
                reply = engine.answer(question, drafter=method, max_new_tokens=tokens)
                replies[name].append(reply)
    counted = rounds[1:] or rounds
    return {name: Speed.of([one[name] for one in counted]) for name in ways}


def _has_time(seconds: float, rounds: int) -> bool:
    """Return whether there is time for one more round, after some that took so many seconds."""
    return seconds < 2 * _SECONDS if rounds == 1 else seconds / rounds * (rounds + 1) < _SECONDS


def _of_speed(
    engine: Engine, name: str, speed: Speed, base: Speed, advice: Advice | None
) -> Finding:
    """Return the speed of a method beside plain decoding, and whether it gave the same text."""
    ratio = speed.tokens_per_second / base.tokens_per_second if base.seconds else 0.0
    disturbed = _is_disturbed(speed, base)
    same = sum(a == b for a, b in zip(speed.replies, base.replies, strict=True))
    words = f"{speed.tokens_per_second:.1f} tok/s"
    if speed is not base:
        gain = "gain not known: other programs ran meanwhile" if disturbed else f"{ratio:.2f}x"
        words += f", {gain}, {speed.tau:.2f} tokens a step"
        words += f", the same text {same} of {len(base.replies)} times"
    facts = {
        "tokens_per_second": speed.tokens_per_second,
        "speedup": None if disturbed else ratio,
        "tau": speed.tau,
        "tokens": speed.tokens,
        "same_text": same,
        "replies": len(base.replies),
    }
    # Where forwards are native, every method gives the same text: nothing else may happen.
    differs = engine.model.target.is_native and same < len(base.replies)
    mark: Mark = "wrong" if differs else "warn" if disturbed else "ok"
    return Finding(_SECTION, name, words, mark, advice, facts)


def _is_disturbed(speed: Speed, base: Speed) -> bool:
    """Return whether a method's speed beside that of plain decoding is more than can be."""
    if not base.seconds:
        return False
    return is_disturbed(speed.tokens_per_second / base.tokens_per_second, speed.steps, speed.tau)
