"""The order in which the doctor looks: from the machine to what was measured. What takes torch is
imported once it is known that torch starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.decoding import clock
from nfox.errors import NfoxError
from nfox.files.model_names import short_name

from ..display.progress import loading_display
from ..engine_arguments import EngineArguments
from ..options.engine import MethodArguments
from .findings import Advice, Finding, warnings_kept
from .machine import of_forwards, of_gpus, of_processor
from .packages import of_bitsandbytes, of_packages, starts
from .subject import Subject

if TYPE_CHECKING:
    from nfox.engine import Engine


def examine(subject: Subject) -> Iterator[Finding]:
    """Yield all findings, from the machine to what was measured; where one is wrong that the others
    need, they are not looked for.

    Args:
        subject: the model with its options.
    """
    torch_fault = starts("torch")
    if torch_fault is None:
        yield from _of_machine(subject)
    yield from of_packages()
    if fault := torch_fault or starts("transformers"):
        yield fault
        return
    import torch

    if torch.cuda.is_available() or subject.arguments.quantisation in ("4bit", "8bit"):
        yield of_bitsandbytes()
    section = f"model {short_name(subject.arguments.model or 'the embedded model')}"
    try:
        yield from _of_model(subject, section)
    except NfoxError as error:
        yield Finding(section, "model", error.message, "wrong", Advice.of(error))


def _of_machine(subject: Subject) -> Iterator[Finding]:
    import torch

    from nfox.models.devices import choose_device

    if subject.arguments.threads is not None:
        torch.set_num_threads(subject.arguments.threads)
    yield from of_processor(torch.get_num_threads(), subject)
    with loading_display(sys.stderr.isatty()) as progress:
        progress.stage("looking for GPUs")
        found = [*of_gpus()]
    yield from found
    try:
        device = choose_device(subject.arguments.device)
    except NfoxError as error:
        yield Finding("machine", "device", error.message, "wrong", Advice.of(error))
        return
    with loading_display(sys.stderr.isatty()) as progress:
        progress.stage("looking for a compiler")
        found = [*of_forwards(device)]
    yield from found


def _of_model(subject: Subject, section: str) -> Iterator[Finding]:
    """Yield findings about the model, before it is loaded and after.

    Args:
        subject: the model with its options.
        section: of what is said before it is loaded.

    Raises:
        NfoxError: if it cannot be loaded.
    """
    from . import before, changes, drafting, measured, prompts

    is_fit = True
    for finding in before.of_model(subject, section):
        is_fit = is_fit and finding.mark != "wrong"
        yield finding
    if not is_fit:
        return
    begin = clock.now()
    with warnings_kept() as told:
        engine = _load(subject)
    seconds = clock.now() - begin
    yield from (Finding(section, "loading", text, "warn") for text in told)
    found = [*drafting.of_methods(subject, engine)]
    yield from (one.finding for one in found)
    unused = [*drafting.of_unused(subject, engine)]
    yield from (one.finding for one in unused)
    trained = [one for one in found if one.finding.facts.get("weights")]
    if not trained and not unused and engine.model.target.proposals != "nothing":
        yield drafting.of_training(subject)
    yield prompts.of_template(subject, engine)
    yield from prompts.of_pairs(subject, engine)
    yield from measured.of_loading(engine, seconds)
    with loading_display(sys.stderr.isatty()) as progress:
        results = [*measured.of_methods(subject, engine, [*found, *unused], progress)]
    yield from results
    with loading_display(sys.stderr.isatty()) as progress:
        results = [*changes.of_changes(subject, engine, seconds, progress)]
    yield from results


def _load(subject: Subject) -> Engine:
    """Load the model, to be decoded plainly, also without a chat template."""
    from nfox.drafters import plain_method
    from nfox.text.resolve import TOKENIZER_OR_PLAIN

    arguments = subject.arguments
    template = arguments.conv_template or TOKENIZER_OR_PLAIN
    model = replace(arguments, offline=True, conv_template=template)
    return EngineArguments(model, MethodArguments(plain_method())).load()
