"""From options to an `Engine`: what can be checked is checked before torch is imported."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from nfox.drafters import names, plain
from nfox.errors import ModelError, UsageError

from .display.progress import NO_PROGRESS, Loading, loading_display
from .options.groups import GenerationArguments, MethodArguments, ModelArguments

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.models.options import ModelOptions, Quantisation
    from nfox.reply import Settings


def check(model: ModelArguments, method: MethodArguments) -> None:
    """Find what is wrong with the options, as far as that needs no model.

    Raises:
        NfoxError: for the first mistake.
    """
    if method.method is not None and method.method not in names():
        raise UsageError(f"unknown method {method.method!r}", f"available: {', '.join(names())}")
    _method_options(method)
    _memory_limits(model)
    _quantisation(model.load_in_4bit, model.load_in_8bit)
    _quantisation(model.draft_load_in_4bit, model.draft_load_in_8bit)
    _belongs(method, "rejection", "lenience")
    _belongs(method, "typical", "epsilon", "delta")
    if model.conv_template is not None:
        _template(model.conv_template)


def _template(name: str) -> None:
    from nfox.text.resolve import available

    if name == "list":
        print("\n".join([*available(), "tokenizer"]))
        raise typer.Exit
    if not name.endswith(".json") and name not in (*available(), "tokenizer"):
        raise ModelError(f"no conversation template {name!r}", "--conv-template list shows them")


def load_chat(
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
    *,
    progress: Loading = NO_PROGRESS,
) -> Engine:
    """Load what the options say.

    Args:
        model: what is loaded, and how.
        method: what drafts.
        generation: how tokens are chosen.
        progress: is told how loading goes.

    Raises:
        NfoxError: if anything is missing or does not fit.
    """
    progress.stage("importing torch")
    import torch

    from nfox import load

    if model.threads is not None:
        torch.set_num_threads(model.threads)
    loading, draft_loading = _loading(model)
    chat = load(
        model.model,
        method=method.method,
        options=_method_options(method),
        draft_model=model.draft_model,
        heads=model.heads,
        base_model=model.base_model,
        loading=loading,
        draft_loading=draft_loading,
        template=model.conv_template,
        system=model.system,
        settings=make_settings(method, generation),
        max_context=model.max_context,
        on_stage=progress.stage,
        on_progress=progress.progress,
    )
    if generation.sampling == "model":
        chat.settings = _as_the_model_says(chat, generation)
    return chat


def load_plain(model: ModelArguments) -> Engine:
    """Load what the options say, to answer without drafting; show how loading goes."""
    with loading_display(sys.stderr.isatty()) as progress:
        return load_chat(model, MethodArguments(plain()), GenerationArguments(), progress=progress)


def make_settings(method: MethodArguments, generation: GenerationArguments) -> Settings:
    """Return the settings of replies that the options ask for."""
    from nfox.decoding.sampling import Sampling
    from nfox.reply import Settings

    return Settings(
        sampling=replace(Sampling(), **_given(generation, *_SAMPLING)),
        accept=method.accept,
        max_new_tokens=generation.max_new_tokens,
        stop=tuple(generation.stop),
        **_given(method, "lenience", "epsilon", "delta"),
    )


_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")


def _given(group: object, *fields: str) -> dict[str, Any]:
    values = {name: getattr(group, name) for name in fields}
    return {name: value for name, value in values.items() if value is not None}


def _as_the_model_says(chat: Engine, generation: GenerationArguments) -> Settings:
    """Take the sampling of the model's generation config; what was given by hand wins."""
    from nfox.models.generation_config import sampling_of

    own = sampling_of(chat.model.target.model.generation_config)
    return replace(chat.settings, sampling=replace(own, **_given(generation, *_SAMPLING)))


def _loading(model: ModelArguments) -> tuple[ModelOptions, ModelOptions]:
    """Return how the target is loaded, and how a draft model is."""
    from nfox.models.options import ModelOptions

    target = ModelOptions(
        dtype=model.dtype,
        quantisation=_quantisation(model.load_in_4bit, model.load_in_8bit),
        attn=model.attn,
        device=model.device,
        device_map=model.device_map,
        max_memory=_memory_limits(model),
        revision=model.revision,
        offline=model.offline,
        trust_remote_code=model.trust_remote_code,
        adapter=model.adapter,
    )
    drafting = _quantisation(model.draft_load_in_4bit, model.draft_load_in_8bit)
    return target, replace(
        target, quantisation=drafting, adapter=None, revision=None, device_map=None, max_memory={}
    )


def _quantisation(four: bool, eight: bool) -> Quantisation | None:
    if four and eight:
        raise UsageError("4 bit and 8 bit at once", "choose one of the two")
    return "4bit" if four else "8bit" if eight else None


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    wrong = next((text for text in texts if "=" not in text.strip("=")), None)
    if wrong is not None:
        raise UsageError(f"{option} {wrong!r} is not NAME=VALUE")
    return dict((part.strip() for part in text.split("=", 1)) for text in texts)  # type: ignore[misc]


def _method_options(method: MethodArguments) -> dict[str, str]:
    short = {"gamma": method.gamma, "tree": method.tree}
    given = {name: str(value) for name, value in short.items() if value is not None}
    return _pairs(method.options, "-o") | given


def _memory_limits(model: ModelArguments) -> dict[str, str]:
    if model.max_memory and not model.device_map:
        raise UsageError("--max-memory limits a --device-map", "add --device-map auto")
    parts = model.max_memory.split(",") if model.max_memory else []
    limits = _pairs(parts, "--max-memory")
    for device, size in limits.items():
        if not (_DEVICE.fullmatch(device) and _SIZE.fullmatch(size)):
            raise UsageError(
                f"--max-memory {device}={size}: expected a GPU's number, cpu or disk, and a size",
                "--max-memory 0=9GiB,cpu=500MB",
            )
    return limits


_DEVICE = re.compile(r"\d+|cpu|disk|mps")
_SIZE = re.compile(r"\d+(\.\d+)?[KMG]i?B")


def _belongs(method: MethodArguments, rule: str, *fields: str) -> None:
    for name in _given(method, *fields):
        if method.accept != rule:
            raise UsageError(f"--{name} is of the rule `{rule}`", f"add --accept {rule}")
