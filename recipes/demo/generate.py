"""Greedy answers in batches, by nfox's own engine."""

from collections.abc import Sequence

from data import Conversation
from transformers import PreTrainedTokenizerBase

from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.batch_decoder import BatchDecoder


def greedy(
    target: TransformersTarget,
    tokenizer: PreTrainedTokenizerBase,
    openings: Sequence[Conversation],
    limit: int = 160,
    batch: int = 64,
) -> list[tuple[list[int], list[int]]]:
    """Return the prompt ids of conversations that end with the user, and those of the greedy
    replies, each with its end token where it ends within `limit` tokens.
    """
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(item, tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        )["input_ids"]
        for item in openings
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    decoder = BatchDecoder(target, frozenset({tokenizer.eos_token_id}), limit)
    replies: dict[int, list[int]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        for i, reply in zip(chosen, decoder.decode([prompts[i] for i in chosen]), strict=True):
            assert reply is not None, "memory for a batch of one"
            replies[i] = [*reply.ids, tokenizer.eos_token_id] if reply.ended else reply.ids
    return [(prompt, replies[i]) for i, prompt in enumerate(prompts)]
