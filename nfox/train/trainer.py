"""One trainer for all that is trained, on that of transformers: schedules, checkpoints, several
processes.

A loss is a mean over places of a batch, such as labels. Batches have different numbers of them, so
each is weighted by its share in the step: accumulated, spread over processes or at once, it is the
same.
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

from nfox.train.callbacks import Epochs
from nfox.train.checkpoints import WEIGHTS, check_fits, readable
from nfox.train.learner import Learner
from nfox.train.metrics import Found

MODELS = ("base.", "draft.")
"""How the names of whole models' weights begin."""


class LearnerTrainer(Trainer):
    """Trains a `Learner`.

    Args:
        learner: what is trained, and what it learns from.
        args: transformers' `TrainingArguments`.
        rows: to learn from.
        eval_rows: to measure on.
        callbacks: of transformers; its own, which print, are left out.

    Attributes:
        learner: as given.
        measured: the last evaluation.
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
        args.remove_unused_columns = False  # rows are ours, and have what is needed only
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
            self.add_callback(Epochs(rows))
        self.learner = learner
        self.measured: Found | None = None
        self.loss_is_scaled_for_ga = True
        self._sums: dict[str, float] = {}
        self._places = 0

    def create_optimizer(self, model: Any = None) -> Any:
        """Give some weights a learning rate of their own, a multiple of the others'."""
        optimizer = super().create_optimizer(model)
        quick, times = self.learner.quick()
        named = set(map(id, quick))
        for group in list(optimizer.param_groups):
            rate = group["lr"] * times
            own = [weight for weight in group["params"] if id(weight) in named]
            rest = [weight for weight in group["params"] if id(weight) not in named]
            if own and rest:
                group["params"] = rest
                optimizer.add_param_group({**group, "params": own, "lr": rate})
            elif own:
                group["lr"] = rate
        return optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Leave biases and scales out, also those of models, whose weights have no names here."""
        flat = {
            name
            for name, weight in model.named_parameters()
            if name.startswith(MODELS) and weight.dim() < 2
        }
        return [n for n in super().get_decay_parameter_names(model) if n not in flat]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return a batch's part of the step's loss.

        Args:
            model: the learner, as accelerate has wrapped it.
            inputs: a batch.
            return_outputs: never asked for: evaluation is its own.
            num_items_in_batch: places of the whole step, of all processes.
        """
        self.learner.progress = self.state.global_step / max(self.state.max_steps, 1)
        loss, numbers = model(**inputs)
        places = self.learner.places(inputs)
        self._places += places
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + places * value
        whole = max(int(num_items_in_batch or places), 1)
        # The gradients of the processes are averaged, where they should be added.
        share = loss * (places * self.accelerator.num_processes / whole)
        return (share, None) if return_outputs else share

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        """Count the places of a step, over all processes."""
        mine = sum(self.learner.places(batch) for batch in batch_samples)
        return mine if self.accelerator.num_processes == 1 else round(self._added([mine])[0])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of what the loss reported since the last time."""
        if "loss" in logs:
            logs.update(self._means())
        super().log(logs, start_time)

    def _means(self) -> dict[str, float]:
        names = sorted(self._sums)
        sums = self._added([self._places, *(self._sums[name] for name in names)])
        self._sums, self._places = {}, 0
        return {name: value / max(sums[0], 1) for name, value in zip(names, sums[1:], strict=True)}

    def _added(self, values: Sequence[float]) -> list[float]:
        """Add numbers up over all processes."""
        mine = torch.tensor(values, dtype=torch.float32, device=self.args.device)
        added: list[float] = self.accelerator.reduce(mine, "sum").tolist()
        return added

    def agreed(self, flag: bool) -> bool:
        """Whether any process says so; all learn the same."""
        return flag if self.accelerator.num_processes == 1 else self._added([flag])[0] > 0

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure on data that are not learned from."""
        found = self.measure(self.eval_dataset if eval_dataset is None else eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.metrics().items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def measure(self, rows: Any) -> Found:
        """Measure on a dataset of rows, each process on its share of them."""
        places = range(self.args.process_index, len(rows), self.args.world_size)
        own: Subset[Any] = Subset(rows, places)
        found = self.learner.measure(own, self.args.per_device_eval_batch_size)
        if self.args.world_size > 1:
            sums = [found.places, *(found.places * mean for mean in found.flat())]
            count, *sums = self._added(sums)
            found = found.like([value / max(count, 1) for value in sums], int(count))
        self.measured = found
        return found

    def restore(self, point: Path) -> None:
        """Take weights and state of a checkpoint, without training on."""
        check_fits(point, self.learner.state_dict())
        with readable(point):
            self.learner.load_state_dict(load_file(point / WEIGHTS))
        self.state: Any = TrainerState.load_from_json(str(point / "trainer_state.json"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Refuse what is damaged or of another training."""
        point = Path(resume_from_checkpoint)
        check_fits(point, self.learner.state_dict())
        with readable(point):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Refuse what is damaged or of another training."""
        with readable(Path(checkpoint or "")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Refuse what is damaged."""
        with readable(Path(checkpoint or "")):
            super()._load_rng_state(checkpoint)

    def weights(self, part: str) -> dict[str, Tensor]:
        """Return the weights of a part of the learner, whole, wherever their parts are."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        made: dict[str, Tensor] = {}
        for name, weight in state.items():
            name = name.removeprefix("module.").removeprefix("_orig_mod.")
            if name.startswith(f"{part}."):
                made[name.removeprefix(f"{part}.")] = weight
        return made
