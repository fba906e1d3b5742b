"""GGUF files and llama.cpp: the loaded weights, read back and answered with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import folder
import full_disk
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from nfox.decoding.generate import Limits, Prompt
from nfox.decoding.sampling import Sampling
from nfox.drafters.common.method import DrafterSpec
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError
from nfox.eval import peers
from nfox.eval.peers import gguf as nfox_gguf
from nfox.eval.peers import packages
from nfox.eval.peers.llama_cpp import LlamaCpp, written
from nfox.eval.peers.replies import answer
from nfox.loader import load
from nfox.models.fused_products import Product
from nfox.models.options import LoadedModel, ModelOptions
from nfox.models.packed_layers import PackedLinear
from nfox.models.transformers_target import TransformersTarget
from nfox.reply import Settings
from nfox.text.messages import Message

gguf = pytest.importorskip("gguf")

SIZES: dict[str, Any] = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip


def model(name: str) -> LoadedModel:
    """Return a tiny random model by name."""
    kinds = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
        "tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
        "biased": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)),
        "llama3": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
        "mistral": lambda: MistralForCausalLM(
            MistralConfig(**SIZES, head_dim=8, sliding_window=None)
        ),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    }
    torch.manual_seed(0)
    made = kinds[name]().eval()
    for parameter in made.parameters():  # norms of ones and biases of zeros would hide mistakes
        torch.nn.init.normal_(parameter, std=0.5)
    return LoadedModel(name, TransformersTarget(made))


def read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metadata and tensors of a file."""
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def numbers(tensor: Any) -> torch.Tensor:
    """Return the values of a tensor, as the file has them."""
    data = torch.tensor(tensor.data)
    if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
        data = data.view(torch.bfloat16)
    return data


def halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Put neighbouring rows of every head into its two halves."""
    parts = [torch.cat([head[0::2], head[1::2]]) for head in rows.split(rows.shape[0] // heads)]
    return torch.cat(parts)


NAMES = {  # by hand: transformers' names and GGUF's
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def renamed(name: str) -> str:
    """Return GGUF's name of a tensor."""
    if name in NAMES:
        return NAMES[name]
    _, _, layer, inner = name.split(".", 3)
    stem, _, end = inner.rpartition(".")
    return f"blk.{layer}.{NAMES[stem]}.{end}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "tied", "biased", "mistral", "qwen2", "qwen3"])
def test_every_tensor_comes_back(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    loaded = model(name)
    loaded.target.model.to(dtype)
    nfox_gguf.write(loaded, tmp_path / "m.gguf")
    _, found = read(tmp_path / "m.gguf")
    own = dict(loaded.target.model.named_parameters())
    assert ("lm_head.weight" in own) == (name != "tied")
    assert set(found) == set(map(renamed, own))
    for place, tensor in own.items():
        said = found[renamed(place)]
        values = numbers(said)
        assert list(said.shape) == list(tensor.shape)[::-1]  # GGUF counts from the innermost
        assert values.dtype == (torch.float32 if tensor.dim() == 1 else dtype)
        if "qwen" not in name and (".q_proj." in place or ".k_proj." in place):
            assert not torch.equal(values.to(dtype), tensor)
            values = halves(values, 4 if ".q_proj." in place else 2)
        assert torch.equal(values.to(dtype), tensor), place


def test_rows_of_halves_become_neighbours(tmp_path: Path) -> None:
    loaded = model("llama")
    rows = torch.arange(16.0)[:, None].expand(16, 16)  # 4 heads of 4 rows
    layer = loaded.target.model.model.layers[0].self_attn
    layer.q_proj.weight.data = rows.clone()
    layer.k_proj.weight.data = rows[:8].clone()  # 2 heads
    nfox_gguf.write(loaded, tmp_path / "m.gguf")
    _, found = read(tmp_path / "m.gguf")
    keys = numbers(found["blk.0.attn_k.weight"])[:, 0].tolist()
    assert keys == [0, 2, 1, 3, 4, 6, 5, 7]
    queries = numbers(found["blk.0.attn_q.weight"])[:, 0].tolist()
    assert queries == [*keys, 8, 10, 9, 11, 12, 14, 13, 15]


@pytest.mark.parametrize(
    ("name", "arch", "head"),
    [("llama", "llama", 4), ("mistral", "llama", 8), ("qwen2", "qwen2", 4), ("qwen3", "qwen3", 8)],
)
def test_the_metadata_are_the_models(name: str, arch: str, head: int, tmp_path: Path) -> None:
    loaded = model(name)
    nfox_gguf.write(loaded, tmp_path / "m.gguf")
    said, _ = read(tmp_path / "m.gguf")
    own = {key.removeprefix(f"{arch}."): value for key, value in said.items() if arch in key}
    epsilon = {"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-6}
    assert said["general.architecture"] == arch
    assert said["tokenizer.ggml.model"] == "no_vocab"
    assert own.items() >= {
        "vocab_size": 24, "context_length": 64, "embedding_length": 16, "block_count": 2,
        "feed_forward_length": 12, "attention.head_count": 4, "attention.head_count_kv": 2,
        "attention.key_length": head, "attention.value_length": head,
        "rope.dimension_count": head,
    }.items()  # fmt: skip
    assert {key: own[key] for key in epsilon} == pytest.approx(epsilon)


def test_llama_3_says_by_what_frequencies_are_divided(tmp_path: Path) -> None:
    nfox_gguf.write(model("llama3"), tmp_path / "m.gguf")
    _, found = read(tmp_path / "m.gguf")
    # Frequencies 1 and 0.01: wavelengths 6.3 and 628. Longer than 16 / 1 is divided by 4; between
    # 16 / 4 and 16, (16 / 6.3 - 1) / (4 - 1) = 0.5155 of it stays, the rest is divided.
    smooth = (16 / 6.283185307 - 1) / 3
    expected = [1 / ((1 - smooth) / 4 + smooth), 4.0]
    assert numbers(found["rope_freqs.weight"]).tolist() == pytest.approx(expected, rel=1e-5)


def test_what_llama_cpp_does_otherwise_is_refused(tmp_path: Path) -> None:
    def refused(loaded: LoadedModel, said: str) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            nfox_gguf.write(loaded, tmp_path / "m.gguf")
        assert "\n" not in caught.value.message
        assert not (tmp_path / "m.gguf").exists()

    mamba = load(str(folder.mamba()), method="none").model
    refused(mamba, "MambaForCausalLM")
    refused(load(str(folder.t5()), method="none").model, "T5ForConditionalGeneration")
    for name, place, value, said in (
        ("llama", "hidden_act", "gelu", "activation gelu"),
        ("mistral", "sliding_window", 32, "sliding window of 32"),
        ("llama", "rope_parameters", {"rope_type": "yarn"}, "rotary embedding yarn"),
        ("qwen2", "rope_parameters", LLAMA3, "rotary embedding llama3"),
        ("llama", "quantization_config", {"quant_method": "fp8"}, "quantised"),
    ):
        loaded = model(name)
        setattr(loaded.target.config, place, value)
        refused(loaded, said)
    wide = model("llama")
    wide.target.model.double()
    refused(wide, "float64")
    packed = model("llama")
    layer = packed.target.model.model.layers[0].mlp.down_proj
    product = Product(layer.weight, None)
    packed.target.model.model.layers[0].mlp.down_proj = PackedLinear(layer, product)
    refused(packed, "quantised")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with full_disk.room(4096), pytest.raises(NfoxError, match=r"m\.gguf was not written"):
        nfox_gguf.write(model("llama"), tmp_path / "m.gguf")
    with pytest.raises(NfoxError, match="No such file"):
        nfox_gguf.write(model("llama"), tmp_path / "nowhere" / "m.gguf")


def test_a_file_that_was_not_written_whole_is_no_other_peers(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    with full_disk.room(4096), pytest.raises(NfoxError):
        written(model("llama"), file)
    assert written(model("llama"), file) == str(file)
    before = file.stat().st_mtime_ns
    assert read(Path(written(model("llama"), file)))[0]["general.architecture"] == "llama"
    assert file.stat().st_mtime_ns == before  # it is written once


def test_a_missing_package_is_one_line() -> None:
    with pytest.raises(ModelError, match="one-more is not installed") as caught:
        packages.package("one_more_module", "one-more")
    assert caught.value.hint == "pip install one-more"


@pytest.fixture(scope="module")
def chat() -> Engine:
    """The tiny Llama, in float32."""
    options = ModelOptions(dtype="float32")
    settings = Settings(max_new_tokens=40)
    return load(str(folder.llama()), method="none", loading=options, settings=settings)


def build(engine: Engine, name: str = "llama.cpp") -> LlamaCpp:
    """Return a peer of llama.cpp in this process."""
    pytest.importorskip("llama_cpp")
    with TemporaryDirectory() as place:
        found = peers.peer(name)
        made = found(**found.recipe(engine, Path(place)))
    assert isinstance(made, LlamaCpp)
    return made


@pytest.fixture(scope="module")
def peer(chat: Engine) -> Iterator[LlamaCpp]:
    """llama.cpp with it."""
    made = build(chat)
    yield made
    made.close()


def plain(chat: Engine, messages: list[Message]) -> list[int]:
    """Return nfox's own plain reply."""
    return chat.answer(messages, cache=chat.model.target.new_cache()).ids


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_are_those_of_plain_decoding(
    chat: Engine, peer: LlamaCpp, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(repetition_penalty=penalty)
    monkeypatch.setattr(chat, "settings", replace(chat.settings, sampling=sampling))
    for said in ("the quick fox", "a lazy dog, äöü", "over " * 40):
        peer.begin()
        messages = [Message("user", said)]
        reply = answer(peer, chat, chat.request(messages))
        assert reply.ids == plain(chat, messages)
        messages += [reply.message(), Message("user", "jumps")]
        assert answer(peer, chat, chat.request(messages)).ids == plain(chat, messages)


@pytest.mark.parametrize("name", ["biased", "llama3", "mistral", "qwen2", "qwen3"])
def test_other_models_give_their_own_greedy_tokens(
    chat: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Engine(model(name), chat.template, drafting=DrafterSpec("none"), max_context=64)
    peer = build(own)
    prompt, told = [3, 1, 4, 1, 5, 9, 2, 6], list[int]()
    peer.answer(Prompt(tuple(prompt)), Settings(), Limits(40), told.extend)
    ids = torch.tensor([prompt])
    expected = own.model.target.model.generate(
        ids, max_new_tokens=40, do_sample=False, eos_token_id=None
    )
    peer.close()
    assert told == expected[0, len(prompt) :].tolist()


def answered(peer: LlamaCpp, prompt: list[int], sampling: Sampling, limit: int = 20) -> list[int]:
    """Return what it says to a prompt, each token told as it comes."""
    told: list[list[int]] = []
    peer.begin()
    settings = Settings(sampling=sampling)
    peer.answer(Prompt(tuple(prompt)), settings, Limits(limit), lambda new: told.append([*new]))
    assert [len(new) for new in told] == [1] * limit
    return [token for new in told for token in new]


def test_it_draws_by_the_settings(peer: LlamaCpp) -> None:
    prompt = [5, 6, 7]
    greedy = answered(peer, prompt, Sampling())
    for only in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert answered(peer, prompt, Sampling(1.0, **only)) == greedy
    drawn = answered(peer, prompt, Sampling(2.0, seed=1))
    assert drawn == answered(peer, prompt, Sampling(2.0, seed=1))
    assert drawn != answered(peer, prompt, Sampling(2.0, seed=2))
    assert drawn != greedy


def test_a_conversation_is_kept_and_the_next_begins_empty(peer: LlamaCpp) -> None:
    first = answered(peer, [5, 6, 7], Sampling(), limit=4)
    assert peer.context.tokens == [5, 6, 7, *first[:-1]]  # the last token was told, not read
    peer.begin()
    assert peer.context.tokens == []


def test_it_ends_with_a_stop_token(peer: LlamaCpp) -> None:
    told: list[int] = []
    greedy = answered(peer, [5, 6, 7], Sampling())
    stop = greedy[4]
    peer.begin()
    limits = Limits(20, stop_ids=frozenset({stop}))
    peer.answer(Prompt((5, 6, 7)), Settings(), limits, told.extend)
    assert told == greedy[: greedy.index(stop) + 1]


def test_a_full_context_is_the_end(chat: Engine, peer: LlamaCpp) -> None:
    prompt = [5, 6, 7] * 150
    limit = chat.max_context - len(prompt) + 1
    before = peer.context.handle
    assert len(answered(peer, prompt, Sampling(), limit)) == limit
    assert peer.context.handle is before


def test_room_is_made_where_it_is_needed(
    chat: Engine, peer: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.eval.peers.llama_cpp_context._FIRST_CONTEXT", 16)
    small = build(chat)
    for prompt, size in ([5, 6, 7], 16), ([5, 6, 7] * 100, 512), ([5, 6, 7], 512):
        assert answered(small, prompt, Sampling(), 10) == answered(peer, prompt, Sampling(), 10)
        assert small.context.size == size
    small.close()


def test_nothing_is_left_and_nothing_is_said(
    chat: Engine,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = build(chat)
    assert list(tmp_path.iterdir()) == []  # the file may go once it is loaded
    answered(made, [5, 6, 7], Sampling())
    assert "llama-cpp-python" in made.describe()
    assert "float32" in made.describe()
    made.close()
    made.close()
    assert capfd.readouterr() == ("", "")


def test_a_model_that_does_not_load_says_why(chat: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "nfox.eval.peers.gguf.write"
    monkeypatch.setattr(path, lambda model, file: file.write_bytes(b"GGUF is not all of it"))
    with pytest.raises(ModelError, match=r"does not load this model: .*gguf") as caught:
        build(chat)
    assert "\n" not in caught.value.message


@pytest.fixture(scope="module")
def drafted() -> Engine:
    """The tiny Llama in float32, with itself as draft model, so that much is accepted."""
    options = ModelOptions(dtype="float32")
    place = str(folder.llama())
    return load(place, method="none", draft_model=place, loading=options)


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.1, seed=3), Sampling(repetition_penalty=1.05)]
)
@pytest.mark.parametrize("name", ["llama.cpp lookup", "llama.cpp draft"])
def test_llama_cpps_speculation_changes_nothing_of_the_text(
    drafted: Engine, peer: LlamaCpp, name: str, sampling: Sampling
) -> None:
    """The same sampler draws the same tokens, whatever was drafted, and stops where it did."""
    speculative = build(drafted, name)
    longest = 0
    for prompt in ([5, 6, 7], [5, 6, 7] * 20, [9]):
        plainly = answered(peer, prompt, sampling, 40)
        for limits in (Limits(40), Limits(40, stop_ids=frozenset({plainly[25]}))):
            told: list[list[int]] = []
            speculative.begin()
            settings = Settings(sampling=sampling)
            speculative.answer(Prompt(tuple(prompt)), settings, limits, told.append)
            said = [token for tokens in told for token in tokens]
            stop = next((n for n, token in enumerate(plainly) if token in limits.stop_ids), 39)
            assert said == plainly[: stop + 1]
            assert len(told[0]) == 1  # with the prompt
            longest = max(longest, *map(len, told))
    assert longest > 1
    speculative.close()


@pytest.mark.parametrize("name", ["llama.cpp q8_0", "llama.cpp q4_0", "llama.cpp q4_1"])
def test_quantised_copies_of_the_weights_answer(chat: Engine, peer: LlamaCpp, name: str) -> None:
    quantised = build(chat, name)
    prompt = [5, 6, 7]
    told = answered(quantised, prompt, Sampling())
    assert name.rpartition(" ")[2].upper() in quantised.describe()
    # 8 bit weights nearly say the same; that 4 bit ones do not shows that they are others.
    assert (told[:4] == answered(peer, prompt, Sampling())[:4]) == (name == "llama.cpp q8_0")
    quantised.close()


def test_a_draft_model_of_other_tokens_is_refused(drafted: Engine) -> None:
    pytest.importorskip("llama_cpp")
    found = peers.peer("llama.cpp draft")
    with TemporaryDirectory() as place:
        recipe = found.recipe(drafted, Path(place))
        nfox_gguf.write(model("llama"), Path(recipe["draft_file"]))
        with pytest.raises(ModelError, match="24 tokens, the target 320"):
            found(**recipe)
