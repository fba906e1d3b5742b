"""The last reply decoded once more without drafting: is it the same, and how much slower?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.decoding.cache import common_prefix
from nfox.drafters import plain_method
from nfox.errors import UsageError

from .interrupt import interruptible

if TYPE_CHECKING:
    from nfox.reply import Exchange, Reply

    from .app import ChatApp


def compare(app: ChatApp, last: Exchange) -> str:
    """Decode the last reply once more without drafting, and return how speed and tokens compare.

    The random numbers are the same, and the length at most; the engine's cache stays as it is.

    Args:
        app: the app that drew the reply.
        last: the last reply, and what it was asked by.

    Raises:
        UsageError: if the last reply was itself decoded without drafting, or by another model.
    """
    engine, request, reply = app.engine, last.request, last.reply
    baseline = plain_method()
    if reply.method == baseline:
        raise UsageError("the last reply was plain decoding itself", "/method chooses another")
    if last.adapter != engine.model.adapter:
        raise UsageError("the last reply was given with another adapter", "/regen answers anew")
    app.say(f"answering once more with {baseline} {app.screen.symbols.ellipsis}")
    settings = replace(request.settings, max_new_tokens=max(reply.stats.tokens, 1))
    stream = engine.stream(
        replace(request, settings=settings),
        drafter=engine.make(baseline),
        cache=engine.cache.fork(len(request.prompt.ids) - 1),
    )
    with interruptible(stream):
        plain_reply = stream.read_to_end()
    if plain_reply.stats.tokens < reply.stats.tokens and plain_reply.finish == "interrupt":
        return "stopped"
    speedup = reply.stats.tokens_per_second / plain_reply.stats.tokens_per_second
    return (
        f"{speedup:.2f}x measured: {reply.stats.tokens_per_second:.1f} tok/s with {reply.method}, "
        f"{plain_reply.stats.tokens_per_second:.1f} plainly; {_identity(reply, plain_reply)}"
        + ("" if speedup >= 1 else f"; drafting loses here, /method {baseline} is faster")
    )


def _identity(reply: Reply, plain_reply: Reply) -> str:
    """Return whether two replies are the same, and if not, from which token on they differ."""
    same = common_prefix(reply.ids, plain_reply.ids)
    if same == len(reply.ids) == len(plain_reply.ids):
        return "identical output: yes"
    return f"identical output: no, from token {same + 1} of {len(reply.ids)} on"
