"""Heads of every method learn on a quantised base, and draft for it without changing its text."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import folder
import pytest
import tiny
import torch
from torch import Tensor
from training import METHODS, job, learn
from transformers import TrainerCallback

from nfox import ModelOptions, drafters
from nfox.decoding.tree import TokenTree
from nfox.heads import checkpoint
from nfox.loader import load
from nfox.models import pretrained_arguments
from nfox.models.transformers_target import TransformersTarget

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
    ),
    pytest.mark.parametrize("method", METHODS),
]
BOTH = pytest.mark.parametrize("quantisation", ["4bit", "8bit"])

NONE = drafters.method_class("none")
PROMPT = [0, *range(70, 90), 5, 9, 2]
LAYERS = {"4bit": ("Linear4bit", torch.uint8), "8bit": ("Linear8bitLt", torch.int8)}


def loading(quantisation: str) -> ModelOptions:
    return ModelOptions(dtype="bfloat16", quantisation=quantisation, device="cpu")  # type: ignore[arg-type]


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().view(torch.uint8).numpy())


class Watch(TrainerCallback):
    """Keeps what base and heads are before the first step and after the last."""

    def __init__(self) -> None:
        self.bases: list[dict[str, bytes]] = []
        self.heads: list[dict[str, bytes]] = []
        self.model: Any = None

    def _look(self, learner: Any) -> None:
        self.model = learner.target.model
        state = self.model.state_dict()
        self.bases.append({n: bits(w) for n, w in state.items() if isinstance(w, Tensor)})
        self.heads.append({n: bits(w) for n, w in learner.heads.state_dict().items()})

    def on_train_begin(self, args: Any, state: Any, control: Any, **what: Any) -> None:
        self._look(what["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **what: Any) -> None:
        self._look(what["model"])


@dataclass(frozen=True)
class Trained:
    """What a training left."""

    folder: Path
    watch: Watch
    losses: list[float]


@cache
def trained(method: str, quantisation: str) -> Trained:
    """Train heads on the tiny Llama, once per process."""
    out, watch = Path(mkdtemp(prefix="nfox-quantised-")), Watch()
    asked = job(method, loading=loading(quantisation), target_labels=True)
    _, log = learn(out, asked, callbacks=[watch], max_steps=18, save_strategy="no", bf16=True)
    return Trained(out, watch, list(log.losses.values()))


@BOTH
def test_heads_learn_and_the_quantised_base_stays_bit_for_bit(
    method: str, quantisation: str
) -> None:
    done = trained(method, quantisation)
    assert all(math.isfinite(loss) for loss in done.losses)
    assert sum(done.losses[-6:]) < sum(done.losses[:6])
    before, after = done.watch.bases
    assert before == after
    kind, dtype = LAYERS[quantisation]
    layers = [m for m in done.watch.model.modules() if type(m).__name__ == kind]
    assert len(layers) == 2 * 7  # all linear layers but the LM head
    assert {layer.weight.dtype for layer in layers} == {dtype}
    first, last = done.watch.heads
    assert any(first[name] != last[name] for name in first)


@BOTH
def test_the_heads_are_written_in_16_bit_and_say_what_base_they_saw(
    method: str, quantisation: str
) -> None:
    place = str(trained(method, quantisation).folder)
    assert {weight.dtype for weight in checkpoint.read_weights(place).values()} == {torch.bfloat16}
    about = checkpoint.read_info(place)
    assert about is not None
    assert about.training["quantisation"] == quantisation


def guessed(
    method: str, quantisation: str, place: Path
) -> tuple[TransformersTarget, list[int], list[int]]:
    """Return the quantised base, and what it says with the heads and without."""
    tree = place / "tree.json"
    tree.write_text("[[0], [1], [0, 0], [0, 1]]")  # the one that pays depends on the machine
    loading = ModelOptions(dtype="float32", quantisation=quantisation, device="cpu")  # type: ignore[arg-type]
    heads = str(trained(method, quantisation).folder)
    chat = load(str(folder.llama()), loading=loading, heads=heads, options={"tree": str(tree)})
    assert chat.method == method
    target = chat.model.target
    steps = tiny.run(target, chat.drafter, PROMPT, max_tokens=24)
    assert max(len(step.tree) for step in steps) > 1
    plain = tiny.run(target, NONE.build(None, NONE.options()), PROMPT, max_tokens=24)  # type: ignore[arg-type]
    return target, tiny.text(steps), tiny.text(plain)


def logits(target: TransformersTarget, text: list[int], *, at_once: bool) -> Tensor:
    """Return [V] the logits after a text, read in one forward or in one for every token."""
    past = target.new_cache()
    for part in [text[:-1]] if at_once else [[token] for token in text[:-1]]:
        target.read(part, past)
    return target.score(TokenTree.chain(text[-1]), past)[0][0]


def test_drafting_changes_nothing_but_near_ties(method: str, tmp_path: Path) -> None:
    """In 8 bit, columns with a value above 6 anywhere in a forward are computed apart for all of
    its rows: logits depend on what is scored beside them, whatever drafts.
    """
    target, drafted, plain = guessed(method, "8bit", tmp_path)
    if drafted == plain:
        return
    at = next(i for i, (one, other) in enumerate(zip(drafted, plain, strict=False)) if one != other)
    text = [*PROMPT, *plain[:at]]
    alone, together = (logits(target, text, at_once=flag) for flag in (False, True))
    gap = float((alone[plain[at]] - alone[drafted[at]]).abs())
    assert gap <= 2 * float((alone - together).abs().max())


@BOTH
def test_drafting_changes_nothing_where_rows_are_computed_each_by_itself(
    method: str, quantisation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they always are in 4 bit, and in 8 bit without columns apart."""
    used = pretrained_arguments.transformers  # importing models replaces it in sys.modules
    made = partial(used.BitsAndBytesConfig, llm_int8_threshold=0.0)
    monkeypatch.setattr(used, "BitsAndBytesConfig", made)
    _, drafted, plain = guessed(method, quantisation, tmp_path)
    assert drafted == plain
