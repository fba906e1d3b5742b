"""What `nfox train` takes: our own few settings, those of its kind, and `TrainingArguments`.

The names are those of the published training scripts, see `train_names`. A config file is read as
if its keys had been typed first.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser, TrainingArguments
from typing_extensions import override

from nfox.errors import UsageError
from nfox.models.devices import best_device, cpu_computes_bfloat16
from nfox.models.options import ModelOptions
from nfox.train.job import Job

from .cllm import ConsistencyKind
from .config_file import read_config, typed
from .draft import DraftKind
from .heads import HeadsKind
from .kinds import Kind, about
from .published_names import Setting, join, reasons, split, translate
from .reporting import check_reports

_FILES = ("configpath", "heads_config")
_EVALUATED = "0.1"  # of the training: transformers takes less than 1 as a share of the steps


_KINDS: dict[str, type[Kind]] = {"cllm": ConsistencyKind, "draft": DraftKind}
"""What else is trained than heads."""


def kind(method: str) -> Kind:
    """Return what kind of training is meant by a name.

    Raises:
        UsageError: if there is no such method, or it has nothing to train.
    """
    return _KINDS.get(method, HeadsKind)(method)


@dataclass
class DataArguments:
    """What is learned from what."""

    model_name_or_path: str | None = about("Folder or hub id of the base.")
    data_path: str | None = about("JSON, JSONL or a hub dataset: what to learn from.")
    eval_data_path: str | None = about("The same, to measure on.")
    conv_template: str | None = about("Of conversations; the model's own by default.")
    model_max_length: int = about("Tokens of a conversation at most.", 2048)
    lazy_preprocess: bool = about("Tokenise while training.", False)
    load_in_4bit: bool = about("The base in nf4.", False)
    load_in_8bit: bool = about("The base in int8.", False)
    cache_dir: str | None = about("Where downloads are kept; the hub's own by default.")
    offline: bool = about("Use local files only.", False)
    trust_remote_code: bool = about("Run code that comes with the base.", False)


def _bf16() -> bool:
    """Whether the hardware computes in bfloat16."""
    kind = best_device().type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return kind == "cpu" and cpu_computes_bfloat16()


class _Parser(HfArgumentParser):
    """Says what is wrong in one line instead of printing all it knows."""

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "`nfox train METHOD --help` lists the settings")


def _parser(made: Kind) -> _Parser:
    kinds = [DataArguments, *made.arguments(), TrainingArguments]
    parser = _Parser(kinds, prog=f"nfox train {made.method}", allow_abbrev=False)
    parser.set_defaults(
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        logging_steps=10,
        save_total_limit=2,
        report_to=["none"],
        use_cpu=best_device().type == "cpu",
        bf16=_bf16(),
        disable_tqdm=True,
    )
    parser.set_defaults(**made.defaults)
    return parser


def help_text(method: str) -> str:
    """Return all that can be set for a method."""
    text: str = _parser(kind(method)).format_help()
    return text


def parse(
    method: str, given: Sequence[str], command: str
) -> tuple[Job, TrainingArguments, list[str]]:
    """Read the arguments of `nfox train`.

    Args:
        method: what for.
        given: what follows it: a config file or none, then settings.
        command: for the record.

    Returns:
        What to train, how, and lines about settings that are not used.

    Raises:
        UsageError: for a setting that is missing, unknown, or cannot be used as given.
    """
    made = kind(method)
    parser = _parser(made)
    said, unused = translate(method, _with_files(method, given))
    unused |= {name: why for name, why in made.unused.items() if said.pop(name, None) is not None}
    if _given(said.get("eval_data_path")) and "eval_strategy" not in said:
        said |= {"eval_strategy": ["steps"], "eval_steps": said.get("eval_steps", [_EVALUATED])}
    if _is_on(said.get("fp16")):
        parser.set_defaults(bf16=False)
    try:
        data, *own, args, rest = parser.parse_args_into_dataclasses(
            join(said.items()), return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, ImportError, TypeError) as error:  # what TrainingArguments says of its own
        raise UsageError(" ".join(str(error).split())[:300]) from error
    _refuse_unknown(parser, rest)
    _check(method, said)
    if args.eval_strategy != "no" and data.eval_data_path is None:
        unused["eval_strategy"] = "--eval_data_path names data to measure on"
        args.eval_strategy = args.eval_strategy.NO
    check_reports(args.report_to)
    if "eval_steps" in said and args.eval_strategy == "no" and "eval_strategy" not in unused:
        unused["eval_steps"] = "--eval_strategy steps measures while training"
    job = made.job(own, said, _common(method, data, args, command))
    return job, args, list(reasons(unused))


def _check(method: str, said: Container[str]) -> None:
    """Refuse what cannot be begun."""
    for name in ("model_name_or_path", "data_path", "output_dir"):
        if name not in said:
            raise UsageError(f"--{name} is missing", f"nfox train {method} --{name} ...")


def _common(method: str, data: DataArguments, args: Any, command: str) -> dict[str, Any]:
    """Return what all jobs have."""
    if data.load_in_4bit and data.load_in_8bit:
        raise UsageError("4 bit and 8 bit at once", "choose one of the two")
    loading = ModelOptions(
        dtype="bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        quantisation="4bit" if data.load_in_4bit else "8bit" if data.load_in_8bit else None,
        device=str(args.device),
        cache_dir=data.cache_dir,
        offline=data.offline,
        trust_remote_code=data.trust_remote_code,
    )
    return {
        "method": method,
        "model": str(data.model_name_or_path),
        "data": str(data.data_path),
        "eval_data": data.eval_data_path,
        "loading": loading,
        "max_length": data.model_max_length,
        "lazy": data.lazy_preprocess,
        "template": data.conv_template,
        "command": command,
    }


def _with_files(method: str, given: Sequence[str]) -> Iterator[Setting]:
    """Yield settings, those of files first, so that typed ones win."""
    rest = list(given)
    if rest and not rest[0].startswith("-"):
        yield from _with_files(method, list(typed(read_config(rest.pop(0)))))
    settings = list(split(rest))
    for name, values in settings:
        if name in _FILES:
            yield from split(list(typed(_sizes(method, values[0] if values else ""))))
    yield from (setting for setting in settings if setting[0] not in _FILES)


def _sizes(method: str, place: str) -> dict[str, Any]:
    """Read the sizes of heads from a file of their own."""
    sizes = read_config(place)
    if "architectures" in sizes or "model_type" in sizes:
        raise UsageError(
            f"{place} describes a model of transformers, not heads of {method}",
            f"leave it out; sizes are --{method}_num_heads, ...: `nfox train {method} --help`",
        )
    return {f"{method}_{name}": value for name, value in sizes.items()}


def _given(values: Sequence[str] | None) -> bool:
    return bool(values) and values != [""]


def _is_on(values: Sequence[str] | None) -> bool:
    return values is not None and (
        not values or values[0].lower() in ("true", "1", "yes", "t", "y")
    )


def _refuse_unknown(parser: _Parser, left: Sequence[str]) -> None:
    if not left:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    close = difflib.get_close_matches(left[0].partition("=")[0], known, 1)
    hint = f"did you mean {close[0]}?" if close else "`nfox train METHOD --help` lists all settings"
    raise UsageError(f"unknown setting {left[0]}", hint)
