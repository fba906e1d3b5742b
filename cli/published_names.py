"""The options of published programs, as our commands read them.

They are those of LLMSpeculativeSampling, Medusa, CTC-drafter and Consistency LLM for a chat, for
data and for measuring; `cli.train.published_names` has those of training. A name stands for words
of ours, with its value in place of {}. An option without which the result is the same is reported
as not used; what has no counterpart is unknown, and so refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Typed = Mapping[str, str]
"""The values of the options on a command line, by their names without dashes; "" for a flag."""

_EVERYWHERE = {
    "target-model-name": "--model {}",
    "approx-model-name": "--draft-model {}",
    "max-tokens": "--max-new-tokens {}",
    "model-path": "--model {}",
    "model-dir": "--model {}",
    "base-model-path": "--model {}",
    "draft-model-path": "--heads {}",
    "ea-model-path": "--heads {}",
    "tree-choices": "--tree {}",
    "medusa-choices": "--tree {}",
    "posterior-threshold": "--accept typical --epsilon {}",
    "posterior-alpha": "--accept typical --delta {}",
    "max-new-token": "--max-new-tokens {}",
}

READ: dict[str, dict[str, str]] = {
    "": {
        **_EVERYWHERE,
        "input": "--prompt {}",
        "benchmark": "--compare",
        "max-steps": "--max-new-tokens {}",  # a step gives a token or more
        "max-new-seq-len": "--max-new-tokens {}",
        "chat": "--method jacobi",
    },
    "generate": _EVERYWHERE,
    "serve": {**_EVERYWHERE, "model-names": "--served-model-name {}"},
    "worker": {
        **_EVERYWHERE,
        "controller-address": "--controller {}",
        "worker": "--worker-address {}",
        "model-names": "--served-model-name {}",
    },
    "methods": _EVERYWHERE,
    "data distill": {
        **_EVERYWHERE,
        "input-filename": "--data {}",
        "output-filename": "--out {}",
        "data-path": "--data {}",
        "output-path": "--out {}",
        "num-threads": "--concurrency {}",
    },
    "data trajectories": _EVERYWHERE,
    "eval heads": {
        **_EVERYWHERE,
        "data-path": "--data {}",
        "save-dir": "--out {}/accuracy.json",
    },
    "eval gsm8k": {
        **_EVERYWHERE,
        "output-file-name": "--out {}",
        "sample-num": "--limit {}",
        "use-consistency-decoding": "--method jacobi",
        "max-new-tokens-for-consistency": "-o window={}",
    },
    "eval jacobi": {
        **_EVERYWHERE,
        "test-model-path": "--model {}",
        "filename": "--data {}",
        "data-size": "--limit {}",
        "max-new-seq-len": "--max-new-tokens {}",
    },
    "bench": {
        **_EVERYWHERE,
        "tree-choices": "--methods ctc:tree={}",
        "medusa-choices": "--methods medusa:tree={}",
        "use-consistency-decoding": "--methods jacobi",
        "max-new-tokens-for-consistency": "--methods jacobi:window={}",
        "bench-name": "--prompts data/{}/question.jsonl",
        "question-end": "--limit {}",
        "num-choices": "--rounds {}",
        "answer-file": "--answers {}",
        "num-gpus-per-model": "--device-map auto",
    },
}
"""What stands for a name, by our command. A command without the option that it stands for does not
know the name."""

READ_WITH: dict[tuple[str, str, str], str] = {
    ("", "max-new-tokens", "max-new-seq-len"): "-o window={}",
    ("bench", "use-consistency-decoding", "max-new-tokens-for-consistency"): "",
    ("eval jacobi", "max-new-tokens", "test-model-path"): "--n {}",
}
"""What stands for a name that is ours too where another one is there: by our command, the name, and
that other one, which says whose name it is."""

VALUES: dict[str, dict[str, str]] = {
    "tree-choices": dict(medusa="=mc_sim_7b_63"),  # noqa: C408 (it is a tree's name, no method's)
    "sampling": {"typical": "--accept typical", "nucleus": ""},
    "bench-name": {
        "mt_bench": "--prompts mt-bench",
        "GS_bench": "--prompts gsm8k",
        "gsm8k": "--prompts gsm8k",
        "GSM8K": "--prompts gsm8k",
    },
    "sample-num": {"-1": ""},
    "num-choices": {"1": ""},
    "num-gpus-per-model": {"1": ""},
    "num-gpus-total": {"1": ""},
    "question-begin": {"0": ""},
    "use-consistency-decoding": {"False": ""},
    "prompt-type": {"math-single": "--conv-template cllm-math"},
    "presence-penalty": {"0": "", "0.0": ""},
    "frequency-penalty": {"0": "", "0.0": ""},
    "dev-set": {"gsm8k": ""},
    "cache-dir": {"": ""},
}
"""Values with words of their own, "" where that is done anyway; =VALUE is another value."""

_UNUSED = (
    ("", "the checkpoint's own files say it", "model-type"),
    ("bench", "the checkpoint's own files say it", "use-safetensor-weight"),
    ("eval heads", "the checkpoint's own files say it", "medusa-num-heads"),
    ("eval heads", "whole replies are read", "steps"),
    ("eval heads", "--out names the file", "model-name"),
    ("bench", "files are named by model and method", "model-id"),
    ("bench", "the root is drawn as the temperature says", "fast"),
    ("bench", "times are always measured", "time-eval"),
    (
        "bench",
        "--device-map auto takes all GPUs, --max-memory limits them",
        "num-gpus-total max-gpu-memory",
    ),
    ("", "the mouse is the terminal's own", "mouse"),
    ("", "nfox bench --profile FOLDER writes traces", "profiling"),
    ("", "the environment variable HF_HUB_CACHE says where downloads are", "cache-dir"),
    ("", "torchrun says it", "local-rank"),
    ("eval jacobi", "the tokenizer is the model's own", "teacher-model-path"),
    ("eval gsm8k", "it bounds a batch, and there is none", "max-num-batched-tokens"),
    ("worker", "requests are answered one after the other", "limit-worker-concurrency"),
    ("worker", "--device-map auto takes all GPUs", "num-gpus"),
)
UNUSED = {(command, name): reason for command, reason, names in _UNUSED for name in names.split()}
"""Options without which the result is the same, by our command and their names, with the reason."""

FLAGS = frozenset(["benchmark", "chat", "fast", "mouse", "profiling", "use-consistency-decoding"])
"""Options without a value; those of published programs that take one now and then are not here."""


@dataclass(frozen=True)
class Implied:
    """What the published program does without being told, where one of its options is typed.

    Args:
        commands: of ours.
        typed: the name with which it is implied.
        unless: it is not where any of these is.
        option: ours, with its dashes.
        value: of the option, made of what was typed.
    """

    commands: tuple[str, ...]
    typed: str
    unless: tuple[str, ...]
    option: str
    value: Callable[[Typed], str]


def _fixed(value: str) -> Callable[[Typed], str]:
    return lambda typed: value


def _trajectories_file(typed: Typed) -> str:
    """Return where the published program writes trajectories."""
    n, limit = typed.get("max-new-tokens", "16"), typed.get("max-new-seq-len", "512")
    augmented, labels = ("use-aug" in typed), ("use-labels" in typed)
    name = f"cleaned_{Path(typed['filename']).name.lower()}_jacobi_max_new_tokens{n}"
    options = f"aug{augmented}_labels_{labels}_max_seq_len_{limit}"
    return f"data/collected_jacobi_trajectory/{name}_{options}.jsonl"


def _answers_folder(typed: Typed) -> str:
    """Return where the published programs write the answers of a benchmark, which bring the folder
    that theirs lies in.
    """
    folder = Path("data", typed.get("bench-name", "mt_bench"))
    return str(folder / "model_answer" if folder.is_dir() else Path("model_answer"))


_ANSWERING = ("", "generate", "serve", "worker")
_A_MODEL = ("model", "m", "url", *(name for name, text in _EVERYWHERE.items() if "--model" in text))
_A_TEMPLATE = ("conv-template", "cllm-type")


def _own_template(typed: Typed) -> str:
    """Return the name of the model's own template, or else of none at all."""
    from nfox.text.resolve import TOKENIZER_OR_PLAIN  # which takes longer than all of this module

    return TOKENIZER_OR_PLAIN


_TGI, _VLLM = (_fixed(f"http://localhost:{port}/v1/chat/completions") for port in (8080, 8000))

IMPLIED = (
    Implied(_ANSWERING, "target-model-name", _A_TEMPLATE, "--conv-template", _own_template),
    Implied(
        _ANSWERING,
        "input",
        (*_A_TEMPLATE, "target-model-name"),
        "--conv-template",
        _own_template,
    ),
    Implied(("data distill",), "input-filename", _A_MODEL, "--url", _TGI),
    Implied(("data distill",), "num-threads", _A_MODEL, "--url", _VLLM),
    Implied(("data trajectories",), "filename", ("out",), "--out", _trajectories_file),
    Implied(("bench",), "model-id", ("answers", "answer-file"), "--answers", _answers_folder),
)
