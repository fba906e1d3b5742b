"""Whether one language model can draft for another.

A draft model need not know every token: a wrong guess costs time, never the text. It must mean the
same by nearly all of them.
"""

from __future__ import annotations

from typing import Any

from nfox.errors import ModelError
from nfox.models.options import LoadedModel

_LEAST_AGREEMENT = 0.98
"""The share of tokens that two tokenizers must have under the same ids. Those of Llama 3 and 3.2
differ in a few hundred reserved tokens of 128,256."""


def check_pair(target: LoadedModel, draft: LoadedModel) -> None:
    """Refuse a draft model that cannot draft for a target.

    The sizes of their vocabularies may differ, as may a few tokens: reserved ones that have other
    names, or that were added to one of the two. Without a draft model's tokenizer the sizes decide.

    Args:
        target: the model to draft for.
        draft: the draft model.

    Raises:
        ModelError: if the draft model's state cannot be rolled back, if only one of the two has an
            encoder, or if their tokens are others.
    """
    if draft.target.proposals == "nothing":
        raise ModelError(
            f"{draft.name} cannot draft: its recurrent state cannot forget a refused token",
            "choose a transformer as draft model",
        )
    if draft.target.is_encoder_decoder != target.target.is_encoder_decoder:
        kinds = {True: "an encoder-decoder", False: "a decoder-only"}
        kind, draft_kind = (kinds[model.target.is_encoder_decoder] for model in (target, draft))
        raise ModelError(
            f"{target.name} is {kind} model, the draft model {draft.name} is {draft_kind} one",
            "choose two of one kind",
        )
    if draft.tokenizer is None or target.tokenizer is None:
        _check_sizes(target, draft)
        return
    if not nearly_agree(target.tokenizer, draft.tokenizer):
        equal, smaller = common_tokens(target.tokenizer, draft.tokenizer)
        raise ModelError(
            f"the draft model {draft.name} has another tokenizer than {target.name}: {equal} of "
            f"{smaller} tokens are the same",
            "choose a draft model of the same family",
        )


def common_tokens(first: Any, second: Any) -> tuple[int, int]:
    """Return how many tokens two tokenizers have under the same ids, and the number of tokens of
    the smaller one.
    """
    ids, other_ids = first.get_vocab(), second.get_vocab()
    equal = sum(other_ids.get(token) == number for token, number in ids.items())
    return equal, min(len(ids), len(other_ids))


def nearly_agree(first: Any, second: Any) -> bool:
    """Return whether two tokenizers mean the same by nearly all tokens."""
    equal, smaller = common_tokens(first, second)
    return equal >= _LEAST_AGREEMENT * smaller


def _check_sizes(target: LoadedModel, draft: LoadedModel) -> None:
    """Refuse a draft model whose vocabulary is of another size than the target's, or than the
    number of the target's tokens; embeddings are padded here and not there.

    Raises:
        ModelError: if the sizes are further apart than padding and a few added tokens bring them.
    """
    size, draft_size = target.target.vocabulary_size, draft.target.vocabulary_size
    least = min(size, len(target.tokenizer.get_vocab())) if target.tokenizer else size
    if _LEAST_AGREEMENT * least <= draft_size <= size / _LEAST_AGREEMENT:
        return
    raise ModelError(
        f"the draft model {draft.name} has another vocabulary than {target.name}: {draft_size} "
        f"tokens, expected {size}",
        "choose a draft model of the same family, and copy its tokenizer into its folder",
    )
