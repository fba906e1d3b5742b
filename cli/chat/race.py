"""A race: one request answered by several methods, in turn, then shown side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nfox import drafters
from nfox.errors import UsageError
from nfox.race import Race, Run, compare, enter, record, unexplained
from nfox.reply import Reply

from ..display.race_picture import answering
from .interrupt import interruptible, silent_keyboard

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.eval.bench.entrants import MethodEntrant
    from nfox.reply import Request

    from ..display.race_picture import RacePicture
    from ..display.theme import Screen

_MOST = 4  # columns that a terminal has room for
_WARM_UP = 8  # tokens
Say = Callable[[str], None]


def usual_methods(engine: Engine) -> list[str]:
    """Return who races where nobody is named: plain decoding, and what drafts here.

    Raises:
        UsageError: if nothing does.
    """
    plain, method = drafters.plain_method(), engine.method
    if method == plain:
        method, _ = drafters.choose_method(engine.model, engine.sources, ())
    if method == plain:
        raise UsageError("no method drafts for this model", "`nfox methods` says what each needs")
    return [plain, method]


def parse(names: Sequence[str]) -> list[MethodEntrant]:
    """Return the methods of a race.

    Args:
        names: methods with their options, as `spec:gamma=4`.

    Raises:
        UsageError: if there are too few or too many, or one is unknown or has no such option.
    """
    if not 2 <= len(names) <= _MOST:
        raise UsageError(f"expected 2 to {_MOST} methods that race, got {len(names)}")
    from nfox.eval.bench.entrants import MethodEntrant

    return [MethodEntrant.parse(name) for name in names]


def measure(
    engine: Engine, request: Request, entrants: Sequence[MethodEntrant], screen: Screen, say: Say
) -> Race:
    """Let several methods answer a request, one after the other; Ctrl-C stops the race.

    Args:
        engine: the engine that answers; its method and its cache stay.
        request: what is asked for.
        entrants: the methods.
        screen: shows who answers, and how far that is, where it may.
        say: is called with a line before each otherwise.

    Raises:
        NfoxError: if a method lacks what it needs.
    """
    # All of them first: what the last one lacks is told before the first one answers.
    made = [(one.name, engine.make(one.method, one.options)) for one in entrants]
    runs = [Run(name, Reply(drafter.method_name())) for name, drafter in made]
    for number, (name, drafter) in enumerate(made):
        with answering(name, screen, say) as on_step:
            for tokens in (_WARM_UP, None):  # what a drafter does once is no part of its pace
                stream = enter(engine, request, drafter, tokens)
                with interruptible(stream):
                    runs[number] = record(name, drafter, stream, on_step)
                if not runs[number].is_complete:
                    return compare(engine, request, runs)
    try:
        return compare(engine, request, runs)
    except KeyboardInterrupt:
        say("stopped looking for why texts differ")
        return unexplained(request, runs)


def show(picture: RacePicture, screen: Screen, say: Say) -> bool:
    """Show a race: played at its own pace where a terminal can, then as it ended. Ctrl-C stops it
    where it is; of a race that was stopped while it was measured, where each stood is said.

    Args:
        picture: of the race.
        screen: the screen to draw on.
        say: is called with lines around it.

    Returns:
        Whether it came to its end.
    """
    race, stopped = picture.race, None
    if race.is_complete:
        if screen.live:
            with silent_keyboard():
                stopped = picture.play(screen)
        screen.console.print(picture.frame(screen, stopped, whole=True))
    if stopped is not None or not race.is_complete:
        say("stopped; where each stood:" if stopped is None else "stopped; what was measured:")
        for line in picture.results.table(screen.symbols):
            say(line)
    say(picture.note)
    return stopped is None and race.is_complete
