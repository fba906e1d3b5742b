"""Connectionist temporal classification (CTC, Graves et al. 2006): what slots say together.

Every slot says one token or a blank; an alignment is one choice for each slot. It is collapsed to
a text by merging repeats first and dropping blanks then, so that "a blank a" is "aa", and "a a" is
"a". The probability of a text is the sum over all alignments that collapse to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from heapq import nlargest

import torch
from torch import Tensor

from nfox.models.native.top import top_tokens

Prefix = tuple[int, ...]
"""The first tokens of a text."""

MIN_PROBABILITY = 1e-4
"""What a slot must add to a prefix's probability to be looked at, where nothing else is said."""

_NEVER = -1e30  # for -inf, whose gradients are not numbers


def ctc_loss(slots: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Return [n] the negative log-probabilities of texts.

    Unlike PyTorch's, it takes no log-probabilities of tokens that are in no text, which a large
    vocabulary consists of.

    Args:
        slots: [n, S, L + 1] log-probabilities of the L labels in each of S slots, and of the blank.
        labels: [n, L] the texts.
        lengths: [n] how many of the labels count; at least 1.

    Returns:
        [n]; 0 for texts that so few slots cannot say.
    """
    count, length = labels.shape
    blank = slots[..., -1:]
    # The states of a text "a b" are: blank, a, blank, b, blank.
    states = torch.stack([blank.expand(-1, -1, length), slots[..., :-1]], dim=-1).flatten(2)
    states = torch.cat([states, blank], dim=-1)
    never = states.new_full((count, 2), _NEVER)
    # Between two labels a blank may be left out, unless they are the same.
    may_skip = torch.zeros(count, 2 * length + 1, dtype=torch.bool, device=labels.device)
    may_skip[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    # Log-probabilities that the slots so far end in each state.
    reached = torch.cat([states[:, 0, :2], never.repeat(1, length)[:, 1:]], dim=1)
    for slot in range(1, states.shape[1]):
        stepped = torch.cat([never[:, :1], reached[:, :-1]], dim=1)
        skipped = torch.cat([never, reached[:, :-2]], dim=1).masked_fill(~may_skip, _NEVER)
        reached = torch.stack([reached, stepped, skipped]).logsumexp(0) + states[:, slot]
    ends = torch.stack([2 * lengths - 1, 2 * lengths], dim=1)
    total = reached.gather(1, ends).logsumexp(1)
    return torch.where(total > _NEVER / 2, -total, 0.0)


def collapse(alignments: Tensor, blank: int, length: int) -> Tensor:
    """Return [n, length] the texts of alignments [n, S]; behind their ends they are blank.

    Args:
        alignments: [n, S] token ids.
        blank: the id of the blank.
        length: how many tokens of each text are returned.
    """
    previous = torch.nn.functional.pad(alignments[:, :-1], (1, 0), value=blank)
    remains = (alignments != previous) & (alignments != blank)
    positions = (remains.cumsum(1) - 1).masked_fill(~remains, length).clamp_max(length)
    texts = alignments.new_full((len(alignments), length + 1), blank)
    return texts.scatter(1, positions, alignments)[:, :-1]


def likeliest_prefixes(
    slots: Tensor,
    max_length: int,
    beam_width: int = 16,
    tokens_per_slot: int = 8,
    min_probability: float = MIN_PROBABILITY,
) -> dict[Prefix, float]:
    """Return the likeliest prefixes, each with the probability that the text starts with it.

    Args:
        slots: [S, V + 1] logits or log-probabilities, those of the blank last.
        max_length: the most tokens of a prefix.
        beam_width: how many prefixes are continued after each slot.
        tokens_per_slot: how many tokens of each slot are looked at.
        min_probability: as `prefixes_of` takes it.

    Returns:
        The likeliest first, and each prefix after the one that it continues.
    """
    count = slots.shape[1]
    likeliest = top_tokens(slots, min(tokens_per_slot + 1, count))  # mostly with the blank
    return prefixes_of(*likeliest, count - 1, max_length, min_probability, beam_width)


def prefixes_of(
    tokens: Sequence[Sequence[int]],
    chances: Sequence[Sequence[float]],
    blank: int,
    max_length: int,
    min_probability: float = MIN_PROBABILITY,
    beam_width: int = 16,
) -> dict[Prefix, float]:
    """Return the likeliest prefixes of what slots say of which the likeliest tokens are known.

    A prefix beam search. Exact where the limits leave nothing out, else too low.

    Args:
        tokens: [S][n] of each slot, the likeliest first; the blank may be among them.
        chances: [S][n] their probabilities.
        blank: its token.
        max_length: the most tokens of a prefix.
        min_probability: what a slot must add to a prefix's probability to be looked at; saves most
            of the time where slots are sure.
        beam_width: how many prefixes are continued after each slot.

    Returns:
        As `likeliest_prefixes`.
    """
    search = _PrefixSearch(max_length, min_probability)
    for row, row_chances in zip(tokens, chances, strict=True):
        slot = dict(zip(row, row_chances, strict=True))
        search.read_slot(slot, slot.pop(blank, 0.0))
        search.keep(beam_width)
    probabilities = search.probabilities
    for prefix in probabilities:  # each comes after the one that it continues
        if len(prefix) > 1:  # and is never likelier, but for rounding
            probabilities[prefix] = min(probabilities[prefix], probabilities[prefix[:-1]])
    return dict(sorted(probabilities.items(), key=lambda item: -item[1]))


class _PrefixSearch:
    """A prefix beam search, slot after slot.

    Args:
        max_length: the most tokens of a prefix.
        min_probability: what a slot must add to a prefix's probability to be looked at.

    Attributes:
        probabilities: how probable it is that the text starts with a prefix, by the slots read.
        beam: by prefix, the probabilities that the slots read say this and no more, the last slot
            being a blank, or the prefix's last token.
    """

    def __init__(self, max_length: int, min_probability: float) -> None:
        self.max_length = max_length
        self.min_probability = min_probability
        self.probabilities: dict[Prefix, float] = {}
        self.beam: dict[Prefix, tuple[float, float]] = {(): (1.0, 0.0)}

    def read_slot(self, slot: dict[int, float], blank: float) -> None:
        """Continue all prefixes of the beam by one slot.

        Args:
            slot: the probabilities of its likeliest tokens, the likeliest first.
            blank: the probability of the blank.
        """
        beam: dict[Prefix, tuple[float, float]] = {}
        for prefix, (ends_blank, ends_token) in self.beam.items():
            total, last = ends_blank + ends_token, prefix[-1] if prefix else -1
            _, reached = beam.get(prefix, (0.0, 0.0))
            beam[prefix] = total * blank, reached + ends_token * slot.get(last, 0.0)
            for token, probability in slot.items():
                if probability * total < self.min_probability:  # and so do all that come after it
                    break
                longer = (*prefix, token)
                # After the same token a blank is needed between the two.
                added = probability * (ends_blank if token == last else total)
                self.probabilities[longer] = self.probabilities.get(longer, 0.0) + added
                if len(longer) < self.max_length:
                    with_blank, with_token = beam.get(longer, (0.0, 0.0))
                    beam[longer] = with_blank, with_token + added
        self.beam = beam

    def keep(self, beam_width: int) -> None:
        """Keep the likeliest prefixes of the beam only."""
        self.beam = dict(nlargest(beam_width, self.beam.items(), key=lambda item: sum(item[1])))


def rank_tokens(slots: Tensor, depth: int, width: int) -> tuple[list[list[int]], list[list[float]]]:
    """Return the likeliest tokens of each depth, whatever comes before them.

    Args:
        slots: [S, V + 1] logits or log-probabilities, those of the blank last.
        depth: of how many tokens after the root.
        width: how many tokens for each; where fewer were found the least token ids fill up.

    Returns:
        [depth][width] tokens, the likeliest first, and [depth][width] their probabilities.
    """
    by_depth: list[dict[int, float]] = [{} for _ in range(depth)]
    for prefix, probability in likeliest_prefixes(slots, depth).items():
        probabilities = by_depth[len(prefix) - 1]
        probabilities[prefix[-1]] = probabilities.get(prefix[-1], 0.0) + probability
    ranked = [sorted(found, key=lambda token: -found[token])[:width] for found in by_depth]
    for tokens in ranked:
        others = (token for token in range(slots.shape[1] - 1) if token not in set(tokens))
        tokens += itertools.islice(others, width - len(tokens))
    pairs = zip(ranked, by_depth, strict=True)
    return ranked, [[found.get(token, 0.0) for token in tokens] for tokens, found in pairs]


def longest_prefix(probabilities: dict[Prefix, float], max_length: int) -> Prefix:
    """Return the prefix of which the most tokens are likely to be right: the one with the largest
    sum of the probabilities of its own prefixes.

    Args:
        probabilities: by prefix, as `likeliest_prefixes` returns them.
        max_length: the most tokens of the prefix.
    """
    sums: dict[Prefix, float] = {(): 0.0}
    for prefix, probability in probabilities.items():  # each after the one that it continues
        if len(prefix) <= max_length:
            sums[prefix] = sums[prefix[:-1]] + probability
    return max(sums, key=lambda prefix: sums[prefix])
