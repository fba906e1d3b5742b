"""A peer's reply, counted as nfox's own are."""

from __future__ import annotations

from collections.abc import Sequence

from nfox.decoding.generate import Limits
from nfox.engine import Engine
from nfox.eval.peers.base import Block, Peer
from nfox.eval.peers.process import PeerProcess
from nfox.reply import Finish, Reply, Request
from nfox.reply_text import cut_at_stop
from nfox.text.stream import TextStream


def answer(peer: Peer | PeerProcess, engine: Engine, request: Request) -> Reply:
    """Return a peer's reply to a request, with the statistics of nfox's own replies.

    Of a peer's forwards only their tokens are seen. The first ones come with the prompt's forward,
    which is no step: steps, tokens and seconds of the stats are those after it.

    Args:
        peer: the program that answers.
        engine: the engine whose tokenizer, context and stop tokens hold.
        request: what is asked.

    Raises:
        PeerError: if it cannot answer.
    """
    prompt, settings = request.prompt, request.settings
    max_tokens = min(settings.max_new_tokens, engine.max_context - prompt.length + 1)
    limits = Limits(max_tokens, engine.max_context, engine.stop_ids)
    blocks = peer.blocks(prompt, settings, limits)
    reply = Reply(peer.name)
    reply.stats.prompt_tokens = len(prompt.ids)
    stops = (*request.stop_strings, *settings.stop)
    text = TextStream(engine.model.tokenizer, stops, trim=True)
    _count(reply, blocks, text, limits)
    text.finish()
    cut_at_stop(engine.model.tokenizer, reply, text)
    return reply


def _count(reply: Reply, blocks: Sequence[Block], text: TextStream, limits: Limits) -> None:
    """Add blocks of tokens to a reply and its statistics, as far as the reply's end.

    Args:
        reply: without tokens yet.
        blocks: the tokens of each forward; those of the prompt's forward first.
        text: takes the tokens, and stops at a stop string.
        limits: the most tokens, and the tokens that end the reply.
    """
    stats, before = reply.stats, 0.0
    finish: Finish | None = None
    for index, (moment, tokens) in enumerate(blocks):
        count = 0
        for token in tokens:
            count += 1
            if token in limits.stop_ids:
                finish = "stop"
                break
            reply.ids.append(token)
            text.push(token, "bonus", index)
            if text.stopped or len(reply.ids) == limits.max_tokens:
                finish = "stop" if text.stopped else "length"
                break
        if index:
            stats.steps += 1
            stats.tokens += count
            stats.lengths.append(count)
            stats.seconds += moment - before
        else:
            stats.prefill_seconds = stats.first_token_seconds = moment
        before = moment
        if finish:
            break
    reply.finish = finish or "length"
