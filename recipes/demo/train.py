"""The target: trim its MLPs, then train it by the clock."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from data import Rows
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import (
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from nfox.files.hub import read_json
from nfox.models.devices import cpu_computes_bfloat16


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train, and where the checkpoints go."""

    minutes: float
    learning_rate: float
    work: Path
    batch: int = 4
    resume: bool = False
    compile: bool = False
    seed: int = 0


class Clock(TrainerCallback):
    """Stops the training after so many minutes, those before a resume counted in."""

    def __init__(self, plan: Plan) -> None:
        self.minutes, self.spent, self.since = plan.minutes, 0.0, time.monotonic()

    def fraction(self) -> float:
        """Return the share of the time that is over, from 0 to 1."""
        return min(1.0, (self.spent + time.monotonic() - self.since) / (60 * self.minutes))

    def rate(self, step: int) -> float:
        """Return the factor of the learning rate: a warm-up of 50 steps, then a cosine by the clock
        down to 3 %.
        """
        cosine = 0.5 * (1 + math.cos(math.pi * self.fraction()))
        return min(1.0, (step + 1) / 50) * (0.03 + 0.97 * cosine)

    def restore(self, checkpoint: Path) -> None:
        """Count the time that had been used up to a checkpoint."""
        self.spent = read_json(checkpoint / "clock.json")["seconds"]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Stop, with a checkpoint, when the time is over."""
        if self.fraction() >= 1:
            control.should_training_stop = control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Write the seconds used so far into the checkpoint's folder."""
        seconds = self.spent + time.monotonic() - self.since
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / "clock.json").write_text(json.dumps({"seconds": seconds}))


@contextmanager
def _watch(model: LlamaForCausalLM, totals: list[torch.Tensor]) -> Iterator[None]:
    """Sum up the absolute inputs of each MLP's down projection, by neuron."""

    def hook_for(index: int):
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            totals[index] += inputs[0].abs().float().sum(dim=(0, 1))

        return hook

    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(hook_for(i))
        for i, layer in enumerate(model.model.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def neuron_weights(model: LlamaForCausalLM, rows: Rows, batches: int = 8) -> list[torch.Tensor]:
    """Return for each layer [neurons] the summed absolute activation times the norm of the
    neuron's column of the down projection.
    """
    totals = [torch.zeros(model.config.intermediate_size) for _ in model.model.layers]
    with _watch(model, totals):
        for i in range(min(batches, len(rows))):
            model(rows[i]["input_ids"][None])
    return [
        total * layer.mlp.down_proj.weight.float().norm(dim=0)
        for total, layer in zip(totals, model.model.layers, strict=True)
    ]


def trim(model: LlamaForCausalLM, rows: Rows, width: int) -> LlamaForCausalLM:
    """Return the model with only the `width` most important neurons of each MLP."""
    if model.config.intermediate_size <= width:
        return model
    state = model.state_dict()
    for i, weights in enumerate(neuron_weights(model, rows)):
        keep = weights.topk(width).indices.sort().values
        mlp = f"model.layers.{i}.mlp"
        for name in ("gate_proj", "up_proj"):
            state[f"{mlp}.{name}.weight"] = state[f"{mlp}.{name}.weight"][keep]
        state[f"{mlp}.down_proj.weight"] = state[f"{mlp}.down_proj.weight"][:, keep]
    config = model.config.to_dict() | {"intermediate_size": width}
    smaller = LlamaForCausalLM(type(model.config).from_dict(config))
    smaller.load_state_dict(state)
    return smaller


def arguments(plan: Plan) -> TrainingArguments:
    """Return the settings of transformers' Trainer."""
    return TrainingArguments(
        output_dir=str(plan.work),
        per_device_train_batch_size=plan.batch,
        per_device_eval_batch_size=plan.batch,
        max_steps=1_000_000,
        bf16=torch.cuda.is_available() or cpu_computes_bfloat16(),
        weight_decay=0.05,
        max_grad_norm=1.0,
        logging_steps=20,
        eval_strategy="steps",
        eval_steps=250,
        save_steps=100,
        save_total_limit=2,
        disable_tqdm=True,
        report_to=[],
        seed=plan.seed,
        use_cpu=not torch.cuda.is_available(),
        prediction_loss_only=True,
        remove_unused_columns=False,
        torch_compile=plan.compile,
        dataloader_drop_last=True,  # one shape, so that a compiled model is compiled once
    )


def newest_checkpoint(plan: Plan) -> Path | None:
    """Return the newest checkpoint if the plan resumes and there is one, else None."""
    checkpoints = sorted(plan.work.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    return checkpoints[-1] if plan.resume and checkpoints else None


def fit(
    model: LlamaForCausalLM,
    train: Dataset,
    evaluation: dict[str, Rows],
    plan: Plan,
) -> LlamaForCausalLM:
    """Train a model until the plan's minutes are over, and return it."""
    clock = Clock(plan)
    optimizer = AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    trainer = Trainer(
        model=model,
        args=arguments(plan),
        train_dataset=train,
        eval_dataset=evaluation,
        callbacks=[clock],
        optimizers=(optimizer, LambdaLR(optimizer, clock.rate)),
    )
    checkpoint = newest_checkpoint(plan)
    if checkpoint is not None:
        clock.restore(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return model
