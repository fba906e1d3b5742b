"""GGUF files as a person has them: found by their names, decoded with every method, or refused."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path
from typing import Any

import folder
import gguf_file
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nfox import drafters, load
from nfox.errors import ModelError, NfoxError
from nfox.files.gguf_header import read_header
from nfox.files.hub import HubOptions
from nfox.models import adapters, devices
from nfox.models.gguf_files import find_gguf, is_on_hub
from nfox.models.loading import load_model
from nfox.models.memory import check_memory, weight_bytes
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.options import ModelOptions
from nfox.reply import Settings

FLOAT32 = ModelOptions(dtype="float32", device="cpu")


def write(place: Path, packed: Any = gguf_file.Types.F32, **metadata: Any) -> dict[str, Any]:
    """Write the tiny Llama with its tokenizer; return its weights once packed."""
    model = AutoModelForCausalLM.from_pretrained(folder.llama(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder.llama())
    facts = {key.replace("__", "."): value for key, value in metadata.items()}
    return gguf_file.write(place, model, tokenizer, packed, facts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the tiny Llama, in 8 bits, with weights beside it for all methods."""
    place = tmp_path_factory.mktemp("model") / "llama.Q8_0.gguf"
    write(place, gguf_file.Types.Q8_0)
    shutil.copytree(folder.equipped() / "nfox", place.parent / "nfox")
    return place


@pytest.fixture(scope="module")
def unpacked(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same weights as safetensors."""
    place = tmp_path_factory.mktemp("unpacked") / "model"
    shutil.copytree(folder.llama(), place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    model.load_state_dict(write(whole.parent.parent / "again.gguf", gguf_file.Types.Q8_0))
    model.save_pretrained(place)
    return place


def replies(name: str, methods: list[str], **options: Any) -> set[str]:
    """Return the texts that a model answers with by each of some methods."""
    settings, texts = Settings(max_new_tokens=24), set()
    with load(name, loading=FLOAT32, settings=settings, method=methods[0], **options) as engine:
        for method in methods:
            engine.use(method)
            assert engine.method == method
            texts.add(engine.answer("the quick brown fox").text)
    return texts


def test_every_method_decodes_it_to_the_text_of_the_same_weights(
    whole: Path, unpacked: Path
) -> None:
    plain = replies(str(unpacked), ["none"])
    assert len(plain) == 1 and plain != {""}
    assert replies(str(whole.parent), drafters.method_names()) == plain
    assert replies(str(whole), ["ctc"], heads=str(whole.parent / "nfox" / "ctc")) == plain
    assert replies(str(unpacked), ["spec"], draft_model=str(whole)) == plain


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"avx512_bf16"})])
def test_it_is_quantised_on_every_processor(
    whole: Path, flags: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        native_library()
    except NativeLibraryError as error:
        pytest.skip(f"no native library: {error}")
    monkeypatch.setattr(devices, "processor_flags", lambda: flags)
    options = ModelOptions(device="cpu", quantisation="int8")
    assert load_model(str(whole), options).target.dtype == torch.bfloat16


def test_it_takes_the_adapters_that_lie_beside_it(whole: Path) -> None:
    assert adapters.available(str(whole)) == []
    (whole.parent / "nfox" / "adapters" / "own").mkdir(parents=True)
    (whole.parent / "nfox" / "adapters" / "own" / "adapter_config.json").write_text("{}")
    assert adapters.available(str(whole)) == ["own"]


def test_its_own_words_are_those_of_its_tokenizer(whole: Path) -> None:
    original = AutoTokenizer.from_pretrained(folder.llama())
    read = load_model(str(whole), FLOAT32)
    for text in ("the quick brown fox\n\n  jumps, äöü 😀", "<s>user: 12345 don't</s>"):
        assert read.tokenizer(text).input_ids == original(text).input_ids
        assert read.tokenizer.decode(original(text).input_ids) == original.decode(
            original(text).input_ids
        )
    assert read.tokenizer.chat_template == original.chat_template
    assert read.tokenizer.eos_token == "</s>" and read.tokenizer.bos_token == "<s>"
    assert read.target.model.generation_config.eos_token_id == [1]


def test_all_tokens_that_end_a_turn_end_a_reply(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder.llama())
    tokenizer = AutoTokenizer.from_pretrained(folder.llama())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<other>"]})
    words = {"tokenizer.ggml.eot_token_id": 7}
    gguf_file.write(tmp_path / "m.gguf", model, tokenizer, metadata=words)
    ends = load_model(str(tmp_path / "m.gguf"), FLOAT32).target.model.generation_config.eos_token_id
    assert ends == sorted([1, 7, tokenizer.convert_tokens_to_ids("<|im_end|>")])


def test_a_tokenizer_json_beside_it_is_taken_if_it_is_the_models(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", tokenizer__ggml__pre="of its own")
    with pytest.raises(ModelError, match="'of its own', which is not known here") as refused:
        load_model(str(tmp_path / "m.gguf"), FLOAT32)
    assert "tokenizer.json" in refused.value.hint
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder.llama() / file, tmp_path)
    tokenizer = load_model(str(tmp_path), FLOAT32).tokenizer
    assert (
        tokenizer("fox").input_ids == AutoTokenizer.from_pretrained(folder.llama())("fox").input_ids
    )
    assert tokenizer.chat_template == folder.TEMPLATE  # which only the file has
    shutil.copy(
        folder.llama(words="quite another text, zebra crossing") / "tokenizer.json", tmp_path
    )
    with pytest.raises(ModelError, match="which is not known here"):
        load_model(str(tmp_path), FLOAT32)


def test_memory_is_that_of_the_unpacked_weights(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = sum(tensor.count for tensor in read_header(whole).tensors.values())
    assert weight_bytes(str(whole), FLOAT32) == 4 * count > 3 * whole.stat().st_size
    assert weight_bytes(str(whole.parent), ModelOptions(dtype="bfloat16")) == 2 * count
    check_memory([(str(whole), FLOAT32)], 4096)
    monkeypatch.setattr("nfox.models.memory.free_bytes", lambda options: 4 * count)
    with pytest.raises(NfoxError, match=r"llama.Q8_0.gguf needs about .* \(weights, cache\)"):
        check_memory([(str(whole), FLOAT32)], 4096)


def test_a_file_of_the_hub_is_named_with_a_colon(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(repository: str, name: str, **options: Any) -> str:
        asked.append((repository, name, options["revision"], options["local_files_only"]))
        return str(whole)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    hub = HubOptions(revision="v1", offline=True)
    name = "some/llama-GGUF:sub/llama.Q8_0.gguf"
    assert is_on_hub(name) and find_gguf(name, hub) == whole
    assert asked == [("some/llama-GGUF", "sub/llama.Q8_0.gguf", "v1", True)]
    assert not is_on_hub("some/llama-GGUF") and find_gguf("some/llama-GGUF", hub) is None
    monkeypatch.undo()
    with pytest.raises(ModelError, match="no such file in the local cache"):
        find_gguf(name, HubOptions(cache_dir=str(whole.parent), offline=True))


def test_a_file_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    for name in ("absent.gguf", "models/absent.GGUF"):
        for load_it in (load, load_model):
            with pytest.raises(ModelError, match=f"{name}: no such file") as absent:
                load_it(name)
            assert "org/name:file.gguf" in absent.value.hint
    with pytest.raises(ModelError, match=r"absent\.gguf: no such f"):
        load(str(tmp_path / "absent.gguf"))


def test_a_folder_holds_one(tmp_path: Path) -> None:
    write(tmp_path / "b.gguf")
    (tmp_path / "mmproj-b.gguf").write_bytes(b"a projector of images")
    assert find_gguf(str(tmp_path), HubOptions()) == tmp_path / "b.gguf"
    write(tmp_path / "a.GGUF")
    with pytest.raises(ModelError, match=r"2 GGUF files in this folder: a.GGUF, b.gguf") as refused:
        load_model(str(tmp_path), FLOAT32)
    assert refused.value.hint == f"name one: --model {tmp_path / 'a.GGUF'}"
    (tmp_path / "config.json").write_text("{}")
    assert find_gguf(str(tmp_path), HubOptions()) is None  # the folder is a model of its own


def refusal(path: Path) -> str:
    """Return the line that a file is refused in."""
    with pytest.raises(ModelError) as refused:
        load_model(str(path), FLOAT32)
    assert refused.value.hint and "\n" not in refused.value.message
    return refused.value.message


def test_a_file_that_is_cut_anywhere_is_refused_in_a_line(whole: Path, tmp_path: Path) -> None:
    data, cut = whole.read_bytes(), tmp_path / "cut.gguf"
    for length in (0, 3, 4, 7, 20, 24, 30, 200, 3000, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        assert "cut.gguf" in refusal(cut)
    assert "the file ends within" in refusal(cut)


@pytest.mark.parametrize(
    ("bytes_", "expected"),
    [
        (b"GGML" + bytes(100), "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(40), "GGUF of version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(40), "GGUF of version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60), "ends within its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "ends within its header"),
    ],
)
def test_what_is_no_such_file_is_refused(bytes_: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(bytes_)
    assert expected in refusal(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba' is not read from GGUF"),
        ({"split.count": 3}, "a model in 3 files is not read"),
        ({"llama.expert_count": 8}, "llama.expert_count is not known here"),
        ({"llama.block_count": [2, 3]}, "llama.block_count is \\[2, 3\\], expected one number"),
        ({"llama.block_count": 3}, "the weights lack"),
        ({"llama.block_count": 1}, "tensors that the model has no place for"),
        ({"llama.block_count": 2000000000}, "its metadata asks for num_hidden_layers=2000000000"),
        ({"llama.feed_forward_length": 128}, "the sizes differ"),
        ({"llama.attention.head_count": 3}, "keys of 16 numbers|sizes differ|cannot load"),
        ({"llama.rope.scaling.type": "odd", "llama.rope.scaling.factor": 2.0}, "scaled by 'odd'"),
        ({"llama.rope.dimension_count": 8}, "and 8 that are rotated are not known here"),
        ({"llama.context_length": "long"}, "llama.context_length is long"),
        ({"llama.rope.freq_base": "low"}, "cannot load"),
        ({"tokenizer.ggml.model": "rwkv"}, "a tokenizer of kind 'rwkv'"),
        ({"tokenizer.ggml.tokens": 3}, "its tokenizer has no tokens"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "its tokens have no types"),
        ({"tokenizer.ggml.merges": ["qq zz"]}, "tokenizer"),
        ({"tokenizer.ggml.eos_token_id": 100000}, "eos_token_id is 100000"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_known_is_refused(facts: dict[str, Any], expected: str, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", **{key.replace(".", "__"): value for key, value in facts.items()})
    assert re.search(expected, refusal(tmp_path / "m.gguf"))


def test_the_first_part_of_several_is_refused_by_its_name(whole: Path, tmp_path: Path) -> None:
    part = tmp_path / "llama-00001-of-00002.gguf"
    shutil.copy(whole, part)
    shutil.copy(whole, tmp_path / "llama-00002-of-00002.gguf")
    assert "a model in 2 files" in refusal(part)
    assert "a model in 2 files" in refusal(tmp_path)


def test_a_type_that_is_not_known_is_refused(whole: Path, tmp_path: Path) -> None:
    name = b"token_embd.weight"
    data = bytearray(whole.read_bytes())
    at = data.index(name) + len(name) + 4 + 2 * 8
    data[at : at + 4] = struct.pack("<I", 99)
    (tmp_path / "m.gguf").write_bytes(data)
    assert "token_embd.weight is of type 99, which is not known here" in refusal(
        tmp_path / "m.gguf"
    )
    data[at : at + 4] = struct.pack("<I", gguf_file.Types.Q8_K)  # llama.cpp keeps none in files
    (tmp_path / "m.gguf").write_bytes(bytes(data) + bytes(len(data)))
    assert "Q8_K" in refusal(tmp_path / "m.gguf") or "whole blocks" in refusal(tmp_path / "m.gguf")
