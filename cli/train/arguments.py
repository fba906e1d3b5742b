"""The settings of `nfox train`: some of our own, those of the kind of training, and transformers'
`TrainingArguments`.

The names are those of the published training scripts, see `published_names`. A config file is read
as if its keys had been typed first.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.utils import is_torch_tf32_available
from typing_extensions import override

from nfox.drafters import methods_with_heads
from nfox.errors import UsageError, did_you_mean
from nfox.models.devices import best_device, cpu_computes_bfloat16
from nfox.secrets import Unwritten
from nfox.train.job import Job

from ..unused import reasons
from .cllm import ConsistencyKind
from .config_file import settings_with_files
from .data_arguments import DataArguments, common_fields
from .draft import DraftKind
from .heads import HeadsKind
from .help import SHORT, Groups, check_name, rows
from .kinds import TrainingKind
from .published_names import join, translate
from .reporting import check_reports

_EVAL_STEPS = "0.1"  # transformers takes less than 1 as a share of the steps

_KINDS: dict[str, type[TrainingKind]] = {"cllm": ConsistencyKind, "draft": DraftKind}
"""The kinds of training but that of heads, by the name after `nfox train`."""


def kind(method: str) -> TrainingKind:
    """Return the kind of training that a name means.

    Args:
        method: the name after `nfox train`.

    Raises:
        UsageError: if there is no such method, or it has nothing to train.
    """
    with_heads = methods_with_heads()
    if method not in _KINDS and method not in with_heads:
        check_name(method)
        raise UsageError(
            f"{method} has no heads to train",
            f"what is trained: heads of {', '.join(with_heads)}; {', '.join(_KINDS)}",
        )
    return _KINDS.get(method, HeadsKind)(method)


def _has_bf16() -> bool:
    """Return whether the best device computes in bfloat16."""
    device = best_device().type
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and cpu_computes_bfloat16()


class _Parser(HfArgumentParser):
    """A parser that raises a `UsageError` of one line instead of printing its whole usage."""

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(message[:1000], "`nfox train METHOD --help` lists the settings")


def _parser(training: TrainingKind) -> _Parser:
    """Return the parser of all settings of a kind of training, with its defaults."""
    dataclasses = [DataArguments, *training.arguments(), TrainingArguments]
    parser = _Parser(dataclasses, prog=f"nfox train {training.method}", allow_abbrev=False)
    parser.set_defaults(
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        logging_steps=10,
        save_total_limit=2,
        report_to=["none"],
        use_cpu=best_device().type == "cpu",
        bf16=_has_bf16(),
        disable_tqdm=True,
    )
    parser.set_defaults(**training.defaults)
    return parser


def methods() -> list[str]:
    """Return the names that may stand after `nfox train`."""
    return [*methods_with_heads(), *_KINDS]


def help_rows(method: str, *, everything: bool) -> Groups:
    """Return the rows of the help of a method's training: nfox's own settings, and of transformers'
    those that are needed most, or all.
    """
    training = kind(method)
    theirs = [field.name for field in fields(TrainingArguments) if field.name not in SHORT]
    groups = {
        "Model and data": [field.name for field in fields(DataArguments)],
        "Method": [field.name for own in training.arguments() for field in fields(own)],
        "Trainer": list(SHORT),
        "All others of transformers' TrainingArguments": theirs,
    }
    return rows(_parser(training), groups if everything else dict(list(groups.items())[:3]))


def parse(
    method: str, words: Sequence[str], command: str
) -> tuple[Job, TrainingArguments, list[str]]:
    """Read the arguments of `nfox train`.

    Args:
        method: the name after `nfox train`.
        words: the words after it: a config file or none, then settings.
        command: the whole command line, for the record.

    Returns:
        The job, transformers' `TrainingArguments`, and lines about settings that are not used.

    Raises:
        UsageError: for a setting that is missing, unknown, or cannot be used as typed.
    """
    training = kind(method)
    parser = _parser(training)
    typed, unused = translate(method, settings_with_files(method, words))
    for name, reason in training.unused.items():
        if typed.pop(name, None) is not None:
            unused[name] = reason
    if _has_value(typed.get("eval_data_path")) and "eval_strategy" not in typed:
        typed |= {"eval_strategy": ["steps"], "eval_steps": typed.get("eval_steps", [_EVAL_STEPS])}
    if _is_on(typed.get("fp16")):
        parser.set_defaults(bf16=False)
    if _is_on(typed.get("tf32")) and not is_torch_tf32_available():
        unused["tf32"] = "it is of NVIDIA's GPUs from Ampere on, and there is none"
        del typed["tf32"]
    data, arguments, args = _into_dataclasses(parser, typed)
    _refuse_missing(method, typed)
    check_reports(args.report_to)
    if args.eval_strategy != "no" and data.eval_data_path is None:
        unused["eval_strategy"] = "--eval_data_path names data to measure on"
        args.eval_strategy = args.eval_strategy.NO
    elif args.eval_strategy == "no" and "eval_steps" in typed:
        unused["eval_steps"] = "--eval_strategy steps measures while training"
    job = training.job(arguments, typed, common_fields(method, data, args, command))
    unused |= {name: why for name, why in training.idle(job).items() if name in typed}
    return job, args, list(reasons(unused))


def _into_dataclasses(
    parser: _Parser, typed: Mapping[str, list[str]]
) -> tuple[DataArguments, list[Any], TrainingArguments]:
    """Return settings as the dataclasses of the parser.

    Raises:
        UsageError: if a setting is unknown, or a value cannot be used.
    """
    try:
        data, *arguments, args, unknown = parser.parse_args_into_dataclasses(
            join(typed.items()), return_remaining_strings=True, look_for_args_file=False
        )
    except PackageNotFoundError as error:  # as of --deepspeed; its name is transformers' sentence
        package = (re.findall("'(.+?)'", error.name) or [error.name])[0]
        raise UsageError(f"{package} is not installed", f"pip install '{package}'") from error
    except (ValueError, ImportError, TypeError) as error:  # of TrainingArguments itself
        raise UsageError(" ".join(str(error).split())[:300]) from error
    _refuse_unknown(parser, unknown)
    if args.hub_token:
        args.hub_token = Unwritten(args.hub_token)
    return data, arguments, args


def _refuse_missing(method: str, typed: Container[str]) -> None:
    """Refuse a command line without the model or the output folder.

    Raises:
        UsageError: if one of them is missing.
    """
    for name in ("model_name_or_path", "output_dir"):
        if name not in typed:
            raise UsageError(f"--{name} is missing", f"nfox train {method} --{name} ...")


def _has_value(values: Sequence[str] | None) -> bool:
    return bool(values) and values != [""]


def _is_on(values: Sequence[str] | None) -> bool:
    return values is not None and (
        not values or values[0].lower() in ("true", "1", "yes", "t", "y")
    )


def _refuse_unknown(parser: _Parser, unknown: Sequence[str]) -> None:
    """Refuse words that the parser did not understand, with the setting that was perhaps meant.

    Raises:
        UsageError: if there are any.
    """
    if not unknown:
        return
    names = [name for action in parser._actions for name in action.option_strings]
    typed, hint = unknown[0].partition("=")[0], "`nfox train METHOD --help all` lists all settings"
    hint = did_you_mean(typed, names, hint)
    raise UsageError(f"unknown setting {typed[:100]}", hint)
