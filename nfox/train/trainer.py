"""One trainer for everything that is trained, on transformers' `Trainer`: schedules, checkpoints,
several processes.

A loss is a mean over the labels of a batch. Batches have different numbers of labels, so each
batch is weighted by its share of the labels of the step. The loss of a step is then the same
whether its rows are accumulated, divided over processes, or computed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset, Subset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState

from nfox.train.callbacks import SetEpoch
from nfox.train.checkpoints import WEIGHTS, check_fits, readable
from nfox.train.learner import Learner
from nfox.train.metrics import Metrics

MODEL_PREFIXES = ("base.", "draft.")
"""Prefixes of the parameter names of whole models, as opposed to heads."""


class LearnerTrainer(Trainer):
    """A `Trainer` for a `Learner`.

    Args:
        learner: the module to train, which holds the target that it learns from.
        args: transformers' `TrainingArguments`.
        rows: the rows to learn from.
        eval_rows: the rows to measure on.
        callbacks: callbacks of transformers, besides which none of its own print.

    Attributes:
        learner: the module that is trained.
        last_metrics: the metrics of the last evaluation.
    """

    def __init__(
        self,
        learner: Learner,
        args: Any,
        rows: Dataset[Any],
        eval_rows: Dataset[Any] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        # One process has one device: the learner's own. More devices are for more processes.
        args._n_gpu = min(args.n_gpu, 1)
        args.average_tokens_across_devices = True  # see `compute_loss`
        args.remove_unused_columns = False  # the rows have no columns but those that are needed
        args.include_num_input_tokens_seen = "non_padding"
        super().__init__(
            learner,
            args,
            data_collator=learner.collate,
            train_dataset=rows,
            eval_dataset=eval_rows,
            callbacks=list(callbacks),
        )
        for printing in (PrinterCallback, ProgressCallback):
            self.remove_callback(printing)
        if hasattr(rows, "set_epoch"):
            self.add_callback(SetEpoch(rows))
        self.learner = learner
        self.last_metrics: Metrics | None = None
        self.loss_is_scaled_for_ga = True
        self._sums: dict[str, float] = {}
        self._label_count = 0

    def create_optimizer(self, model: Any = None) -> Any:
        """Give the learner's fast parameters a multiple of the other parameters' learning rate."""
        optimizer = super().create_optimizer(model)
        fast_parameters, factor = self.learner.fast_parameters()
        fast_ids = set(map(id, fast_parameters))
        for group in list(optimizer.param_groups):
            rate = group["lr"] * factor
            fast = [weight for weight in group["params"] if id(weight) in fast_ids]
            others = [weight for weight in group["params"] if id(weight) not in fast_ids]
            if fast and others:
                group["params"] = others
                optimizer.add_param_group({**group, "params": fast, "lr": rate})
            elif fast:
                group["lr"] = rate
        return optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Exempt biases and scales from weight decay, also those of whole models, whose parameters
        are numbered instead of named here.
        """
        flat = {
            name
            for name, weight in model.named_parameters()
            if name.startswith(MODEL_PREFIXES) and weight.dim() < 2
        }
        return [n for n in super().get_decay_parameter_names(model) if n not in flat]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return a batch's share of the loss of the step.

        Args:
            model: the learner, as accelerate has wrapped it.
            inputs: the batch.
            return_outputs: never True here, since `evaluate` does not compute losses this way.
            num_items_in_batch: the number of labels of the whole step, over all processes.
        """
        self.learner.progress = self.state.global_step / max(self.state.max_steps, 1)
        loss, numbers = model(**inputs)
        count = self.learner.label_count(inputs)
        self._label_count += count
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + count * value
        step_count = max(int(num_items_in_batch or count), 1)
        # The gradients of the processes are averaged, where they should be added.
        share = loss * (count * self.accelerator.num_processes / step_count)
        return (share, None) if return_outputs else share

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        """Return the number of labels of a step, over all processes."""
        count = sum(self.learner.label_count(batch) for batch in batch_samples)
        return count if self.accelerator.num_processes == 1 else round(self._summed([count])[0])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the training loss with the means of the numbers that the learner reported since the
        last time.
        """
        if "loss" in logs:
            logs.update(self._means())
        super().log(logs, start_time)

    def _means(self) -> dict[str, float]:
        names = sorted(self._sums)
        sums = self._summed([self._label_count, *(self._sums[name] for name in names)])
        self._sums, self._label_count = {}, 0
        return {name: value / max(sums[0], 1) for name, value in zip(names, sums[1:], strict=True)}

    def _summed(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        local = torch.tensor(values, dtype=torch.float32, device=self.args.device)
        sums: list[float] = self.accelerator.reduce(local, "sum").tolist()
        return sums

    def any_process(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; the answer is the same in all of them."""
        return flag if self.accelerator.num_processes == 1 else self._summed([flag])[0] > 0

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure the learner on the evaluation rows, and log the metrics."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        values = self.measure(rows).values()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def measure(self, rows: Any) -> Metrics:
        """Return the learner's metrics on some rows, of which each process measures a share."""
        indices = range(self.args.process_index, len(rows), self.args.world_size)
        share: Subset[Any] = Subset(rows, indices)
        metrics = self.learner.measure(share, self.args.per_device_eval_batch_size)
        if self.args.world_size > 1:
            count = metrics.label_count
            sums = [count, *(count * mean for mean in metrics.means())]
            total, *sums = self._summed(sums)
            metrics = metrics.with_means([value / max(total, 1) for value in sums], int(total))
        self.last_metrics = metrics
        return metrics

    def restore(self, checkpoint: Path) -> None:
        """Load the weights and the trainer's state of a checkpoint, without training on."""
        check_fits(checkpoint, self.learner.state_dict())
        with readable(checkpoint):
            self.learner.load_state_dict(load_file(checkpoint / WEIGHTS))
        self.state: Any = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights of a checkpoint; refuse one that is damaged or of another training."""
        checkpoint = Path(resume_from_checkpoint)
        check_fits(checkpoint, self.learner.state_dict())
        with readable(checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the optimizer's state of a checkpoint; refuse a damaged one."""
        with readable(Path(checkpoint or "")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load the random number generators' state of a checkpoint; refuse a damaged one."""
        with readable(Path(checkpoint or "")):
            super()._load_rng_state(checkpoint)

    def weights(self, part: str) -> dict[str, Tensor]:
        """Return the unsharded weights of one of the learner's submodules.

        Args:
            part: the attribute that holds the submodule, such as "heads".
        """
        state = self.accelerator.get_state_dict(self.model_wrapped)
        weights: dict[str, Tensor] = {}
        for name, weight in state.items():
            name = name.removeprefix("module.").removeprefix("_orig_mod.")
            if name.startswith(f"{part}."):
                weights[name.removeprefix(f"{part}.")] = weight
        return weights
