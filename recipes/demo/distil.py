"""The draft: a small model that learns to foretell what the target would say."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from data import (
    IGNORE,
    Conversation,
    Rows,
    Sources,
    load_gsm8k,
    load_sgd,
    skill_conversations,
    training_mix,
)
from generate import greedy
from torch.utils.data import ConcatDataset, Dataset
from train import Plan, fit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, Trainer


def new_draft(target: LlamaConfig) -> LlamaForCausalLM:
    """An untrained two-layer model over the target's vocabulary."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=target.vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=target.max_position_embeddings,
            tie_word_embeddings=True,
            bos_token_id=target.bos_token_id,
            eos_token_id=target.eos_token_id,
            pad_token_id=target.pad_token_id,
        )
    )


KEPT = 32  # of the target's first choices; they hold nearly all of its probability


class Taught(Dataset):
    """Rows with the target's first choices after every token, worked out when first asked for, so
    that later passes over the rows need no target.
    """

    def __init__(self, rows: Dataset, target: LlamaForCausalLM) -> None:
        self.rows, self.target = rows, target.eval()
        self.known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        if index not in self.known:
            logits = self.target(row["input_ids"][None].to(self.target.device)).logits[0]
            best = logits.float().log_softmax(-1).topk(KEPT)
            self.known[index] = best.indices.to("cpu", torch.int16), best.values.to("cpu").half()
        choices, chances = self.known[index]
        return {**row, "choices": choices, "chances": chances}


class Distiller(Trainer):
    """Forward KL from the target's first choices, and cross-entropy with the very first, where the
    assistant speaks.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: LlamaForCausalLM,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict]:
        """Return the mean loss of the places where the assistant speaks."""
        spoken = inputs["labels"][:, 1:] != IGNORE
        choices = inputs["choices"][:, :-1][spoken].long()
        wanted = inputs["chances"][:, :-1][spoken].float().softmax(-1)
        hidden = model.model(inputs["input_ids"]).last_hidden_state[:, :-1][spoken]
        guessed = model.lm_head(hidden).float().log_softmax(-1).gather(-1, choices)
        # A draft is judged by its first guess, so the target's own first choice counts twice.
        loss = -((wanted * guessed).sum(-1) + guessed[:, 0]).mean()
        return (loss, {}) if return_outputs else loss


def prompts(sources: Sources, count: int, seed: int) -> list[Conversation]:
    """Training conversations cut before an assistant's turn: dialogues, problems, skills."""
    rng = Random(seed)
    dialogues = load_sgd(sources.sgd)
    chosen = rng.sample(dialogues, count * 3 // 10)
    cut = [item[: 2 * rng.randrange(len(item) // 2) + 1] for item in chosen]
    cut += [item[:1] for item in rng.sample(load_gsm8k(sources.gsm8k), count // 2)]
    cut += [item[:-1] for item in skill_conversations(count // 5, seed + 1, dialogues)]
    return cut


def own_answers(
    target: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    openings: Sequence[Conversation],
) -> list[Conversation]:
    """The openings, each with the target's own greedy reply."""
    return [
        [
            *opening,
            {
                "role": "assistant",
                "content": tokenizer.decode(reply, skip_special_tokens=True).removeprefix(" "),
            },
        ]
        for opening, (_, reply) in zip(openings, greedy(target, tokenizer, openings), strict=True)
        if reply[-1] == tokenizer.eos_token_id
    ]


def answers_file(
    target: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sources,
    count: int,
    plan: Plan,
) -> Path:
    """Write the target's own answers as JSON lines, unless `--resume` finds them there."""
    file = plan.work.parent / "own.jsonl"
    if not (plan.resume and file.is_file()):
        made = own_answers(target, tokenizer, prompts(sources, count, plan.seed + 7))
        Random(plan.seed).shuffle(made)
        lines = (json.dumps({"messages": item}, ensure_ascii=False) + "\n" for item in made)
        part = file.with_suffix(".part")
        part.write_text("".join(lines), encoding="utf-8")
        part.rename(file)
    return file


def distil(
    target: LlamaForCausalLM,
    draft: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sources,
    counts: tuple[int, int],
    plan: Plan,
) -> LlamaForCausalLM:
    """Train `draft` on `counts` conversations of the mix and of the target's own answers."""
    mixed, answered = counts
    file = answers_file(target, tokenizer, sources, answered + 50, plan)
    # a reply may hold other line breaks than this one
    lines = file.read_text(encoding="utf-8").strip().split("\n")
    made = [json.loads(line)["messages"] for line in lines]
    own = Taught(Rows(tokenizer, made[50:]), target)
    items = training_mix(sources, 12_000, plan.seed + 3)[:mixed]
    mix = Taught(Rows(tokenizer, items), target)
    return fit(
        draft,
        ConcatDataset([mix, own, own]),
        {"own": Taught(Rows(tokenizer, made[:50]), target)},
        plan,
        trainer_class=Distiller,
    )
