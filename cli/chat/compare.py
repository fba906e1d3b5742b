"""The last reply once more, by plain decoding: is it the same, and how much faster was it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.drafters import plain
from nfox.errors import UsageError

from .interrupt import interruptible

if TYPE_CHECKING:
    from nfox.reply import Reply

    from .app import ChatApp


def compare(app: ChatApp, reply: Reply) -> str:
    """Run plain decoding over the last prompt, as far as the reply went; say how it compares.

    Raises:
        UsageError: if there is nothing to compare.
    """
    engine = app.engine
    baseline = plain()
    if reply.method == baseline:
        raise UsageError("the last reply was plain decoding itself", "/method chooses another")
    app.say(f"answering once more with {baseline} {app.screen.symbols.ellipsis}")
    with _plainly(app, baseline, reply), interruptible(engine):
        for _ in engine.updates(app.asked):
            pass
        other = engine.reply
    if other.stats.tokens < reply.stats.tokens and other.finish == "interrupt":
        return "stopped"
    ratio = reply.stats.tokens_per_second / other.stats.tokens_per_second
    return (
        f"{ratio:.2f}x measured: {reply.stats.tokens_per_second:.1f} tok/s with {reply.method}, "
        f"{other.stats.tokens_per_second:.1f} plainly; {_identity(reply, other)}"
        + ("" if ratio >= 1 else f"; drafting loses here, /method {baseline} is faster")
    )


@contextmanager
def _plainly(app: ChatApp, baseline: str, reply: Reply) -> Iterator[None]:
    """Decode plainly, with the last reply's random numbers and length; then all is as before."""
    engine = app.engine
    kept = (
        engine.method,
        engine.why,
        engine.drafter,
        engine.settings,
        engine.replies,
        engine.reply,
    )
    try:
        engine.use(baseline)
        engine.replies -= 1
        engine.settings = replace(app.settings, max_new_tokens=max(reply.stats.tokens, 1))
        yield
    finally:
        engine.method, engine.why, engine.drafter, engine.settings, engine.replies, engine.reply = (
            kept
        )
        # It has not heard what was decoded meanwhile.
        engine.drafter.rewind(max(reply.stats.prompt_tokens - 1, 0))


def _identity(reply: Reply, plain: Reply) -> str:
    pairs = zip(reply.ids, plain.ids, strict=False)
    first = next((place for place, (a, b) in enumerate(pairs, 1) if a != b), None)
    if first is None and len(reply.ids) == len(plain.ids):
        return "identical output: yes"
    place = first or min(len(reply.ids), len(plain.ids)) + 1
    return f"identical output: no, from token {place} of {len(reply.ids)} on"
