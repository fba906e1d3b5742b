"""Options of `nfox bench`: who is measured on what, and where the results go."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ..options.dataclass_options import option
from ..options.engine import Accept

_WHO, _WHAT, _OUT = "Who", "Prompts and rounds", "Results"


@dataclass(frozen=True)
class BenchArguments:
    """Who is measured, and on what."""

    methods: Annotated[
        str, option(_WHO, "With options: none,spec,spec:gamma=4; all.", "--methods")
    ] = "all"
    peers: Annotated[
        str, option(_WHO, "hf, hf-lookup, llama.cpp, llama.cpp draft, ...; all.", "--peers")
    ] = ""
    simulated: Annotated[
        str | None,
        option(
            _WHO, "0.6,0.8: guesses right at such a rate, on any model.", "--simulate-acceptance"
        ),
    ] = None
    simulated_gamma: Annotated[
        int | None, option(_WHO, "Tokens they draft in a step; 4.", "--simulate-gamma", min=1)
    ] = None
    replay: Annotated[
        str, option(_WHO, "4,8: guesses that much of the plain reply in a step.", "--replay")
    ] = ""
    accept: Annotated[Accept, option(_WHO, "The acceptance rule.", "--accept")] = "exact"
    prompts: Annotated[
        str, option(_WHAT, "demo, gsm8k, mt-bench, ..., files, NAME=FILE.", "--prompts")
    ] = "demo"
    categories: Annotated[
        str | None, option(_WHAT, "Only these, such as coding,math.", "--categories")
    ] = None
    limit: Annotated[int | None, option(_WHAT, "Of each set at most.", "--limit", min=1)] = None
    turns: Annotated[int | None, option(_WHAT, "Of a conversation at most.", "--turns", min=1)] = (
        None
    )
    schemas: Annotated[
        Path | None, option(_WHAT, "Spider's tables.json or its databases.", "--schemas")
    ] = None
    sweep: Annotated[
        list[str],
        option(_WHAT, "gamma=1,2,4; temperature=0,1; context=128,limit.", "--sweep", envvar=None),
    ] = field(default_factory=list)
    rounds: Annotated[int, option(_WHAT, "Of all prompts with all methods.", "--rounds", min=1)] = 2
    warmup: Annotated[int, option(_WHAT, "Prompts that do not count.", "--warmup", min=0)] = 2


@dataclass(frozen=True)
class ResultArguments:
    """Where the results go."""

    out: Annotated[
        Path | None,
        option(_OUT, "Everything, as JSON; interrupted runs go on.", "--json", envvar=None),
    ] = None
    html: Annotated[Path | None, option(_OUT, "A page of it.", "--html", envvar=None)] = None
    plots: Annotated[
        Path | None, option(_OUT, "Folder for plots, PNG and SVG.", "--plots", envvar=None)
    ] = None
    answers: Annotated[
        Path | None,
        option(_OUT, "Folder for answers, as FastChat's judge reads.", "--answers", envvar=None),
    ] = None
    profile: Annotated[
        Path | None,
        option(_OUT, "Folder for torch's profiler traces.", "--profile", envvar=None),
    ] = None
    explain: Annotated[
        bool, option(_OUT, "Say what every figure means, and stop.", "--explain", envvar=None)
    ] = False
