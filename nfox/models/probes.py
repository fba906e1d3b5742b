"""What a model scores correctly in one forward, found by trying a few tokens, not by its name."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from nfox.decoding.target import Proposals, are_numbers
from nfox.decoding.tree import TokenTree
from nfox.files.tensors import is_finite
from nfox.models.attention_windows import has_other_windows
from nfox.models.fused_decoder import FusedDecoder
from nfox.models.logits_error import logits_error
from nfox.models.native.decoder import NativeDecoder
from nfox.models.packed_layers import packed_layers
from nfox.models.transformers_cache import TransformersCache
from nfox.models.transformers_forward import TransformersForward

log = logging.getLogger(__name__)

_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""Whatever a model raises in a probe, it does not take what it was asked."""


@dataclass(frozen=True)
class _Probe:
    """A tree to score after a few tokens.

    Args:
        parents: of its nodes.
        last_node: the end of the path that is scored token by token too.
    """

    parents: tuple[int, ...]
    last_node: int

    def tokens(self, vocabulary_size: int) -> tuple[list[int], TokenTree]:
        """Return the tokens before the tree, and the tree; all tokens differ, as far as there are
        enough.
        """
        tokens = _some_tokens(len(self.parents) + 4, vocabulary_size)
        return tokens[:4], TokenTree(tuple(tokens[4:]), self.parents)


# A chain, compared at its end; and a long branch with a short one after it, whose last node stands
# 13 places further than its position says: what ignores mask or positions is far off there.
_CHAIN = _Probe(tuple(range(-1, 5)), 5)
_TREE = _Probe((*range(-1, 13), 0, 14), 15)


def find_proposals(forward: TransformersForward) -> Proposals:
    """Return the proposals that a model scores correctly in one forward.

    A chain needs no mask but the model's own; trees are not tried where this has windows that the
    masks of trees do not know, and that may be longer than the few tokens.

    Raises:
        ModelError: if it computes no numbers, or takes no cache.
    """
    if not _scores_correctly(forward, _CHAIN):
        _check_numbers(forward)
        return "nothing"
    chains_only = forward.is_encoder_decoder or has_other_windows(forward.config)
    return "chains" if chains_only or not _scores_correctly(forward, _TREE) else "trees"


def agrees(
    fused: FusedDecoder | NativeDecoder, forward: TransformersForward, proposals: Proposals
) -> bool:
    """Return whether the logits of a fused decoder are those of the model, for a few tokens.

    Args:
        fused: the decoder.
        forward: of the model.
        proposals: those that the model scores correctly.
    """
    before, tree = (_TREE if proposals == "trees" else _CHAIN).tokens(forward.vocabulary_size)
    cache = TransformersCache(forward.model.config)
    forward.read(before, cache)
    expected, _ = forward.score(tree, cache, masked=proposals == "trees")
    try:
        with torch.inference_mode():
            cache.begin()
            products, _ = fused.score(tree, cache)
    except RuntimeError:  # sizes that do not fit together as expected
        return False
    return _is_close(forward.head.scaled(products), expected, forward)


@torch.inference_mode()
def _scores_correctly(forward: TransformersForward, probe: _Probe) -> bool:
    """Return whether a tree that is scored in one forward gives the same logits at the end of a
    path as the tokens of this path, scored one by one.
    """
    cache = TransformersCache(forward.model.config)
    try:
        before, tree = probe.tokens(forward.vocabulary_size)
        cache.encoder_ids = tuple(before)
        forward.read(before, cache)
        at_once, _ = forward.score(tree, cache, masked=not tree.is_chain)
        for node in tree.path_to(probe.last_node):
            logits, hidden = forward.score(TokenTree.chain(tree.tokens[node]), cache, masked=False)
            cache.extend([tree.tokens[node]], hidden)
        if not logits.isfinite().all():
            _check_numbers(forward)
    except _FAILURES as error:
        log.debug("probe of %d nodes: %s", len(probe.parents), error)
        return False
    finally:
        forward.forget()
    return _is_close(at_once[probe.last_node], logits[-1], forward)


@torch.inference_mode()
def _check_numbers(forward: TransformersForward) -> None:
    """Refuse a model whose logits are no numbers even where nothing is asked of its cache.

    Raises:
        ModelError: if they are none after a few tokens, read from the start, or if some are -inf
            because of infinite weights, and not because the model rules tokens out.
    """
    *before, last = _some_tokens(9, forward.vocabulary_size)
    cache = TransformersCache(forward.model.config, can_roll_back=False)
    cache.encoder_ids = (*before, last)
    try:
        forward.read(before, cache)
        logits, _ = forward.score(TokenTree.chain(last), cache, masked=False)
    except _FAILURES as error:
        log.debug("probe of numbers: %s", error)
        return
    finally:
        forward.forget()
    if not (are_numbers(logits) and is_finite(forward.head.layer.weight)):
        raise logits_error(forward.model)


def _some_tokens(count: int, vocabulary_size: int) -> list[int]:
    """Return tokens for a probe, which differ as far as there are enough."""
    step = 7 if vocabulary_size % 7 else 1
    return [(step * i + 3) % vocabulary_size for i in range(count)]


def _is_close(logits: Tensor, expected: Tensor, forward: TransformersForward) -> bool:
    """Return whether logits are the expected ones but for rounding: by the root mean square of
    their differences, in standard deviations of the expected ones. A token that is ruled out by
    -inf is left out.
    """
    possible = expected.isfinite()
    logits, expected = logits[possible], expected[possible]
    difference = (logits - expected).square().mean().sqrt() / expected.std().clamp_min(1e-9)
    return bool(difference < _most_difference(forward))


def _most_difference(forward: TransformersForward) -> float:
    """Return what rounding may make of logits, in their standard deviations. Those of a wrong mask
    or of a wrong position differ by .35 or more.
    """
    if any(layer.format == "int4" for layer in packed_layers(forward.model)):
        return 0.2  # inputs of 8 bits: with SmolLM2 they differ by .05
    is_16_bit = forward.model.dtype in (torch.float16, torch.bfloat16)
    return 0.1 if is_16_bit or hasattr(forward.config, "quantization_config") else 1e-3
