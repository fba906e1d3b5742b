"""Whether one language model can draft for another."""

from __future__ import annotations

from nfox.errors import ModelError
from nfox.models.options import LoadedModel


def check_pair(target: LoadedModel, draft: LoadedModel) -> None:
    """Refuse a draft model that cannot draft for a target.

    The sizes of their vocabularies may differ (padding of the embedding), their tokenizers may not.

    Args:
        target: the model to draft for.
        draft: the draft model.

    Raises:
        ModelError: if the draft model's state cannot be rolled back, if only one of the two has an
            encoder, or if their tokenizers differ.
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
        return
    target_ids, draft_ids = target.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    common = target_ids.keys() & draft_ids.keys()
    equal = sum(target_ids[token] == draft_ids[token] for token in common)
    smaller = min(len(target_ids), len(draft_ids))
    if equal < 0.98 * smaller or equal < len(common):
        raise ModelError(
            f"the draft model {draft.name} has another tokenizer than {target.name}: {equal} of "
            f"{smaller} tokens are the same",
            "choose a draft model of the same family",
        )
