"""The last reply decoded once more without drafting: is it the same, and how much slower?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.counting import counted
from nfox.decoding.cache import common_prefix
from nfox.drafters import plain_method
from nfox.errors import UsageError
from nfox.plain_reply import Parting, decode_plainly, find_parting, measure_surprise

from ..display.gain import is_disturbed
from ..display.steps import visible_text
from .interrupt import interruptible

if TYPE_CHECKING:
    from nfox.reply import Exchange, Reply

    from .app import ChatApp


def compare(app: ChatApp, last: Exchange) -> str:
    """Decode the last reply once more without drafting, and return how speed and tokens compare.

    Args:
        app: the app that drew the reply.
        last: the last reply, and what it was asked by.

    Raises:
        UsageError: if the last reply was itself decoded without drafting, or with another adapter.
    """
    reply, plain_reply = last.reply, _plainly(app, last)
    if plain_reply is None:
        return "stopped"
    speedup = reply.stats.tokens_per_second / plain_reply.stats.tokens_per_second
    disturbed = is_disturbed(speedup, reply.stats.steps, reply.stats.tau)
    return (
        f"{speedup:.2f}x measured: {reply.stats.tokens_per_second:.1f} tok/s with {reply.method}, "
        f"{plain_reply.stats.tokens_per_second:.1f} plainly; {_identity(reply, plain_reply)}"
        + ("" if speedup >= 1 else f"; drafting loses here, /method {plain_method()} is faster")
        + ("; other programs ran meanwhile: measure again" if disturbed else "")
    )


def prove(app: ChatApp, last: Exchange) -> list[str]:
    """Decode the last reply once more without drafting, and return lines that say whether it is
    the one that plain decoding gives; where it differs, where and why.

    Where drafts have a part in the random numbers, the texts differ by right: then it is tested
    whether the reply follows the target's distribution.

    Raises:
        UsageError: as `compare` does.
    """
    reply, settings = last.reply, last.request.settings
    rule = settings.rule(last.request.number)
    if rule.follows_drafts:
        return _test(app, last)
    plain_reply = _plainly(app, last)
    if plain_reply is None:
        return ["stopped"]
    sampling = settings.sampling
    random = "" if sampling.greedy else f", temperature {sampling.temperature:g}, same noise"
    parting = find_parting(app.engine, last.request, reply, plain_reply)
    if parting is None and reply.text == plain_reply.text:
        end = " and the end" if reply.stats.tokens > len(reply.ids) else ""
        prompt = counted(len(last.request.prompt.ids), "token")
        return [
            f"identical: {counted(len(reply.ids), 'token')}{end}, as plain decoding gives from the "
            f"same prompt of {prompt} (adapter {last.adapter or 'none'}, template "
            f"{last.template}{random})"
        ]
    if parting is None:
        return ["not identical: the same tokens, but another text; that is a bug"]
    return _explained(app, parting, len(reply.ids))


def _explained(app: ChatApp, parting: Parting, length: int) -> list[str]:
    """Return where a reply parts from the plain one, and whether rounding explains it."""
    tokenizer, symbols = app.engine.model.tokenizer, app.screen.symbols
    own, plain = (
        visible_text(token, tokenizer, symbols) for token in (parting.token, parting.plain_token)
    )
    cause = "a near-tie, no bug" if parting.is_near_tie else "no near-tie: a bug, please report it"
    return [
        f"not identical, from token {parting.index + 1} of {length} on: {own} (id {parting.token}) "
        f"where plain decoding says {plain} (id {parting.plain_token})",
        f"a plain step scores them {parting.gap:.4g} apart; rounding moves such a difference by up "
        f"to {parting.rounding:.4g} here, as measured: {cause}",
    ]


def _test(app: ChatApp, last: Exchange) -> list[str]:
    """Return whether a reply whose random numbers depend on drafts follows the target's
    distribution.
    """
    _check_target(app, last)
    settings = last.request.settings
    found = measure_surprise(app.engine, last.request, last.reply)
    verdict = "as the target would draw them" if found.is_consistent else "NOT as the target would"
    loss = "" if settings.lossless else "; these settings are not lossless"
    return [
        f"{settings.accept} acceptance at temperature {settings.sampling.temperature:g} draws by "
        "other random numbers than plain decoding: no text to compare, but a test of chances",
        f"{counted(found.tokens, 'token')} of {found.mean:.3f} nats each, "
        f"{found.expected:.3f} expected: {found.deviations:+.1f} standard deviations, "
        f"{verdict}{loss}",
    ]


def _check_target(app: ChatApp, last: Exchange) -> None:
    """Refuse a reply that another target gave than there is now.

    Raises:
        UsageError: if the adapter is another one.
    """
    if last.adapter != app.engine.model.adapter:
        raise UsageError(
            f"the last reply was given with another adapter ({last.adapter or 'none'})",
            f"/adapter {last.adapter or 'none'} brings it back, /regen answers anew",
        )


def _plainly(app: ChatApp, last: Exchange) -> Reply | None:
    """Return the last reply decoded once more without drafting, by the prompt, settings and target
    that it was made with; None if that was stopped.

    Raises:
        UsageError: if the last reply was itself decoded without drafting, or with another adapter.
    """
    baseline, reply = plain_method(), last.reply
    if reply.method == baseline:
        raise UsageError("the last reply was plain decoding itself", "/method chooses another")
    _check_target(app, last)
    app.say(f"answering once more by plain decoding {app.screen.symbols.ellipsis}")
    stream = decode_plainly(app.engine, last.request, reply)
    with interruptible(stream):
        plain_reply = stream.read_to_end()
    is_stopped = plain_reply.finish == "interrupt"
    return None if is_stopped and plain_reply.stats.tokens < reply.stats.tokens else plain_reply


def _identity(reply: Reply, plain_reply: Reply) -> str:
    """Return whether two replies are the same, and if not, from which token on they differ."""
    same = common_prefix(reply.ids, plain_reply.ids)
    if same == len(reply.ids) == len(plain_reply.ids):
        return "identical output: yes"
    return f"identical output: no, from token {same + 1} of {len(reply.ids)} on (/prove says why)"
