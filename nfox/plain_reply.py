"""A reply decoded once more without drafting, and what explains a difference.

What differs where nothing may is a near-tie or an error. How far rounding moves scores is measured
at the very place: forwards of several widths are compared with a plain step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log, sqrt

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.tree import TokenTree
from nfox.drafters import plain_method
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.reply import Reply, Request
from nfox.reply_stream import ReplyStream

_WIDTHS = (2, 4, 8, 16)  # of the forwards that are compared with a plain step
_CHUNK = 16  # tokens that are scored at once
_CERTAIN = 3.0  # standard deviations: one in 370 replies is that far off by chance
_FAR = 1000.0  # a token that can never be drawn is so much less likely


@dataclass(frozen=True)
class Parting:
    """Where a reply and the plain one part.

    Args:
        index: which token of the reply, from 0.
        token: the reply's token there; one that ends it where it is over.
        plain_token: the plain reply's.
        gap: by how much a plain step scores the plain token higher than the other one, by logits
            with their temperature, penalties and noise.
        rounding: by how much the difference of two scores can change there with the width of a
            forward, as measured.
    """

    index: int
    token: int
    plain_token: int
    gap: float
    rounding: float

    @property
    def is_near_tie(self) -> bool:
        """Whether rounding explains it."""
        return 0 <= self.gap <= self.rounding


@dataclass(frozen=True)
class Surprise:
    """How unlikely the tokens of a sampled reply are, and how unlikely they should be.

    Args:
        tokens: how many there are.
        mean: their mean -log p under the target, in nats; infinite if one of them cannot be drawn.
        expected: the mean of the entropies of the distributions that they were drawn from.
        deviations: how many standard deviations lie between, which for a reply that follows the
            target's distribution is about a standard normal number.
    """

    tokens: int
    mean: float
    expected: float
    deviations: float

    @property
    def is_consistent(self) -> bool:
        """Whether the reply may well have been drawn from the target's distribution."""
        return abs(self.deviations) < _CERTAIN


def decode_plainly(engine: Engine, request: Request, reply: Reply) -> ReplyStream:
    """Return the stream of a reply decoded once more without drafting, with the same random
    numbers and at most as long. The engine's cache stays as it is.

    Args:
        engine: the engine that gave the reply, with the same adapter.
        request: what was asked for.
        reply: what came of it.
    """
    settings = replace(request.settings, max_new_tokens=max(reply.stats.tokens, 1))
    return engine.stream(
        replace(request, settings=settings),
        drafter=engine.make(plain_method()),
        cache=engine.cache.fork(len(request.prompt.ids) - 1),
    )


def find_parting(engine: Engine, request: Request, reply: Reply, plain: Reply) -> Parting | None:
    """Return where a reply and the plain one part; None where they do not.

    Args:
        engine: the engine that gave both.
        request: what was asked for.
        reply: a reply.
        plain: the same one, decoded without drafting.
    """
    if reply.ids == plain.ids:
        return None
    parting = locate_parting(engine, request, reply.ids, plain.ids)
    past = plain.ids[: parting.index]
    return replace(parting, rounding=2 * _rounding(engine, request, past))


def locate_parting(
    engine: Engine, request: Request, ids: Sequence[int], plain_ids: Sequence[int]
) -> Parting:
    """Return where the tokens of two replies part, with the gap of their scores; rounding is not
    measured, and 0.

    Args:
        engine: the engine that gave both.
        request: what was asked for.
        ids: of a reply.
        plain_ids: of the same one, decoded without drafting; others than `ids`.
    """
    index = common_prefix(ids, plain_ids)
    scores = plain_scores(engine, request, plain_ids[:index])
    end = max(engine.stop_ids_of(request), key=lambda stop: scores.get(stop, -inf), default=0)
    token, plain_token = ([*said[index : index + 1], end][0] for said in (ids, plain_ids))
    gap = scores.get(plain_token, -inf) - scores.get(token, -_FAR)
    return Parting(index, token, plain_token, gap, 0.0)


def plain_scores(
    engine: Engine, request: Request, past: Sequence[int], width: int = 1
) -> dict[int, float]:
    """Return the scores by which a reply's next token is chosen, by token id.

    Args:
        engine: the engine that gives the reply.
        request: what it is asked for.
        past: the reply's tokens so far.
        width: the number of tokens that the forward has; 1 is a plain step.
    """
    target, tokens = engine.model.target, [*request.prompt.ids, *past]
    cache = target.new_cache()
    cache.reuse(tokens, request.prompt.encoder_ids)
    target.read(tokens[:-width], cache)
    logits, _ = target.score(
        TokenTree.chain(tokens[-width], tokens[len(tokens) - width + 1 :]), cache
    )
    rule = request.settings.rule(request.number)
    drawn, chances, *_ = rule.draw(logits[-1].double(), tokens, target.vocabulary_size)
    return {token: log(chance) for token, chance in zip(drawn, chances, strict=True)}


def _rounding(engine: Engine, request: Request, past: Sequence[int]) -> float:
    """Return by how much the width of a forward moves a score at most."""
    length = len(request.prompt.ids) + len(past)
    widths = [width for width in _WIDTHS if width <= length]
    if engine.model.target.proposals == "nothing":
        return 0.0
    scores = plain_scores(engine, request, past)
    wide = [plain_scores(engine, request, past, width) for width in widths]
    return max(
        (abs(other[token] - scores[token]) for other in wide for token in other.keys() & scores),
        default=0.0,
    )


def measure_surprise(engine: Engine, request: Request, reply: Reply) -> Surprise:
    """Return how likely a sampled reply is under the target's own distribution.

    The sum of -log p - H(p) over its tokens has mean 0 if each was drawn from p, whatever was drawn
    before, and the variance is the sum of those of -log p. A token that ends it is not in it.

    Args:
        engine: the engine that gave it.
        request: what was asked for, above temperature 0.
        reply: what came of it.

    Raises:
        UsageError: if the reply has no tokens.
    """
    if not reply.ids:
        raise UsageError("the reply has no tokens", "/regen answers anew")
    target, sampling, ids = engine.model.target, request.settings.sampling, reply.ids
    cache: KVCache = engine.cache.fork(len(request.prompt.ids) - 1)
    read = cache.reuse(request.prompt.ids, request.prompt.encoder_ids)
    target.read(request.prompt.ids[read:-1], cache)
    surprise = entropy = variance = 0.0
    root, chunk = request.prompt.ids[-1], 1 if target.proposals == "nothing" else _CHUNK
    for start in range(0, len(ids), chunk):
        said = ids[start : start + chunk]
        tree = TokenTree.chain(root, said[:-1])
        logits, hidden = target.score(tree, cache)
        for node, token in enumerate(said):
            past = [*request.prompt.ids, *ids[: start + node]]
            log_p = sampling.log_probabilities(sampling.penalise(logits[node].double(), past))
            p, finite = log_p.exp(), log_p.clamp_min(-_FAR)
            mean = -float((p * finite).sum())
            surprise -= float(log_p[token])
            entropy += mean
            variance += float((p * (finite + mean) ** 2).sum())
        cache.commit(tree, range(len(tree)), hidden)
        root = said[-1]
    off = surprise - entropy
    deviations = off / sqrt(variance) if variance else (0.0 if abs(off) < 1e-9 else inf)
    return Surprise(len(ids), surprise / len(ids), entropy / len(ids), deviations)
