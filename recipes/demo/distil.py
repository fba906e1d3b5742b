"""The draft: a small model that learns to foretell what the target would say."""

from collections.abc import Sequence
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
from torch.nn import functional
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


class Taught(Dataset):
    """Rows with the target's last hidden states, worked out when a row is first asked for.

    Hidden states are a tenth of the size of the logits, and one product with the target's head
    gives the full logits back, so that later passes over the rows need no target.
    """

    def __init__(self, rows: Dataset, target: LlamaForCausalLM) -> None:
        self.rows, self.target = rows, target.eval()
        self.known: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        if index not in self.known:
            ids = row["input_ids"][None].to(self.target.device)
            hidden = self.target.model(ids).last_hidden_state[0]
            self.known[index] = hidden.to("cpu", torch.bfloat16)
        return {**row, "hidden": self.known[index]}


class Distiller(Trainer):
    """Forward KL from the target's full distribution, and cross-entropy with its first choice,
    where the assistant speaks.
    """

    def __init__(self, *args: object, head: torch.nn.Linear, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.head = head
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: LlamaForCausalLM,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict]:
        spoken = inputs["labels"][:, 1:] != IGNORE
        with torch.no_grad():
            logits = self.head(inputs["hidden"][:, :-1][spoken])
            wanted = functional.log_softmax(logits.float(), dim=-1)
        hidden = model.model(inputs["input_ids"]).last_hidden_state[:, :-1][spoken]
        guessed = functional.log_softmax(model.lm_head(hidden).float(), dim=-1)
        loss = functional.kl_div(guessed, wanted, reduction="batchmean", log_target=True)
        # A draft is judged by its first guess, so the target's own first choice counts twice.
        loss = loss + functional.nll_loss(guessed, wanted.argmax(-1))
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
    made = own_answers(target, tokenizer, prompts(sources, answered + 50, plan.seed + 7))
    Random(plan.seed).shuffle(made)
    own = Taught(Rows(tokenizer, made[50:]), target)
    items = training_mix(sources, 12_000, plan.seed + 3)[:mixed]
    mix = Taught(Rows(tokenizer, items), target)
    return fit(
        draft,
        ConcatDataset([mix, own, own]),
        {"own": Taught(Rows(tokenizer, made[:50]), target)},
        plan,
        trainer_class=Distiller,
        head=target.lm_head,
    )
