"""The native forward gives what the model gives, and the same to the last bit whatever stands
beside a token.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_fused_decoder import FAMILIES, TEXT, walked
from torch import Tensor, nn

from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Draw
from nfox.errors import ModelError
from nfox.models.fused_products import PackedProduct
from nfox.models.memory import copy_bytes
from nfox.models.native import library
from nfox.models.native.decoder import NativeDecoder
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.native.product import NativeProduct
from nfox.models.native.quantising import WeightFormat, quantise
from nfox.models.options import ModelOptions, WeightBits
from nfox.models.quantised_layers import quantise_layers
from nfox.models.transformers_target import TransformersTarget
from nfox.models.unsupported import UnsupportedError

try:
    native_library()
except NativeLibraryError as error:
    pytest.skip(f"no native library: {error}", allow_module_level=True)

QUANTISED: tuple[WeightBits, ...] = ("int8", "int4")
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("bfloat16", "int8", "int4")
SIZES: dict[str, object] = {
    **{"hidden_size": 64, "intermediate_size": 96, "head_dim": 16},
    "initializer_range": 0.2,  # with more, attention is all or nothing, and rounding decides
}


def native(name: str, **changes: object) -> tuple[TransformersTarget, TransformersTarget]:
    """Return a family's model in float64, and the same weights in bfloat16 with the native
    forward, in sizes that it takes.
    """
    family = FAMILIES[name]
    exact = tiny.target_of(family, **SIZES | changes)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in exact.model.parameters():
            if weight.dim() < 2:
                weight += 0.1 * torch.randn_like(weight)
    model = copy.deepcopy(exact.model).bfloat16()
    model.get_output_embeddings()._forward_pre_hooks.clear()
    return exact, TransformersTarget(model)


def quantised(name: str, bits: WeightBits) -> tuple[TransformersTarget, TransformersTarget]:
    """Return a family's model in float64 with the weights that quantised ones stand for, and the
    quantised model.
    """
    exact, target = native(name)
    head = target.model.get_output_embeddings()
    exact.model.config.tie_word_embeddings = False
    layers = dict(exact.model.named_modules())
    for path, module in target.model.named_modules():
        if isinstance(module, nn.Linear):
            weight = quantise(module.weight.detach(), "int8" if module is head else bits)
            layers[path].weight = nn.Parameter(weight.dequantised(), requires_grad=False)
    quantise_layers(name, target.model, bits)
    return exact, TransformersTarget(target.model)


@pytest.mark.parametrize("bits", QUANTISED)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_quantised_model_is_the_model_of_its_quantised_weights(
    name: str, bits: WeightBits
) -> None:
    parameters = native(name)[1].num_parameters
    exact, target = quantised(name, bits)
    assert target.num_parameters == parameters
    expected, _ = walked(exact)
    own, _ = walked(target)  # transformers, with the same products
    target.fuse()
    assert target.forward_description == f"native {bits}"
    logits, _ = walked(target)
    error, own_error = ((some - expected).std() for some in (logits, own))
    assert own_error < 0.1 * expected.std()
    assert error < 1.2 * own_error
    unembedded = target.unembed(walked(target)[1])
    assert torch.equal(unembedded, logits)


@pytest.mark.parametrize("bits", QUANTISED)
def test_layers_may_have_mlps_of_different_widths(bits: WeightBits) -> None:
    model = native("llama")[1].model
    mlp = model.model.layers[0].mlp
    for name, size in (("gate_proj", (32, 64)), ("up_proj", (32, 64)), ("down_proj", (64, 32))):
        layer = nn.Linear(size[1], size[0], bias=False).bfloat16()
        layer.weight.data = getattr(mlp, name).weight.data[: size[0], : size[1]].clone()
        setattr(mlp, name, layer)
    quantise_layers("llama", model, bits)
    target = TransformersTarget(model)
    expected, _ = walked(target)
    target.fuse()
    assert target.forward_description == f"native {bits}"
    logits, _ = walked(target)
    assert (logits - expected).std() < 0.1 * expected.std()


@pytest.mark.parametrize("tied", [True, False])
def test_copies_of_weights_have_the_size_that_is_estimated_before(
    tied: bool, tmp_path: Path
) -> None:
    """What is quantised is multiplied as it is."""
    _, target = native("llama", tie_word_embeddings=tied, vocab_size=64)
    target.model.save_pretrained(tmp_path)
    options = ModelOptions(dtype="bfloat16", device="cpu")
    parameters = target.model.num_parameters()
    norms = sum(weight.numel() for weight in target.model.parameters() if weight.dim() < 2)
    rows = 0 if tied else target.model.get_input_embeddings().weight.numel()
    assert target.copied_bytes == 0
    target.fuse()
    assert target.copied_bytes == 2 * (parameters - norms - rows)
    estimate = copy_bytes(str(tmp_path), options)
    assert 0 <= estimate - target.copied_bytes < 2 * norms + 8192  # the file has a header
    assert copy_bytes(str(tmp_path), replace(options, quantisation="int8")) == 0
    assert copy_bytes(str(tmp_path), replace(options, dtype="float32")) == 0
    _, target = quantised("llama", "int8")
    target.fuse()
    assert target.copied_bytes == 0


@pytest.mark.skipif(not PackedProduct.is_available(), reason="oneDNN without bfloat16")
def test_copies_for_onednn_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, target = native("llama", tie_word_embeddings=True, vocab_size=64)
    monkeypatch.setattr("nfox.models.fused_decoder._SMALL", 0)
    target.fuse(native=False)
    matrices = [weight for weight in target.model.parameters() if weight.dim() > 1]
    assert target.copied_bytes == sum(weight.nbytes for weight in matrices)
    _, target = native("llama", tie_word_embeddings=True, vocab_size=64)
    model = target.model.float()
    target = TransformersTarget(model)
    target.fuse(native=False)
    assert target.forward_description == "fused" and target.copied_bytes == 0


def test_the_fewer_bits_the_further_from_the_model() -> None:
    exact, _ = native("llama")
    expected, _ = walked(exact)
    errors = []
    for bits in QUANTISED:
        _, target = native("llama")
        quantise_layers("llama", target.model, bits)
        logits, _ = walked(TransformersTarget(target.model))
        errors.append(((logits - expected).std() / expected.std()).item())
    assert errors[0] < 0.1
    assert errors[0] < errors[1] < 0.4


def test_layers_that_cannot_be_quantised_stay_and_those_that_can_are_freed() -> None:
    _, target = native("llama", intermediate_size=80)
    model = target.model
    before = dict(model.named_modules())
    quantise_layers("llama", model, "int4")
    kept = {path for path, module in model.named_modules() if type(module) is nn.Linear}
    assert kept == {path for path in before if path.endswith("down_proj")}
    assert all(
        not hasattr(before[path], "weight")
        for path in before
        if path.endswith("proj") and path not in kept
    )
    target = TransformersTarget(model)
    target.fuse()
    assert target.forward_description == "native int4"


@pytest.mark.parametrize("size", [80, 90])
def test_every_layers_mlp_has_a_size_that_the_library_computes_with(size: int) -> None:
    _, target = native("llama")
    other = tiny.recast("llama", torch.bfloat16, **SIZES | {"intermediate_size": size})
    target.model.model.layers[1].mlp = other.model.model.layers[1].mlp
    expected, _ = walked(target)
    target.fuse()
    logits, _ = walked(target)
    assert target.is_native == (size % 16 == 0)
    assert (logits - expected).std() < 0.05 * expected.std()


def test_a_model_that_the_library_computes_wrongly_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, target = native("llama")
    assert target.proposals == "trees"
    own = NativeDecoder.score

    def wrong(self: NativeDecoder, *arguments: Any) -> Any:
        logits, states = own(self, *arguments)
        return -logits, states

    monkeypatch.setattr(NativeDecoder, "score", wrong)
    target.fuse()
    assert not target.is_native
    assert target.why_not_native == "its logits of a few tokens are not the model's own"


def test_a_model_with_nothing_to_quantise_is_refused() -> None:
    target = tiny.target_of(FAMILIES["llama"], hidden_size=40, intermediate_size=40, head_dim=10)
    model = copy.deepcopy(target.model).bfloat16()
    with pytest.raises(ModelError, match="has no layer that --quantize int8 knows"):
        quantise_layers("some", model, "int8")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_chain_that_is_drafted_in_one_call_is_the_one_of_many(name: str) -> None:
    _, target = native(name)
    target.fuse()
    decoder, size = target.chain_drafter, target.vocabulary_size - 3
    assert (decoder is None) == name.startswith(("gemma2", "granite"))  # they change their logits
    if decoder is None:
        return
    caches = target.new_cache(), target.new_cache()
    for cache in caches:
        target.read(TEXT[:7], cache)
    chains = TokenTree.chain(TEXT[7], TEXT[8:10]), TokenTree.chain(TEXT[10])
    some = np.random.default_rng(0).gumbel(size=(300, size)).astype(np.float32)
    for chain, length, noise in zip(chains, (4, 300), (None, some), strict=True):
        # At last more rows than there was room for.
        draws = decoder.draft(
            chain, caches[0], length=length, width=3, vocabulary_size=size, noise=noise
        )
        assert len(draws) == length
        for draw, row in zip(draws, some, strict=False):
            logits, states = target.score(chain, caches[1])
            caches[1].commit(chain, range(len(chain)), states)
            logits = logits[-1, :size] + (0 if noise is None else torch.from_numpy(row))
            expected = logits.softmax(-1).topk(3)
            assert draw.tokens == expected.indices.tolist()
            assert torch.allclose(torch.tensor(draw.probabilities), expected.values, rtol=1e-4)
            chain = TokenTree.chain(draw.tokens[0])
        assert caches[0].tokens == caches[1].tokens
        assert torch.equal(caches[0].hidden, caches[1].hidden)
        for cache in caches:
            cache.truncate(10)


def test_a_drafted_chain_ends_where_it_is_hardly_right_or_no_number() -> None:
    _, target = native("llama")
    target.fuse()
    decoder = target.chain_drafter
    assert decoder is not None

    def drafted(**options: float) -> list[Draw]:
        cache = target.new_cache()
        target.read(TEXT[:7], cache)
        sizes = {"length": 20, "width": 2, "vocabulary_size": target.vocabulary_size}
        draws = decoder.draft(TokenTree.chain(TEXT[7]), cache, **sizes, **options)  # type: ignore[arg-type]
        assert len(cache.tokens) == 7 + len(draws)
        return draws

    whole = drafted()
    chances = [1.0]
    for draw in whole:
        chances.append(chances[-1] * draw.probabilities[0])
    assert drafted(least_chance=(chances[3] + chances[4]) / 2) == whole[:4]
    assert drafted(least_chance=2.0) == []
    with torch.no_grad():
        target.model.get_input_embeddings().weight[TEXT[7]] = torch.nan
    assert drafted() == []


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_as_close_to_the_exact_model_as_the_model_in_16_bit(name: str) -> None:
    exact, target = native(name)
    expected, _ = walked(exact)
    own, _ = walked(target)
    target.fuse()
    assert target.forward_description == "native"
    logits, states = walked(target)
    assert (logits.dtype, states.dtype) == (torch.float32, torch.bfloat16)
    error, own_error = ((some - expected).std() for some in (logits, own))
    assert error < 1.2 * own_error


def nodes_of(path: list[int], tree: TokenTree) -> list[int]:
    """Return the nodes of a tree with the tokens of a path from its root."""
    edges, nodes = list(zip(tree.parents, tree.tokens, strict=True)), [0]
    for token in path[1:]:
        nodes.append(edges.index((nodes[-1], token)))
    return nodes


def read_and_scored(
    target: TransformersTarget,
    tree: TokenTree,
    *,
    past: int,
    sizes: list[int],
    text: list[int] = TEXT,
) -> tuple[Tensor, Tensor]:
    """Return the logits and states of a tree after a past that is read in pieces."""
    cache = target.new_cache()
    for start, end in zip([0, *sizes], [*sizes, past], strict=True):
        chain = TokenTree.chain(text[start], text[start + 1 : end])
        cache.commit(chain, range(len(chain)), target.score(chain, cache)[1])
    return target.score(tree, cache)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("weight_format", "threads"), [("bfloat16", 1), ("bfloat16", 3), ("int8", 1), ("int4", 3)]
)
def test_a_token_has_the_same_logits_to_the_last_bit_in_every_forward(
    name: str, weight_format: WeightFormat, threads: int
) -> None:
    _, target = native(name) if weight_format == "bfloat16" else quantised(name, weight_format)
    target.fuse()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        path = TEXT[37:43]
        expected, states = read_and_scored(
            target, TokenTree.chain(path[0], path[1:]), past=37, sizes=[]
        )
        others = [[9, 8, 7], [9, 3], [path[1], 11, 12], [*path[1:4], 13, 14, 15]]
        beside = ([path[1:], *others], [*others, path[1:]], [path[1:], [1], [2], [3]])
        before_it = ([1], list(range(1, 37)), [17, 20])  # what was read in one forward
        for paths, sizes in zip(beside, before_it, strict=True):
            tree = TokenTree.from_paths(path[0], paths)
            nodes = nodes_of(path, tree)
            logits, hidden = read_and_scored(target, tree, past=37, sizes=sizes)
            assert torch.equal(logits[nodes], expected)
            assert torch.equal(hidden[nodes], states)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("window", (None, 300))
def test_keys_of_many_blocks_are_one_text_whichever_threads_share_them(window: int | None) -> None:
    sizes = {"max_position_embeddings": 1024}
    changes = sizes if window is None else {**sizes, "sliding_window": window}
    exact, target = native("llama" if window is None else "mistral", **changes)
    text = [*TEXT * 20][:520]
    past, path = 509, text[509:517]  # the path goes on from one block to the next
    chain = TokenTree.chain(path[0], path[1:])
    expected, own = (
        read_and_scored(t, chain, past=past, sizes=[], text=text)[0] for t in (exact, target)
    )
    target.fuse()
    assert target.forward_description == "native"
    before = torch.get_num_threads()
    beside = [[9, 8, 7], [path[1], 11, 12], [*path[1:6], 13, 14, 15]]
    try:
        for threads in (1, 2, 3, 4, 8):
            torch.set_num_threads(threads)
            logits, _ = read_and_scored(target, chain, past=past, sizes=[130, 300], text=text)
            if threads == 1:
                first = logits
                assert (first - expected).std() < 1.2 * (own - expected).std()
            assert torch.equal(logits, first)
            tree = TokenTree.from_paths(path[0], [*beside, path[1:]])
            nodes = nodes_of(path, tree)
            pieces = [200, 257, *range(480, past)]  # the last ones token by token
            logits, _ = read_and_scored(target, tree, past=past, sizes=pieces, text=text)
            assert torch.equal(logits[nodes], first)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@pytest.mark.parametrize("name", ("llama", "mistral", "gemma2", "qwen3"))
def test_every_tree_gives_the_text_of_plain_decoding(
    name: str, weight_format: WeightFormat
) -> None:
    _, target = native(name) if weight_format == "bfloat16" else quantised(name, weight_format)
    target.fuse()
    plain = tiny.text(tiny.run(target, tiny.Oracle((), 0), tiny.PROMPT, max_tokens=40))
    for seed in range(3):
        drafter = tiny.Scattered([*tiny.PROMPT, *plain], seed=seed)
        steps = tiny.run(target, drafter, tiny.PROMPT, max_tokens=40)
        assert tiny.text(steps) == plain
        assert len(steps) < 40


def test_a_cache_keeps_its_rows_when_it_grows_is_forked_or_keeps_a_branch() -> None:
    _, target = native("llama")
    target.fuse()
    text = [token for _ in range(5) for token in TEXT]  # more than a cache has room for at first
    tree = TokenTree((1, 2, 3, 4, 5), (-1, 0, 0, 2, 3))

    def scored(tokens: list[int]) -> Tensor:
        cache = target.new_cache()
        target.read(tokens, cache)
        return target.score(tree, cache)[0]

    cache = target.new_cache()
    target.read(text[:20], cache)
    twin = cache.fork(10)
    target.read(text[10:], twin)
    assert torch.equal(target.score(tree, twin)[0], scored(text))
    for _ in range(2):
        _, hidden = target.score(tree, cache)
        cache.commit(tree, [0, 2, 3], hidden)
    assert torch.equal(target.score(tree, cache)[0], scored([*text[:20], 1, 3, 4, 1, 3, 4]))


@pytest.mark.parametrize("name", ("llama", "mistral", "gemma2"))
@pytest.mark.parametrize(("lengths", "threads"), [((40, 3, 17, 1), 2), ((500, 300, 255, 1), 4)])
def test_conversations_of_one_forward_are_as_if_each_were_alone(
    name: str, lengths: tuple[int, ...], threads: int
) -> None:
    _, target = native(name, max_position_embeddings=1024)
    target.fuse()
    trees = [
        TokenTree.chain(5),
        TokenTree.from_paths(7, [[1, 2, 3], [1, 4], [6]]),
        TokenTree.chain(3, [1, 2, 9, 9]),
        TokenTree.chain(5),
    ]
    caches = [target.new_cache() for _ in trees]
    for cache, length in zip(caches, lengths, strict=True):
        target.read((TEXT * 20)[:length], cache)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits, hidden = target.score_batch(list(zip(trees, caches, strict=True)))
    finally:
        torch.set_num_threads(before)
    alone = [target.score(tree, cache) for tree, cache in zip(trees, caches, strict=True)]
    assert torch.equal(logits, torch.cat([own for own, _ in alone]))
    assert torch.equal(hidden, torch.cat([own for _, own in alone]))


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
def test_rows_of_a_product_are_those_of_its_weights_whatever_their_number(
    weight_format: WeightFormat,
) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(77, 96).bfloat16(), torch.randn(77).bfloat16()
    rows = torch.randn(70, 96).bfloat16()
    product = NativeProduct(weight, bias, weight_format)
    together = product(rows)
    exact = weight.double()
    if weight_format != "bfloat16":
        exact = quantise(weight, weight_format).dequantised()
    expected = rows.double() @ exact.T + bias.double()
    # Weights of 8 bits are multiplied with inputs of 16 bits, those of 4 bits with inputs of 8.
    off = 0.02 * expected.abs().max().item() if weight_format == "int4" else 1e-3
    torch.testing.assert_close(together.double(), expected, rtol=1e-5, atol=off)
    for count in (*range(1, 20), 24, 32, 33, 64):
        assert torch.equal(product(rows[:count]), together[:count])
        assert torch.equal(product(rows[-count:]), together[-count:])
    assert torch.equal(torch.cat([product(row[None]) for row in rows]), together)


@pytest.mark.parametrize("inputs", (2, 20, 24, 40, 170, 682))
def test_inputs_may_be_any_even_number(inputs: int) -> None:
    """Heads have sizes that are no multiple of a vector; what lies behind a row is not touched."""
    weight = torch.randn(48, inputs, dtype=torch.bfloat16)
    product = NativeProduct(weight, None)
    for count in (1, 2, 3, 7, 13):
        rows = torch.randn(count, inputs, dtype=torch.bfloat16)
        exact = (rows.double() @ weight.double().T).float()
        torch.testing.assert_close(product(rows).float(), exact, rtol=2e-2, atol=2e-2)
    with pytest.raises(UnsupportedError):
        NativeProduct(weight[:, 1:], None)


@pytest.mark.parametrize("number", (torch.nan, torch.inf))
def test_numbers_that_are_none_are_not_hidden(number: float) -> None:
    _, target = native("llama")
    target.fuse()
    with torch.no_grad():  # its input embeddings are the model's own
        target.model.model.embed_tokens.weight[1, 5] = number
    logits, _ = target.score(TokenTree.chain(1), target.new_cache())
    assert logits.isnan().all()


@pytest.mark.parametrize(
    "change", ({"hidden_size": 40, "head_dim": 16}, {"head_dim": 8}, {"hidden_act": "tanh"})
)
def test_what_it_does_not_compute_is_left_to_the_other_forward(change: dict[str, object]) -> None:
    _, target = native("llama", **change)
    target.fuse()
    assert target.forward_description != "native"


SOURCE = 'extern "C" int nfox_lanes() { return 7; }'


def compiled_in(folder: Path, **environment: str) -> str:
    """Return what comes of needing the library for the first time, with a cache folder of its own.

    Its source is short: compiling all of the library takes as long as all of the tests here.
    """
    sources = folder.parent / "sources"
    sources.mkdir(exist_ok=True)
    (sources / "decoder.cpp").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"XDG_CACHE_HOME": str(folder), **environment}.items():
            patch.setenv(name, value)
        patch.setattr(library, "_FOLDER", sources)
        tried = lru_cache(maxsize=1)(library._library_or_error.__wrapped__)
        patch.setattr(library, "_library_or_error", tried)  # as if nothing had been tried yet
        first = library.must_compile()
        try:
            return f"{first} {native_library().nfox_lanes()} {library.must_compile()}"
        except NativeLibraryError as error:
            return f"{first} {error} {library.must_compile()}"


def test_a_library_that_was_cut_is_compiled_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert compiled_in(cache) == "True 7 False"
    [compiled] = (cache / "nfox").glob("*.so")
    whole = compiled.read_bytes()
    cut = tmp_path / "cut"  # this process has the whole file in its memory
    cut.write_bytes(whole[:5000])
    cut.replace(compiled)
    assert compiled_in(cache) == "False 7 False"
    assert compiled.read_bytes() == whole
    written = compiled.stat().st_mtime_ns
    assert compiled_in(cache) == "False 7 False"
    assert compiled.stat().st_mtime_ns == written


def test_without_a_compiler_or_a_folder_it_says_so(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert compiled_in(cache, PATH="", CXX="") == "False no C++ compiler False"
    failing = tmp_path / "g++"
    failing.write_text("#!/bin/sh\necho 'g++: fatal error: no' >&2; exit 1\n")
    failing.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    said = compiled_in(cache, PATH=path, CXX="g++")
    assert said == f"True {failing} failed: g++: fatal error: no False"
    (tmp_path / "file").touch()
    assert "cannot be used" in compiled_in(tmp_path / "file")


_FORKS = """
import os, torch
from nfox.models.native.product import NativeProduct

torch.set_num_threads(2)
weight, rows = torch.randn(4096, 512).bfloat16(), torch.randn(2, 512).bfloat16()
product = NativeProduct(weight, None)
expected = product(rows)
child = os.fork()
if not child:
    os._exit(0 if torch.equal(product(rows), expected) else 1)
print(os.waitpid(child, 0)[1], torch.equal(product(rows), expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_process_that_was_forked_computes_the_same() -> None:
    """By one thread: OpenMP would wait for ever for those that it had before."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["0", "True"]
