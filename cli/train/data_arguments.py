"""The settings of every training: the model, how it is loaded, and the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfox.models.options import ModelOptions, choose_quantisation
from nfox.train.data.synthesis_settings import Synthesis

from ..data.own_conversations import read_beginnings
from .kinds import setting


@dataclass
class DataArguments:
    """Settings of every training: the model, how it is loaded, and the data."""

    model_name_or_path: str | None = setting("Folder or hub id of the base.")
    data_path: str | None = setting(
        "JSON, JSONL or a hub dataset: what to learn from; without it the base has conversations "
        "with itself first."
    )
    own_conversations: int = setting("The number of these.", Synthesis.count)
    own_tokens: int = setting("Tokens of its answers there at most.", Synthesis.max_new_tokens)
    own_script: str | None = setting("Leave out its questions in others: latin, cyrillic, cjk, ...")
    own_beginnings: str | None = setting("File: its questions begin with the lines of it.")
    eval_data_path: str | None = setting("The same, to measure on.")
    conv_template: str | None = setting("Conversation template; the model's own by default.")
    model_max_length: int = setting("Tokens of a conversation at most.", 2048)
    lazy_preprocess: bool = setting("Tokenise while training.", False)
    load_in_4bit: bool = setting("Load the base in nf4 (4 bit).", False)
    load_in_8bit: bool = setting("Load the base in int8 (8 bit).", False)
    cache_dir: str | None = setting("Folder of downloads; the hub's own by default.")
    offline: bool = setting("Use local files only.", False)
    trust_remote_code: bool = setting("Run code that comes with the base.", False)


def common_fields(method: str, data: DataArguments, args: Any, command: str) -> dict[str, Any]:
    """Return the fields that all jobs have, see `nfox.train.job.Job`.

    Args:
        method: the name after `nfox train`.
        data: the settings.
        args: transformers' `TrainingArguments`.
        command: the whole command line, for the record.
    """
    loading = ModelOptions(
        dtype="bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        quantisation=choose_quantisation(data.load_in_4bit, data.load_in_8bit),
        device=str(args.device),
        cache_dir=data.cache_dir,
        offline=data.offline,
        trust_remote_code=data.trust_remote_code,
    )
    beginnings = None if data.data_path else data.own_beginnings
    return {
        "method": method,
        "model": str(data.model_name_or_path),
        "data": data.data_path or "",
        "synthesis": Synthesis(
            count=data.own_conversations,
            max_new_tokens=data.own_tokens,
            script=data.own_script,
            beginnings=read_beginnings(Path(beginnings)) if beginnings else (),
        ),
        "eval_data": data.eval_data_path,
        "loading": loading,
        "max_length": data.model_max_length,
        "lazy": data.lazy_preprocess,
        "template": data.conv_template,
        "command": command,
    }
