"""A context that fills up: what becomes of the conversation, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nfox.conversation import Conversation
from nfox.errors import ContextError
from nfox.text.turns import ContextPolicy, turns_in

from ..options.chat import SessionArguments
from .repetition import hint, repeats_itself

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.reply import Reply

_NEARLY_FULL = 0.8  # of the context, from where on it is said


def new_conversation(
    engine: Engine, session: SessionArguments, policy: ContextPolicy
) -> Conversation:
    """Return a conversation as the options ask for it; the policy holds where they name none."""
    policy = session.context_policy or policy
    return Conversation(engine, history=not session.no_history, context_policy=policy)


@contextmanager
def hinting_at_room(conversation: Conversation) -> Iterator[None]:
    """Say of a prompt that does not fit into the context what makes room in this conversation."""
    try:
        yield
    except ContextError as error:
        hint = "/undo or /reset makes room; so does --context-policy drop, or a larger"
        if conversation.context_policy == "drop":  # all that can be left out was
            hint = "it is too long even without the turns before it: shorten it, or use a larger"
        raise ContextError(error.message, f"{hint} --max-context") from error


def no_longer_read(count: int, context: int) -> str:
    """Return which turns the model no longer reads: so many of the oldest."""
    turns = f"turns 1 to {count} are" if count > 1 else "turn 1 is"
    return f"{turns} no longer read: context {context:,}"


def hints(conversation: Conversation, reply: Reply) -> Iterator[str]:
    """Yield what is said under a reply of a chat: that it repeats itself, which more of it does not
    end, and about the room for the rest of it, or for the next one, where there is not enough.

    Args:
        conversation: that the reply ends.
        reply: the last one.
    """
    if repeats := repeats_itself(reply):
        yield hint(conversation.engine.settings, "/set repetition_penalty=")
    if room := _room(conversation, reply, repeats=repeats):
        yield room


def _room(conversation: Conversation, reply: Reply, *, repeats: bool) -> str:
    used = (reply.stats.prompt_tokens + reply.stats.tokens) / conversation.engine.max_context
    can_drop = conversation.context_policy == "drop" and turns_in(conversation.asked) > 1
    if reply.finish == "context":
        return "/continue goes on without the oldest turns" if can_drop else ""
    if used < _NEARLY_FULL:
        return _longer(conversation.engine) if reply.finish == "length" and not repeats else ""
    room = "the oldest turns make room for the next" if can_drop else "/undo and /reset make room"
    return f"the context is {used:.0%} full; {room}"


def _longer(engine: Engine) -> str:
    """Return how a reply that was cut gets longer."""
    limit, room = engine.settings.max_new_tokens, engine.max_context
    allowed = f", /set max_new_tokens={min(4 * limit, room)} allows longer ones"
    return f"/continue goes on with it{allowed if limit < room else ''}"
