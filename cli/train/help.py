"""The help of `nfox train METHOD`: nfox's own settings, and of transformers' those that are needed
most; all of them behind `--help all`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nfox.drafters import method_names
from nfox.errors import UsageError, did_you_mean

from ..help import ALL, filled, panels
from ..layout import unbroken

Groups = dict[str, list[list[str]]]
"""Rows of how a setting is typed and what it does, by the title of their panel."""

FILE = Path(__file__).with_name("settings.json")
"""The rows of nfox's own settings and of those that are needed most, by the methods' names."""

SHORT = {
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
    "bf16": "Compute in bfloat16: so by itself where the device can.",
    "use_cpu": "Leave GPUs alone: so by itself where there are none.",
    "seed": "Of the random numbers.",
    "report_to": "Also log to tensorboard, wandb, ...",
}
"""What the settings of transformers that are needed most are for; its own words take ten rows."""


def listed(method: str) -> Groups | None:
    """Return the rows of the help of a method's training, as `docs/make_settings.py` has written
    them: nobody waits for torch and transformers to be imported. None if the method is not there.
    """
    return _all_listed().get(method)


def check_name(method: str) -> None:
    """Refuse what is neither listed nor a method, before anything large is imported.

    Raises:
        UsageError: for such a name.
    """
    trained = _all_listed()
    if method not in trained and method not in method_names():
        hint = f"what is trained: {', '.join(trained)}"
        raise UsageError(f"unknown method {method[:100]!r}", did_you_mean(method, trained, hint))


def _all_listed() -> dict[str, Groups]:
    found: dict[str, Groups] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def rows(parser: argparse.ArgumentParser, groups: Mapping[str, Iterable[str]]) -> Groups:
    """Return the rows of settings: how each is typed, and what it does.

    Args:
        parser: of all settings, with their defaults.
        groups: the names of settings, by the title of their panel.
    """
    named = {action.dest: action for action in parser._actions if action.option_strings}
    return {
        title: [[_names(named[n]), _meaning(named[n])] for n in names if n in named]
        for title, names in groups.items()
    }


def help_lines(method: str, groups: Groups, *, everything: bool) -> Iterator[str]:
    """Yield the lines of the help of a method's training.

    Args:
        method: the name after `nfox train`.
        groups: the rows, by the title of their panel.
        everything: whether these are all that there are.
    """
    program = f"nfox train {method}"
    yield f"Usage: {program} [CONFIG.yaml] [--name value ...]"
    yield from panels((title, [(name, text) for name, text in of]) for title, of in groups.items())
    if not everything:
        others = f"`{program} --help {ALL}` lists the others, of transformers' TrainingArguments."
        yield from ("", *filled(others))


def _names(action: argparse.Action) -> str:
    """Return a setting as it is typed, and what stands for its value."""
    name = action.option_strings[0]
    is_switch = action.nargs in (0, "?")
    short = name.rpartition("_")[2].rpartition("-")[2].upper()
    value = "N" if action.type is int else "X" if action.type is float else short
    return name if is_switch else f"{name} {value}"


def _meaning(action: argparse.Action) -> str:
    """Return what a setting does, its choices and its default, which is not this machine's."""
    brief = SHORT.get(action.dest)
    text = brief or " ".join((action.help or "").split())
    text = text.replace("%%", "%")
    if action.choices and not brief:
        text = f"{text.rstrip('.')}: {', '.join(map(_value, action.choices))}."
    default = action.default
    if brief and default is True:
        return text
    if default in (None, False, "", [], ["none"]) or default is argparse.SUPPRESS:
        return text
    return f"{text} {unbroken(f'[default: {_value(default)}]')}"


def _value(value: Any) -> str:
    """Return a value as it is typed."""
    value = getattr(value, "value", value)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
