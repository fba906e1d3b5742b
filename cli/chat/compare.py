"""The last reply decoded once more without drafting: is it the same, and how much slower?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.decoding.cache import common_prefix
from nfox.drafters import plain
from nfox.errors import UsageError

from .interrupt import interruptible

if TYPE_CHECKING:
    from nfox.reply import Reply

    from .app import ChatApp


def compare(app: ChatApp, reply: Reply) -> str:
    """Decode the last reply once more without drafting, and return how speed and tokens compare.

    Args:
        app: the app that drew the reply.
        reply: the last reply.

    Raises:
        UsageError: if the last reply was itself decoded without drafting.
    """
    engine = app.engine
    baseline = plain()
    if reply.method == baseline:
        raise UsageError("the last reply was plain decoding itself", "/method chooses another")
    app.say(f"answering once more with {baseline} {app.screen.symbols.ellipsis}")
    with _plainly(app, baseline, reply), interruptible(engine):
        for _ in engine.updates(app.last_messages):
            pass
        plain_reply = engine.reply
    if plain_reply.stats.tokens < reply.stats.tokens and plain_reply.finish == "interrupt":
        return "stopped"
    speedup = reply.stats.tokens_per_second / plain_reply.stats.tokens_per_second
    return (
        f"{speedup:.2f}x measured: {reply.stats.tokens_per_second:.1f} tok/s with {reply.method}, "
        f"{plain_reply.stats.tokens_per_second:.1f} plainly; {_identity(reply, plain_reply)}"
        + ("" if speedup >= 1 else f"; drafting loses here, /method {baseline} is faster")
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
        engine.settings = replace(app.last_settings, max_new_tokens=max(reply.stats.tokens, 1))
        yield
    finally:
        engine.method, engine.why, engine.drafter, engine.settings, engine.replies, engine.reply = (
            kept
        )
        # It has not heard what was decoded meanwhile.
        engine.drafter.rewind(max(reply.stats.prompt_tokens - 1, 0))


def _identity(reply: Reply, plain_reply: Reply) -> str:
    """Return whether two replies are the same, and if not, from which token on they differ."""
    same = common_prefix(reply.ids, plain_reply.ids)
    if same == len(reply.ids) == len(plain_reply.ids):
        return "identical output: yes"
    return f"identical output: no, from token {same + 1} of {len(reply.ids)} on"
