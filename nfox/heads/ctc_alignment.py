"""Connectionist temporal classification: what slots say together, summed over all alignments.

Every slot says one token or a blank; an alignment is one choice for each slot. It is collapsed to
a text by merging repeats first and dropping blanks then, so that "a blank a" is "aa", and "a a" is
"a". (Graves et al. 2006: connectionist temporal classification.)
"""

from __future__ import annotations

import itertools
from heapq import nlargest

import torch
from torch import Tensor

Prefix = tuple[int, ...]

_NEVER = -1e30  # for -inf, whose gradients are not numbers


def surprise(slots: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Return [n] the negative log-probabilities of texts: the CTC loss.

    Unlike PyTorch's, it takes no log-probabilities of tokens that are in no text, which a large
    vocabulary consists of.

    Args:
        slots: [n, S, L + 1] log-probabilities of the L labels in each slot, and of the blank.
        labels: [n, L] the texts.
        lengths: [n] how many of the labels count; at least 1.

    Returns:
        0 for texts that so few slots cannot say.
    """
    many, length = labels.shape
    blank = slots[..., -1:]
    # The states of a text "a b" are: blank, a, blank, b, blank.
    states = torch.stack([blank.expand(-1, -1, length), slots[..., :-1]], dim=-1).flatten(2)
    states = torch.cat([states, blank], dim=-1)
    never = states.new_full((many, 2), _NEVER)
    # Between two labels a blank may be left out, unless they are the same.
    skips = torch.zeros(many, 2 * length + 1, dtype=torch.bool, device=labels.device)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    reached = torch.cat([states[:, 0, :2], never.repeat(1, length)[:, 1:]], dim=1)
    for slot in range(1, states.shape[1]):
        one = torch.cat([never[:, :1], reached[:, :-1]], dim=1)
        two = torch.cat([never, reached[:, :-2]], dim=1).masked_fill(~skips, _NEVER)
        reached = torch.stack([reached, one, two]).logsumexp(0) + states[:, slot]
    ends = torch.stack([2 * lengths - 1, 2 * lengths], dim=1)
    total = reached.gather(1, ends).logsumexp(1)
    return torch.where(total > _NEVER / 2, -total, 0.0)


def collapse(slots: Tensor, blank: int, length: int) -> Tensor:
    """Return [n, length] the texts of alignments [n, S]; behind their ends they are blank."""
    before = torch.nn.functional.pad(slots[:, :-1], (1, 0), value=blank)
    kept = (slots != before) & (slots != blank)
    places = (kept.cumsum(1) - 1).masked_fill(~kept, length).clamp_max(length)
    texts = slots.new_full((len(slots), length + 1), blank)
    return texts.scatter(1, places, slots)[:, :-1]


def prefixes(
    slots: Tensor, depth: int, beam: int = 16, top: int = 8, least: float = 1e-4
) -> dict[Prefix, float]:
    """Return how probable it is that the text starts with a prefix, for the likeliest prefixes.

    A prefix beam search. Exact where the limits leave nothing out, else too low.

    Args:
        slots: [S, V + 1] log-probabilities, those of the blank last.
        depth: the length of a prefix at most.
        beam: how many prefixes are gone on with after each slot.
        top: how many tokens of each slot are looked at.
        least: what a slot adds to a prefix's probability to be looked at; saves most of the time
            where slots are sure.

    Returns:
        The likeliest first, and no prefix before one that it goes on from.
    """
    tokens = slots[:, :-1].topk(min(top, slots.shape[1] - 1)).indices
    known = tokens.flatten()
    table, blanks = slots[:, known].exp().tolist(), slots[:, -1].exp().tolist()
    names = known.tolist()
    starts: dict[Prefix, float] = {}
    # For each prefix how probable it is so far, the last slot being blank, or its last token.
    now: dict[Prefix, tuple[float, float]] = {(): (1.0, 0.0)}
    for heard, row, blank in zip(tokens.tolist(), table, blanks, strict=True):
        chances = dict(zip(names, row, strict=True))
        after: dict[Prefix, tuple[float, float]] = {}
        for prefix, (ended, going) in now.items():
            both, last = ended + going, prefix[-1] if prefix else -1
            _, come = after.get(prefix, (0.0, 0.0))
            after[prefix] = both * blank, come + going * chances.get(last, 0.0)
            for token in heard:
                if chances[token] * both < least:  # and so those that come after it
                    break
                longer = (*prefix, token)
                more = chances[token] * (ended if token == last else both)
                starts[longer] = starts.get(longer, 0.0) + more
                if len(longer) < depth:
                    ended_too, come = after.get(longer, (0.0, 0.0))
                    after[longer] = ended_too, come + more
        now = dict(nlargest(beam, after.items(), key=lambda item: sum(item[1])))
    for prefix in starts:  # those that others go on from come first
        if len(prefix) > 1:  # never the likelier one, but for rounding
            starts[prefix] = min(starts[prefix], starts[prefix[:-1]])
    return dict(sorted(starts.items(), key=lambda item: -item[1]))


def ranks(slots: Tensor, depth: int, width: int) -> tuple[list[list[int]], list[list[float]]]:
    """Return [depth][width] tokens by how probable they are at each depth, whatever came before;
    and how probable.

    Args:
        slots: [S, V + 1] log-probabilities, those of the blank last.
        depth: of the guesses.
        width: of the guesses; where fewer were found the least token ids fill up.
    """
    found: list[dict[int, float]] = [{} for _ in range(depth)]
    for prefix, chance in prefixes(slots, depth).items():
        chances = found[len(prefix) - 1]
        chances[prefix[-1]] = chances.get(prefix[-1], 0.0) + chance
    rows = [sorted(chances, key=lambda token: -chances[token])[:width] for chances in found]
    for row in rows:
        others = (token for token in range(slots.shape[1] - 1) if token not in set(row))
        row += itertools.islice(others, width - len(row))
    pairs = zip(rows, found, strict=True)
    return rows, [[chances.get(token, 0.0) for token in row] for row, chances in pairs]


def longest(found: dict[Prefix, float], length: int) -> Prefix:
    """Return the prefix of at most `length` tokens of which most is likely to be right: the one
    whose prefixes' probabilities have the largest sum.
    """
    sums: dict[Prefix, float] = {(): 0.0}
    for prefix, chance in found.items():  # the shorter ones come before those they begin
        if len(prefix) <= length:
            sums[prefix] = sums[prefix[:-1]] + chance
    return max(sums, key=lambda prefix: sums[prefix])
