"""What `nfox train` takes: our own few settings, those of the heads, and `TrainingArguments`.

The names are those of the published training scripts; old ones are translated. A config file is
read as if its keys had been typed first.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn

import torch
from transformers import HfArgumentParser, TrainingArguments

from nfox.devices import best_device, cpu_computes_bfloat16
from nfox.errors import UsageError
from nfox.heads import HeadsDrafter
from nfox.loading import ModelOptions
from nfox.train.record import Job
from nfox.train.start import heads_class

from .train_config import read_config, typed
from .train_joint import joint_arguments, read_joint

OLD_NAMES = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",  # transformers 5 reads less than 1 as a share of the steps
    "no_cuda": "use_cpu",
    "tmpdir": "data_path",
    "cpdir": "output_dir",
    "basepath": "model_name_or_path",
    "bs": "per_device_train_batch_size",
    "lr": "learning_rate",
    "recover": "resume_from_checkpoint",
}
"""Of other versions of transformers, and of CTC-drafter's script, to what they are called here."""

OLD_SIZES = {"decay_coefficient": "decay"}
"""Of the heads, after the method's name: published to ours."""

_FILES = ("configpath", "heads_config")


def _about(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    """What is learned from what."""

    model_name_or_path: str | None = _about("Folder or hub id of the base.")
    data_path: str | None = _about("JSON, JSONL or a hub dataset: what to learn from.")
    eval_data_path: str | None = _about("The same, to measure on.")
    labels: Literal["data", "target"] = _about(
        "What is learned: the data's tokens, or the base's own choices there.", "data"
    )
    heads: str | None = _about("Folder or hub id of heads to go on with.")
    conv_template: str | None = _about("Of conversations; the model's own by default.")
    model_max_length: int = _about("Tokens of a conversation at most.", 2048)
    lazy_preprocess: bool = _about("Tokenise while training.", False)
    load_in_4bit: bool = _about("The base in nf4.", False)
    load_in_8bit: bool = _about("The base in int8.", False)
    offline: bool = _about("Use local files only.", False)
    trust_remote_code: bool = _about("Run code that comes with the base.", False)


def _bf16() -> bool:
    """Whether the hardware computes in bfloat16."""
    kind = best_device().type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return kind == "cpu" and cpu_computes_bfloat16()


class _Parser(HfArgumentParser):
    """Says what is wrong in one line instead of printing all it knows."""

    def error(self, message: str) -> NoReturn:
        """See `ArgumentParser.error`."""
        raise UsageError(message, "`nfox train METHOD --help` lists the settings")


def _parser(method: str) -> _Parser:
    made = _heads_arguments(method, heads_class(method))
    kinds = [DataArguments, made, joint_arguments(method), TrainingArguments]
    parser = _Parser(kinds, prog=f"nfox train {method}", allow_abbrev=False)
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
    return parser


def _heads_arguments(method: str, made: type[HeadsDrafter]) -> type:
    """Make a dataclass of the fields that a method's heads have, each with the method's name."""
    fields = [
        (f"{method}_{name}", info.annotation, _about(f"Of the heads: {name}.", info.default))
        for name, info in made.heads_class.Config.model_fields.items()
        if not info.is_required() and name != "vocab_size"
    ]
    return dataclasses.make_dataclass("HeadsArguments", fields)


def help_text(method: str) -> str:
    """Return all that can be set for a method."""
    text: str = _parser(method).format_help()
    return text


def parse(method: str, given: Sequence[str], command: str) -> tuple[Job, TrainingArguments]:
    """Read the arguments of `nfox train`.

    Args:
        method: whose heads.
        given: what follows it: a config file or none, then settings.
        command: for the record.

    Raises:
        UsageError: for a setting that is missing, unknown, or cannot be used as given.
    """
    parser = _parser(method)
    words = list(_translated(method, given))
    if "--fp16" in words:
        parser.set_defaults(bf16=False)
    try:
        data, heads, joint, args, *rest = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, ImportError, TypeError) as error:  # what TrainingArguments says of its own
        raise UsageError(" ".join(str(error).split())[:300]) from error
    _refuse_unknown(parser, rest[-1])
    said = {_name(argument) for argument in words}
    for name in ("model_name_or_path", "data_path", "output_dir"):
        if name not in said:
            raise UsageError(f"--{name} is missing", f"nfox train {method} --{name} ...")
    sizes = {name: value for name, value in vars(heads).items() if not data.heads or name in said}
    job = _job(method, data, args, command)
    return replace(
        job,
        config={name.removeprefix(f"{method}_"): value for name, value in sizes.items()},
        joint=read_joint(method, joint, in_4bit=data.load_in_4bit),
    ), args


def _job(method: str, data: DataArguments, args: Any, command: str) -> Job:
    if data.load_in_4bit and data.load_in_8bit:
        raise UsageError("4 bit and 8 bit at once", "choose one of the two")
    if args.eval_strategy != "no" and data.eval_data_path is None:
        raise UsageError(
            f"--eval_strategy {args.eval_strategy.value} without data to measure on",
            "add --eval_data_path",
        )
    loading = ModelOptions(
        dtype="bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        quantisation="4bit" if data.load_in_4bit else "8bit" if data.load_in_8bit else None,
        device=str(args.device),
        offline=data.offline,
        trust_remote_code=data.trust_remote_code,
    )
    return Job(
        method=method,
        model=str(data.model_name_or_path),
        data=str(data.data_path),
        eval_data=data.eval_data_path,
        loading=loading,
        max_length=data.model_max_length,
        lazy=data.lazy_preprocess,
        own_labels=data.labels == "target",
        heads=data.heads,
        template=data.conv_template,
        command=command,
    )


def _translated(method: str, given: Sequence[str]) -> Iterator[str]:
    """Yield arguments by today's names, those of files first, so that typed ones win."""
    rest = list(given)
    if rest and not rest[0].startswith("-"):
        yield from _translated(method, list(typed(read_config(rest.pop(0)))))
    names = [_name(argument) for argument in rest]
    for name, argument, value in zip(names, rest, [*rest[1:], ""], strict=False):
        if name in _FILES:
            path = argument.partition("=")[2] or value
            yield from typed({f"{method}_{key}": item for key, item in read_config(path).items()})
    skip = False
    for name, argument in zip(names, rest, strict=True):
        if name in _FILES:
            skip = "=" not in argument
        elif skip:
            skip = False
        elif name:
            _, equals, value = argument.partition("=")
            yield f"--{_today(method, name)}{equals}{value}"
        else:
            yield argument


def _today(method: str, name: str) -> str:
    """Return what an old name is called here."""
    size = name.removeprefix(f"{method}_")
    return f"{method}_{OLD_SIZES[size]}" if size in OLD_SIZES else OLD_NAMES.get(name, name)


def _name(argument: str) -> str:
    """Return the name of a setting, underscored; "" for a value."""
    if not argument.startswith("--"):
        return ""
    return argument[2:].partition("=")[0].replace("-", "_")


def _refuse_unknown(parser: _Parser, left: Sequence[str]) -> None:
    if not left:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    close = difflib.get_close_matches(left[0].partition("=")[0], known, 1)
    hint = f"did you mean {close[0]}?" if close else "`nfox train METHOD --help` lists all settings"
    raise UsageError(f"unknown setting {left[0]}", hint)
