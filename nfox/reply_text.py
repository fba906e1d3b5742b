"""From the steps of the loop to the text of a reply."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from nfox.decoding import clock
from nfox.decoding.cache import KVCache
from nfox.decoding.generate import Prompt, Step
from nfox.reply import Reply, Request, Update
from nfox.text.messages import Message
from nfox.text.pieces import Piece, ThinkSplitter
from nfox.text.stream import TextStream, decode_text, reply_text


def to_updates(
    steps: Iterator[Step], tokenizer: Any, request: Request, reply: Reply, stop_ids: frozenset[int]
) -> Generator[Update]:
    """Turn the tokens of a reply's steps into text, and yield what every step adds.

    Args:
        steps: of the loop.
        tokenizer: of the target.
        request: what is asked for.
        reply: gets the ids, the text and the statistics as they come.
        stop_ids: tokens that end the reply and are no part of its text.
    """
    begun = request.prompt.ids if request.prompt.continued else ()

    def new_text() -> TextStream:
        stops = (*request.stop_strings, *request.settings.stop)
        return TextStream(tokenizer, stops, begun, trim=not begun)

    text, thoughts = new_text(), ThinkSplitter(request.prompt.thinking)
    try:
        for step in steps:
            pieces = _take(step, reply, text, stop_ids, thoughts)
            reply.finish = "stop" if text.stopped else step.finish or "interrupt"
            yield Update(tuple(pieces), step)
            if text.stopped:
                break
        rest = text.finish()
        reply.text, reply.finish = text.text, "stop" if text.stopped else reply.finish
        if rest:
            yield Update(tuple(rest), None)
    except GeneratorExit:
        raise
    except BaseException:  # it may have been in the middle of a token, which is read anew
        text = new_text()
        for token in reply.ids:
            text.push(token, "bonus", 0)
        raise
    finally:
        text.finish()
        cut_at_stop(tokenizer, reply, text, begun)


def timed(steps: Iterator[Step], prompt: Prompt, cache: KVCache, reply: Reply) -> Iterator[Step]:
    """Yield the steps of a reply; note in its statistics what reading the prompt took.

    Args:
        steps: of the loop, which reads the prompt before it yields the first.
        prompt: what is read.
        cache: what the target has read.
        reply: whose statistics they are.
    """
    stats = reply.stats
    stats.prompt_tokens = prompt.length
    start = clock.now()
    for index, step in enumerate(steps):
        stats.cached_tokens = cache.reused
        if index == 0:
            stats.prefill_seconds = clock.now() - start - step.times.total
        yield step
    stats.cached_tokens = cache.reused  # also where the reading was cancelled


def _take(
    step: Step,
    reply: Reply,
    text: TextStream,
    stop_ids: frozenset[int],
    thoughts: ThinkSplitter,
) -> list[Piece]:
    """Add a step's tokens to the reply; return the text that they complete."""
    pieces: list[Piece] = []
    count = thought = 0
    for token, source in zip(step.tokens, step.sources, strict=True):
        count += 1
        if token in stop_ids:
            break
        reply.ids.append(token)
        new, was_inside = text.push(token, source, reply.stats.steps), thoughts.inside
        for piece in new:
            thoughts.push(piece)
        thought += was_inside or thoughts.inside
        pieces += new
        if text.stopped:
            break
    reply.stats.add(step, count, thought)
    reply.text = text.text
    return pieces


def cut_at_stop(
    tokenizer: Any, reply: Reply, text: TextStream, begun: tuple[int, ...] = ()
) -> None:
    """Take a stop string from a reply's text, and what belongs to it from its ids: it is why the
    reply ended, also where its last token was the last that was asked for.

    Args:
        tokenizer: of the model.
        reply: a reply that has ended.
        text: the stream of its text.
        begun: the token ids that the reply goes on from.
    """
    reply.text = text.text
    if not text.stopped:
        return
    reply.finish = "stop"
    before = decode_text(tokenizer, begun)

    def spelled_reply() -> str:
        after = decode_text(tokenizer, [*begun, *reply.ids])[len(before) :]
        return after if begun else after.removeprefix(" ")

    while reply.ids and len(spelled_reply()) > len(text.text):
        reply.ids.pop()
    reply.is_cut_inside = spelled_reply() != text.text


def joined(messages: Sequence[Message], reply: Reply, tokenizer: Any) -> list[Message]:
    """Return messages and the reply to them; if the last message is a reply, joined with it.

    Args:
        messages: a conversation.
        reply: a reply that has ended.
        tokenizer: of the model.
    """
    *before, begun = messages
    if begun.role != "assistant" or begun.ids is None:
        return [*messages, reply.message()]
    if reply.is_cut_inside:  # known as text only
        return [*before, Message("assistant", begun.content + reply.text)]
    ids = (*begun.ids, *reply.ids)
    # All ids are decoded anew: the cut may have been inside a character.
    return [*before, Message("assistant", reply_text(tokenizer, ids), ids)]
