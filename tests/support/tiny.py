"""Tiny random models, slow obvious references, and drafters whose guesses are known.

Nothing here needs weights, network or GPU. Models and references are made once per process.
"""

from __future__ import annotations

import copy
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache as once
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import nfox
from nfox import drafters
from nfox.decoding.cache import KVCache
from nfox.decoding.drafter import Context, Drafter
from nfox.decoding.generate import Limits, Prompt, Step, generate
from nfox.decoding.rules import make_rule
from nfox.decoding.tree import TokenTree
from nfox.drafters.auto import Auto
from nfox.drafters.common.arm import Arm
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.common.method import DrafterInputs
from nfox.drafters.common.selector import DrafterSelector
from nfox.heads.checkpoint import HeadsInfo, write
from nfox.models.options import LoadedModel
from nfox.models.transformers_cache import TransformersCache
from nfox.models.transformers_target import TransformersTarget

VOCABULARY = 64
PROMPT = (5, 9, 2, 7, 7, 1, 3, 5, 9, 2)


@dataclass(frozen=True)
class Family:
    """An architecture in small, and what the target should find it can score.

    Args:
        kind: the first part of transformers' class names.
        options: of its config.
        proposals: what `Target.proposals` must be.
        dtype: float64, where the architecture does not insist on float32.
        head: the last part of the model class's name.
        seed: of the weights; one with which greedy text does not repeat itself soon.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    proposals: str = "trees"
    dtype: torch.dtype = torch.float64
    head: str = "ForCausalLM"
    seed: int = 0


_special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_small = _special | {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.6,
    "tie_word_embeddings": False,
}
_eager = {"attn_implementation": "eager"}
_window = {"sliding_window": 8}
_mixed = _window | {"layer_types": ["sliding_attention", "full_attention"]}
_gemma = _mixed | {"head_dim": 8, "query_pre_attn_scalar": 8}
_gpt2 = _small | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_bloom = _small | {"n_head": 4, "n_layer": 2, "initializer_range": 0.1}
_mpt = _small | {"d_model": 32, "n_layers": 2, "n_heads": 4, "initializer_range": 0.1}
_jamba = {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8}
_neo = _small | {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
_llama4 = _small | {"intermediate_size_mlp": 64, "num_local_experts": 2, "no_rope_layers": [1, 0]}
_t5 = _special | {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 3.0,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}

FAMILIES = {
    "llama": Family("Llama", _small),
    "llama-eager": Family("Llama", _small | _eager),
    "llama-mha": Family("Llama", _small | {"num_key_value_heads": 4}),
    "mistral": Family("Mistral", _small | _window),
    "mistral-eager": Family("Mistral", _small | _window | _eager),
    "qwen2": Family("Qwen2", _small),
    "qwen2-mixed": Family("Qwen2", _small | _mixed | {"use_sliding_window": True}),
    "qwen3": Family("Qwen3", _small | {"head_dim": 8}),
    "gemma2": Family("Gemma2", _small | _gemma),
    "gemma3": Family("Gemma3", _small | _gemma),
    "phi3": Family("Phi3", _small | _window),
    "neox": Family("GPTNeoX", _small),
    "gpt2": Family("GPT2", _gpt2, head="LMHeadModel"),
    "opt": Family("OPT", _small | {"word_embed_proj_dim": 32, "ffn_dim": 64, "init_std": 0.6}),
    "mixtral": Family("Mixtral", _small | {"num_local_experts": 4}, dtype=torch.float32),
    "bloom": Family("Bloom", _bloom, "chains", seed=1),
    "mpt": Family("Mpt", _mpt, "chains", seed=1),
    "gpt-neo": Family("GPTNeo", _neo | {"window_size": 8}, "chains", torch.float32),
    "llama4": Family("Llama4", _llama4 | {"attention_chunk_size": 8}, "chains"),
    "mamba": Family("Mamba", _small | {"state_size": 8}, "nothing", torch.float32),
    "jamba": Family("Jamba", _small | _jamba, "nothing", torch.float32),
    "t5": Family("T5", _t5, "chains", head="ForConditionalGeneration", seed=1),
}
KINDS = ("llama", "mistral", "bloom", "mamba", "jamba")
"""One of each kind of memory: full, with a window, chains only, a recurrent state, and both."""
DECODERS = [name for name, family in FAMILIES.items() if family.kind != "T5"]


@once
def target(name: str = "llama", **changes: Any) -> TransformersTarget:
    """Return the tiny model of a family, with some options of its config changed."""
    return target_of(FAMILIES[name], **changes)


def target_of(family: Family, **changes: Any) -> TransformersTarget:
    """Return a new tiny model of a family, with some options of its config changed."""
    kinds = [f"{family.kind}TextConfig", f"{family.kind}Config"]
    config = next(getattr(transformers, kind) for kind in kinds if hasattr(transformers, kind))
    torch.manual_seed(family.seed)
    model = getattr(transformers, family.kind + family.head)(config(**family.options | changes))
    return TransformersTarget(model.to(family.dtype).eval())


def recast(name: str, dtype: torch.dtype, **changes: Any) -> TransformersTarget:
    """Return a copy of the target of a family, with changes of its config, in another dtype."""
    model = copy.deepcopy(target(name, **changes).model)
    model.get_output_embeddings()._forward_pre_hooks.clear()  # those of the original
    return TransformersTarget(model.to(dtype))


@once
def draft(name: str = "llama") -> TransformersTarget:
    """Return a draft model that agrees with the family's target about two times in three."""
    made = recast(name, FAMILIES[name].dtype)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in made.model.parameters():
            if weight.dim() > 1:
                weight += 0.03 * weight.std() * torch.randn_like(weight)
    return made


_decoded: dict[tuple[Any, ...], list[int]] = {}


def slow(
    name: str, prompt: tuple[int, ...], length: int, source: tuple[int, ...] | None = None
) -> list[int]:
    """Decode greedily without any cache: a whole forward per token, and the largest logit.

    What was decoded of an answer before is kept: a shorter one is how it begins.
    """
    answer, inputs = _decoded.setdefault((name, prompt, source), []), {}
    if source is not None:
        inputs["input_ids"] = torch.tensor([source])
    key = "input_ids" if source is None else "decoder_input_ids"
    with torch.inference_mode():
        while len(answer) < length:
            inputs[key] = torch.tensor([[*prompt, *answer]])
            logits = target(name).model(**inputs, use_cache=False).logits
            answer.append(int(logits[0, -1].argmax()))
    return answer[:length]


def theirs(
    name: str, prompt: tuple[int, ...], length: int, source: tuple[int, ...] | None = None
) -> list[int]:
    """Decode greedily as transformers does."""
    inputs = {"input_ids": torch.tensor([prompt if source is None else source])}
    if source is not None:
        inputs["decoder_input_ids"] = torch.tensor([prompt])
    out = target(name).model.generate(
        **inputs,
        attention_mask=torch.ones_like(inputs["input_ids"]),
        max_new_tokens=length,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


@once
def heads_folder(method: str, name: str = "llama", **sizes: int) -> Path:
    """Save random heads for the target of a family; the accuracies said are made up."""
    made, found = target(name), drafters.method_class(method).heads_class
    sizes = {"hidden_size": made.hidden_size, "vocab_size": made.vocabulary_size} | sizes
    config = found.Config(**{"num_heads": 3} | sizes)
    torch.manual_seed(3)
    heads = found(config)
    with torch.no_grad():
        for weight in heads.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    accuracy = [[0.4 / (rank + 1) for rank in range(6)]] * config.num_heads
    about = HeadsInfo(method=method, base=name, config=config.model_dump(), accuracy=accuracy)
    folder = Path(tempfile.mkdtemp(prefix="nfox-heads-"))
    write(folder, about, heads.state_dict())
    return folder


def make(method: str, name: str = "llama", **options: Any) -> Drafter:
    """Build a method for the target of a family from tiny parts."""
    found = drafters.method_class(method)
    heads = issubclass(found, HeadsDrafter)
    others = {
        other: partial(make, other, name)
        for other in sorted(methods("llama"), key=lambda n: -drafters.method_class(n).rank)
        if found.chooses and drafters.method_class(other).drafts and other != method
    }
    parts = DrafterInputs(
        LoadedModel("the target", target(name)),
        others=others,
        weights=str(heads_folder(method, name)) if heads else "the draft model",
        load=lambda weights: LoadedModel(weights, draft(name)),
    )
    return found.build(parts, found.options(**options))


def sweep(families: Iterable[str]) -> list[Any]:
    """Return families as parameters of a test, all slow but for one of each kind of memory."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in KINDS else slow) for name in families]


def methods(family: str) -> list[str]:
    """Return the methods that the target of a family can be decoded with."""
    names = drafters.method_names()
    if FAMILIES[family].proposals == "nothing":
        return [name for name in names if not drafters.method_class(name).drafts]
    return names


class Restless(DrafterSelector):
    """Changes its mind in every step, whatever is known."""

    random: random.Random

    def pick(self, missed: Mapping[Arm, int], room: int) -> Arm:
        return self.random.choice(self.arms)

    def best_lengths(self, arm: Arm, reach: Sequence[float]) -> tuple[int, int]:
        length = self.random.randint(0, len(reach))
        is_joined = self.takes_trees and arm is not self.plain
        return self.random.choice([(length, 0), (0, length if is_joined else 0)])


def restless(drafter: Auto, seed: int = 0) -> Auto:
    """Let a drafter that chooses change its mind in every step."""
    drafter.selector.__class__ = Restless
    drafter.selector.random = random.Random(seed)  # type: ignore[attr-defined]
    return drafter


class Oracle(Drafter):
    """Knows what comes: a chain of the right tokens.

    Args:
        text: prompt and answer.
        gamma: how many tokens are drafted.
    """

    summary = "knows the answer"

    def __init__(self, text: Sequence[int], gamma: int) -> None:
        self.text = list(text)
        self.gamma = gamma

    @classmethod
    def build(cls, parts: DrafterInputs, options: Any) -> Oracle:
        raise NotImplementedError

    def propose(self, context: Context) -> TokenTree:
        start = len(context.tokens) + 1
        length = min(self.gamma, context.max_depth)
        return TokenTree.chain(context.root, self.text[start : start + length])


class Scattered(Drafter):
    """Random trees, in which a right path is hidden now and then, after wrong ones.

    Args:
        text: prompt and answer; () if nothing is known, then guesses are merely random.
        vocabulary: of the target.
        seed: of the trees.
    """

    summary = "random trees"

    def __init__(self, text: Sequence[int] = (), vocabulary: int = VOCABULARY, seed: int = 0):
        self.text = list(text)
        self.vocabulary_size = vocabulary
        self.random = random.Random(seed)

    @classmethod
    def build(cls, parts: DrafterInputs, options: Any) -> Scattered:
        raise NotImplementedError

    def propose(self, context: Context) -> TokenTree:
        right = self.text[len(context.tokens) + 1 :]
        paths = []
        for number in range(self.random.randint(0, 5)):
            length = self.random.randint(0, min(4, max(context.max_depth, 0)))
            known = right[: self.random.randint(0, length) if number else 0]
            more = range(length - len(known))
            paths.append([*known, *(self.random.randrange(self.vocabulary_size) for _ in more)])
        return TokenTree.from_paths(context.root, paths)


class Table:
    """A model without arithmetic: what comes depends on the last two tokens. Stands for a target.

    Args:
        logits: [V, V, V], of the next token after every pair.
    """

    proposals = "trees"
    is_encoder_decoder = False
    max_context = 1 << 20
    chain_drafter = None

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.vocabulary_size = logits.shape[-1]

    def new_cache(self) -> KVCache:
        return TransformersCache(transformers.PreTrainedConfig())

    def read(self, tokens: Sequence[int], cache: KVCache, stop: object = None) -> bool:
        cache.extend(tokens, torch.zeros(len(tokens), 1))
        return True

    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        last = cache.tokens[-1] if cache.tokens else 0
        before = [last if parent < 0 else tree.tokens[parent] for parent in tree.parents]
        return self.logits[before, list(tree.tokens)], torch.zeros(len(tree), 1)


def run(
    model: TransformersTarget, drafter: Drafter, prompt: Sequence[int], **more: Any
) -> list[Step]:
    """Decode; by default greedily, 24 tokens, with a new cache."""
    limits = Limits(
        more.pop("max_tokens", 24), more.pop("max_context", None),
        frozenset(more.pop("stop_ids", ())),
    )  # fmt: skip
    asked = Prompt(tuple(prompt), more.pop("source", None))
    settings = {"cache": more.pop("cache", None) or model.new_cache(), "rule": make_rule()} | more
    return list(generate(model, drafter, asked, limits=limits, **settings))


def text(steps: Sequence[Step]) -> list[int]:
    """Return the emitted tokens."""
    return [token for step in steps for token in step.tokens]


@contextmanager
def interrupt(line: int) -> Iterator[None]:
    """Raise KeyboardInterrupt before the n-th line that is executed inside nfox, and swallow it."""
    folder, left = str(Path(nfox.__file__).parent), [line]

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


def context(
    tokens: Sequence[int],
    root: int,
    *,
    max_depth: int = 99,
    path: Sequence[int] = (),
    target_tokens: Sequence[int] = (),
    encoder_ids: tuple[int, ...] | None = None,
) -> Context:
    """Return what a drafter sees that looks at tokens only."""
    cache = Table(torch.zeros(1, 1, 1)).new_cache()
    cache.tokens, cache.encoder_ids = list(tokens), encoder_ids
    return Context(cache, root, list(path), list(target_tokens), max_depth, make_rule())
