"""One trainer for all heads, on that of transformers: schedules, checkpoints, several processes.

A loss is a mean over the labels of a batch. Batches have different numbers of them, so each is
weighted by its share in the step: accumulated, spread over processes or at once, it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Subset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState

from nfox.heads import IGNORE
from nfox.train.learner import Learner
from nfox.train.measure import Measured, measure
from nfox.train.resume import WEIGHTS, check_fits, readable
from nfox.train.rows import Row, Rows, collate


class HeadsTrainer(Trainer):
    """Trains a `Learner`.

    Args:
        learner: the heads and their target.
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
        rows: Rows,
        eval_rows: Rows | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        # One process has one device: the heads' own. More devices are for more processes.
        args._n_gpu = min(args.n_gpu, 1)
        args.average_tokens_across_devices = True  # see `compute_loss`
        args.remove_unused_columns = False  # rows are ours, and have what is needed only
        args.include_num_input_tokens_seen = "non_padding"
        super().__init__(
            learner,
            args,
            data_collator=collate,
            train_dataset=rows,
            eval_dataset=eval_rows,
            callbacks=list(callbacks),
        )
        for printing in (PrinterCallback, ProgressCallback):
            self.remove_callback(printing)
        self.learner = learner
        self.measured: Measured | None = None
        self.loss_is_scaled_for_ga = True
        self._sums: dict[str, float] = {}
        self._labels = 0

    def create_optimizer(self, model: Any = None) -> Any:
        """Give the heads a learning rate of their own, a multiple of the base's."""
        optimizer = super().create_optimizer(model)
        heads = {id(weight) for weight in self.learner.heads.parameters()}
        for group in list(optimizer.param_groups):
            rate = group["lr"] * self.learner.joint.heads_rate
            own = [weight for weight in group["params"] if id(weight) in heads]
            rest = [weight for weight in group["params"] if id(weight) not in heads]
            if own and rest:
                group["params"] = rest
                optimizer.add_param_group({**group, "params": own, "lr": rate})
            elif own:
                group["lr"] = rate
        return optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Leave biases and scales out, also those of a base, whose weights have no names here."""
        flat = {n for n, w in model.named_parameters() if n.startswith("base.") and w.dim() < 2}
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
            num_items_in_batch: labels of the whole step, of all processes.
        """
        self.learner.progress = self.state.global_step / max(self.state.max_steps, 1)
        loss, numbers = model(**inputs)
        labels = int((inputs["labels"] != IGNORE).sum())
        self._labels += labels
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + labels * value
        whole = max(int(num_items_in_batch or labels), 1)
        # The gradients of the processes are averaged, where they should be added.
        share = loss * (labels * self.accelerator.num_processes / whole)
        return (share, None) if return_outputs else share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of what the heads' loss reported since the last time."""
        if "loss" in logs:
            logs.update(self._means())
        super().log(logs, start_time)

    def _means(self) -> dict[str, float]:
        names = sorted(self._sums)
        sums = self._added([self._labels, *(self._sums[name] for name in names)])
        self._sums, self._labels = {}, 0
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
        """Measure the loss, the accuracy of each depth, and the tokens per step to expect."""
        found = self.measure(self.eval_dataset if eval_dataset is None else eval_dataset)
        metrics = {f"{metric_key_prefix}_loss": found.loss, f"{metric_key_prefix}_tau": found.tau()}
        for depth, row in enumerate(found.accuracy, 1):
            metrics[f"{metric_key_prefix}_depth{depth}_top1"] = row[0]
            metrics[f"{metric_key_prefix}_depth{depth}_top5"] = sum(row[:5])
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def measure(self, rows: Any) -> Measured:
        """Measure on a dataset of rows, each process on its share of them."""
        places = range(self.args.process_index, len(rows), self.args.world_size)
        own: Subset[Row] = Subset(rows, places)
        found = measure(self.learner, own, self.args.per_device_eval_batch_size)
        if self.args.world_size > 1:
            width = len(found.accuracy[0])
            flat = [found.loss, *(rate for row in found.accuracy for rate in row)]
            count, *sums = self._added([found.places, *(found.places * x for x in flat)])
            loss, *rates = (value / max(count, 1) for value in sums)
            rows_of = [rates[i : i + width] for i in range(0, len(rates), width)]
            found = Measured(loss, rows_of, int(count))
        self.measured = found
        return found

    def restore(self, point: Path) -> None:
        """Take heads and state of a checkpoint, without training on."""
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

    def weights(self) -> dict[str, Tensor]:
        """Return the heads' weights, whole, wherever their parts are."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        made: dict[str, Tensor] = {}
        for name, weight in state.items():
            name = name.removeprefix("module.").removeprefix("_orig_mod.")
            if name.startswith("heads."):
                made[name.removeprefix("heads.")] = weight
        return made


def size(learner: Learner) -> tuple[int, float]:
    """Return how many parameters the heads have, and their size on disk in MB."""
    count = sum(weight.numel() for weight in learner.heads.parameters())
    return count, count * 2 / 1e6  # written in 16 bit
