"""What a forward over N tokens takes, by N and by the context's length, beside the memory's floor.

A forward reads all weights once, however many tokens it is over: no plain step is faster than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Annotated, ClassVar

import psutil
import torch
from pydantic import Field

from nfox.decoding.costs import time_call
from nfox.decoding.tree import TokenTree
from nfox.engine import Engine
from nfox.eval.bench.figures import Record
from nfox.eval.bench.machine import this_machine
from nfox.eval.bench.result import File, Machine
from nfox.models.packed_layers import packed_layers
from nfox.models.transformers_target import TransformersTarget

_MOST_READ = {"cpu": 1 << 30, "cuda": 1 << 33}
"""The most bytes that are read to measure the memory, by the kind of device: many times its caches,
and enough to hide what a call costs."""


class ForwardTime(Record):
    """What forwards over some tokens after others took.

    Args:
        context: tokens that were read before.
        width: tokens that were scored.
        seconds: the median of several forwards.
        fastest: the least of them: whatever else the machine does only adds to it.
    """

    context: int
    width: int
    seconds: float
    fastest: float


class ForwardsResult(File):
    """What forwards of a target take, as `nfox bench forwards --json` writes it.

    Args:
        machine: that it ran on.
        target: the name of the model.
        forward: what ran the forwards, in a few words.
        weight_bytes: that a forward reads at least.
        bytes_per_second: that the memory gave when a large tensor was summed.
        times: of all contexts and widths.
    """

    schema_name: ClassVar[str] = "nfox.bench.forwards/1"

    machine: Machine
    target: str
    forward: str
    weight_bytes: int = Field(gt=0)
    bytes_per_second: float = Field(gt=0)
    times: Annotated[list[ForwardTime], Field(min_length=1)]

    @property
    def floor(self) -> float:
        """The seconds that reading all weights once takes."""
        return self.weight_bytes / self.bytes_per_second

    @property
    def contexts(self) -> list[int]:
        """The lengths of the contexts, the shortest first."""
        return sorted({time.context for time in self.times})

    @property
    def widths(self) -> list[int]:
        """The numbers of tokens that were scored at once, the fewest first."""
        return sorted({time.width for time in self.times})

    def fastest(self, context: int, width: int) -> float:
        """Return the seconds of the fastest forward after a context.

        Raises:
            KeyError: if there was none.
        """
        return {(time.context, time.width): time.fastest for time in self.times}[context, width]


def measure(
    engine: Engine,
    target: str,
    command: str,
    contexts: Sequence[int],
    widths: Sequence[int],
    rounds: int,
    on_context: Callable[[int], None] = lambda context: None,
) -> ForwardsResult:
    """Time forwards over several numbers of tokens after contexts of several lengths.

    Args:
        engine: with the model, which must have room for the longest context and the widest forward.
        target: the name of the model in the result.
        command: that was typed.
        contexts: tokens that are read before.
        widths: tokens that are scored at once; 1 alone where the target scores no others.
        rounds: how often each is timed, in turn.
        on_context: called with each context before it is measured.
    """
    model = engine.model.target
    return ForwardsResult(
        machine=this_machine(engine, command),
        target=target,
        forward=model.forward_description,
        weight_bytes=weight_bytes(model),
        bytes_per_second=bytes_per_second(model.device),
        times=time_forwards(model, contexts, widths, rounds, on_context),
    )


def time_forwards(
    target: TransformersTarget,
    contexts: Sequence[int],
    widths: Sequence[int],
    rounds: int,
    on_context: Callable[[int], None] = lambda context: None,
) -> list[ForwardTime]:
    """Return the times of forwards over every width after every context.

    Args:
        target: the model.
        contexts: as of `measure`, like the others.
        widths: tokens that are scored at once.
        rounds: how often each is timed, in turn.
        on_context: called with each context before it is measured.
    """
    tokens = [place % target.vocabulary_size for place in range(max(contexts))]
    cache = target.new_cache()
    cache.reuse(tokens[:1], (0,) if target.is_encoder_decoder else None)
    trees = [TokenTree.chain(0, tokens[1:width]) for width in sorted(widths)]
    if target.proposals == "nothing":
        trees = [TokenTree.chain(0)]
    found: list[ForwardTime] = []
    for context in sorted(contexts):
        on_context(context)
        target.read(tokens[len(cache.tokens) : context], cache)
        scores = {len(tree): partial(target.score, tree, cache) for tree in trees}
        for score in scores.values():  # the first of a width is slower
            score()
        seconds: dict[int, list[float]] = {width: [] for width in scores}
        for _ in range(rounds):
            for width, score in scores.items():
                seconds[width].append(time_call(score, target.device))
        found += [
            ForwardTime(context=context, width=width, seconds=median(all_), fastest=min(all_))
            for width, all_ in seconds.items()
        ]
    return found


def weight_bytes(target: TransformersTarget) -> int:
    """Return the bytes of a target's weights, without an embedding of which a token reads a row."""
    model = target.model
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = None if head is None or embedding.weight is head.weight else embedding.weight
    weights = [weight for weight in model.parameters() if weight is not rows]
    states = [getattr(weight, "quant_state", None) for weight in weights]  # of bitsandbytes
    tensors = [*weights, *(state.absmax for state in states if state is not None)]
    unpacked: int = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return unpacked + sum(layer.nbytes for layer in packed_layers(model))


def bytes_per_second(device: torch.device, rounds: int = 9) -> float:
    """Return how fast the memory of a device is read: the best of several sums of a large tensor.

    Args:
        device: whose memory it is.
        rounds: how often it is read.
    """
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    most = _MOST_READ.get(device.type, _MOST_READ["cpu"])
    numbers = torch.ones(min(most, free // 4) // 4, device=device)
    numbers.sum()
    seconds = min(time_call(numbers.sum, device) for _ in range(rounds))
    return numbers.numel() * numbers.element_size() / seconds
