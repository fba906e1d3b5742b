"""Greedy answers in batches."""

from collections.abc import Sequence

import torch
from data import Conversation
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


@torch.inference_mode()
def greedy_batch(model: LlamaForCausalLM, rows: Sequence[list[int]], limit: int) -> list[list[int]]:
    """The greedy continuation of each row of token ids, its end token kept."""
    eos, pad = model.config.eos_token_id, model.config.pad_token_id
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=pad,
    )[:, width:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in made]


def greedy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    openings: Sequence[Conversation],
    limit: int = 160,
    batch: int = 64,
) -> list[tuple[list[int], list[int]]]:
    """Prompt ids and greedy reply ids for conversations that end with the user's turn."""
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
        made = greedy_batch(model, [prompts[i] for i in chosen], limit)
        replies.update(zip(chosen, made, strict=True))
    return [(prompt, replies[i]) for i, prompt in enumerate(prompts)]
