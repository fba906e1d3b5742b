"""The help of `nfox train METHOD`: nfox's own settings, and of transformers' those that are needed
most; all of them behind `--help all`.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterable, Iterator
from dataclasses import fields
from typing import Any

from transformers import TrainingArguments

from ..help import ALL, filled, panels
from ..layout import unbroken
from .data_arguments import DataArguments

_SHORT = {
    "output_dir": "Folder for what is trained.",
    "num_train_epochs": "Times that all data are read.",
    "max_steps": "Steps instead of epochs.",
    "per_device_train_batch_size": "Conversations at a time.",
    "gradient_accumulation_steps": "Batches in a step.",
    "learning_rate": "At its highest.",
    "eval_strategy": "When to measure: no, steps, epoch.",
    "eval_steps": "Steps from one measuring to the next.",
    "logging_steps": "Steps from one line of the log to the next.",
    "save_steps": "Steps from one checkpoint to the next.",
    "resume_from_checkpoint": "true, or a checkpoint: go on with a training that was stopped.",
    "bf16": "Compute in bfloat16.",
    "use_cpu": "Leave GPUs alone.",
    "seed": "Of the random numbers.",
    "report_to": "Also log to tensorboard, wandb, ...",
}
"""What the settings of transformers that are needed most are for; its own words take ten rows."""


def settings_help(
    parser: argparse.ArgumentParser, own: Iterable[type], *, everything: bool
) -> Iterator[str]:
    """Yield the lines of the help of a kind of training.

    Args:
        parser: of all settings, with their defaults.
        own: the dataclasses of the settings of this kind.
        everything: whether all of transformers' settings are shown.
    """
    named = {action.dest: action for action in parser._actions if action.option_strings}

    def rows(names: Iterable[str], brief: Container[str] = ()) -> list[tuple[str, str]]:
        return [(_names(named[n]), _meaning(named[n], n in brief)) for n in names if n in named]

    theirs = [field.name for field in fields(TrainingArguments)]
    others = [name for name in theirs if name not in _SHORT] if everything else []
    groups = {
        "Model and data": rows(field.name for field in fields(DataArguments)),
        "Method": rows(field.name for kind in own for field in fields(kind)),
        "Trainer": rows(_SHORT, _SHORT),
        "All others of transformers' TrainingArguments": rows(others),
    }
    yield f"Usage: {parser.prog} [CONFIG.yaml] [--name value ...]"
    yield from panels(groups.items())
    if not everything:
        more = sum(name in named for name in theirs) - len(_SHORT)
        text = (
            f"`{parser.prog} --help {ALL}` lists {more} more, of transformers' TrainingArguments."
        )
        yield from ("", *filled(text))


def _names(action: argparse.Action) -> str:
    """Return a setting as it is typed, and what stands for its value."""
    name = action.option_strings[0]
    is_switch = action.nargs in (0, "?")
    short = name.rpartition("_")[2].rpartition("-")[2].upper()
    value = "N" if action.type is int else "X" if action.type is float else short
    return name if is_switch else f"{name} {value}"


def _meaning(action: argparse.Action, brief: bool) -> str:
    """Return what a setting does, its choices and its default."""
    text = _SHORT[action.dest] if brief else " ".join((action.help or "").split())
    text = text.replace("%%", "%")
    if action.choices and not brief:
        text = f"{text.rstrip('.')}: {', '.join(map(_value, action.choices))}."
    default = action.default
    if default in (None, False, "", [], ["none"]) or default is argparse.SUPPRESS:
        return text
    return f"{text} {unbroken(f'[default: {_value(default)}]')}"


def _value(value: Any) -> str:
    """Return a value as it is typed."""
    value = getattr(value, "value", value)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
