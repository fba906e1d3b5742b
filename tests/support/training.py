"""A tiny training of heads: what it learns from, its settings, and what it logged."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import folder
from transformers import TrainerCallback, TrainingArguments

from nfox import drafters
from nfox.drafters.common.heads import HeadsDrafter
from nfox.models.loading import ModelOptions
from nfox.train.heads.job import HeadsJob
from nfox.train.job import TrainingResult
from nfox.train.run import train

CLASSES = {name: drafters.method_class(name) for name in drafters.method_names()}
METHODS = [name for name, method in CLASSES.items() if issubclass(method, HeadsDrafter)]
METHOD = METHODS[-1]
FLOAT32 = ModelOptions(dtype="float32", device="cpu")


@cache
def data() -> Path:
    """Conversations of different lengths, to be learned by heart."""
    words, dice = ["the", "quick", "brown", "fox", "jumps", "over", "a", "dog"], random.Random(0)
    records = []
    for _ in range(24):
        first, second = (" ".join(dice.choices(words, k=dice.randint(2, 9))) for _ in range(2))
        turns = [{"from": "human", "value": first}, {"from": "gpt", "value": second}]
        records.append({"conversations": turns})
    path = Path(mkdtemp(prefix="nfox-data-")) / "data.json"
    path.write_text(json.dumps(records))
    return path


def job(method: str = METHOD, **changes: Any) -> HeadsJob:
    config = {"num_heads": 2}
    given = {"method": method, "model": str(folder.llama()), "data": str(data())}
    return HeadsJob(**{**given, "config": config, "loading": FLOAT32, **changes})


def arguments(out: Path, **changes: Any) -> TrainingArguments:
    given: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": True,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "max_steps": 6,
        "logging_steps": 1,
        "save_steps": 3,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(**given | changes)


class Log(TrainerCallback):
    """Keeps what was logged for each step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.all: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: object) -> None:
        self.all.append(dict(logs))
        if "loss" in logs:
            self.losses[state.global_step] = logs["loss"]


def learn(
    out: Path,
    made: HeadsJob | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **changes: Any,
) -> tuple[TrainingResult, Log]:
    log = Log()
    return train(made or job(), arguments(out, **changes), callbacks=[log, *callbacks]), log
