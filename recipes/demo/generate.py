"""Greedy answers in batches."""

from collections.abc import Sequence

import torch
from data import Conversation
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


@torch.inference_mode()
def greedy_batch(model: LlamaForCausalLM, rows: Sequence[list[int]], limit: int) -> list[list[int]]:
    """Return the greedy continuation of each row of token ids, with its end token."""
    eos, pad = model.config.eos_token_id, model.config.pad_token_id
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    continuations = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=pad,
    )[:, width:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in continuations]


def greedy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    openings: Sequence[Conversation],
    limit: int = 160,
    batch: int = 64,
) -> list[tuple[list[int], list[int]]]:
    """Return the prompt ids and the greedy reply ids of conversations that end with the user."""
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
        continuations = greedy_batch(model, [prompts[i] for i in chosen], limit)
        replies.update(zip(chosen, continuations, strict=True))
    return [(prompt, replies[i]) for i, prompt in enumerate(prompts)]
