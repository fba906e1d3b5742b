"""Greedy answers in batches."""

from collections.abc import Sequence

from data import Conversation

from nfox.models.options import LoadedModel
from nfox.train.data.batch_decoder import BatchDecoder


def greedy(
    loaded: LoadedModel,
    openings: Sequence[Conversation],
    limit: int = 160,
    batch: int = 64,
) -> list[tuple[list[int], list[int]]]:
    """Return the prompt ids and the greedy reply ids, with the end token where there is one, of
    conversations that end with the user.
    """
    tokenizer = loaded.tokenizer
    end = tokenizer.eos_token_id
    decoder = BatchDecoder(loaded.target, frozenset({end}), limit)
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(item, tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        )["input_ids"]
        for item in openings
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies: dict[int, list[int]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        decoded = decoder.decode([prompts[i] for i in chosen])
        for i, reply in zip(chosen, decoded, strict=True):
            if reply is None:
                raise MemoryError(f"no memory for a prompt of {len(prompts[i])} tokens")
            replies[i] = [*reply.ids, end] if reply.ended else reply.ids
    return [(prompt, replies[i]) for i, prompt in enumerate(prompts)]
