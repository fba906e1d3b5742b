"""From the steps of a reply to the events of its request."""

from __future__ import annotations

from nfox.reply import Reply
from nfox.reply_stream import ReplyStream
from nfox.serve.errors import DeadlineExceeded
from nfox.serve.logprobs import SpelledLogprobs
from nfox.serve.pending_reply import Delta, PendingReply


def tell(
    pending: PendingReply, choice: int, stream: ReplyStream, logprobs: SpelledLogprobs
) -> Reply:
    """Put what each step adds to a reply; return the reply at its end.

    Args:
        pending: gets the events.
        choice: the index of the reply among those of its request.
        stream: of the reply.
        logprobs: of the reply's tokens, where they were asked for.

    Raises:
        DeadlineExceeded: if the request's time passes before its first token.
    """
    with stream:
        reply = stream.reply
        for update in stream.updates():
            if update.step is not None:
                logprobs.add(update.step, len(reply.ids) - logprobs.count)
            added = logprobs.certain(len(reply.text))
            if update.pieces or added:
                counts = len(reply.ids), reply.stats.steps
                pending.put(Delta(choice, update.pieces, added, *counts))
    if not (reply.stats.steps or choice or pending.cancelled.is_set()):
        raise DeadlineExceeded("its time passed before the first token", "try again later")
    return reply
