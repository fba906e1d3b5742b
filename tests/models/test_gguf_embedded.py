"""The embedded model as packed GGUF files: trained weights, each beside its twin as safetensors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import gguf_file
import pytest
import torch
from gguf_file import Types
from transformers import AutoModelForCausalLM, AutoTokenizer

from nfox import ModelOptions, Settings, drafters, load
from nfox.demo import TARGET

PACKED = ModelOptions(device="cpu", offline=True)
FLOAT32 = replace(PACKED, dtype="float32")
QUESTION = "I want to find a restaurant in San Jose."
TRAINED = {name for name in drafters.method_names() if (TARGET / "nfox" / name).is_dir()}
WORDS = {"tokenizer.ggml.pre": "smollm"}  # each digit by itself

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TARGET.is_dir(), reason="the embedded model is not there"),
]


def write_twins(place: Path, packed: Types) -> tuple[Path, Path]:
    """Write the embedded model as a GGUF file and, once packed and unpacked, as safetensors, each
    in a folder with the weights of all methods; return the folders.
    """
    file, whole = place / "file", place / "whole"
    shutil.copytree(TARGET / "nfox", file / "nfox")
    shutil.copytree(TARGET, whole, ignore=shutil.ignore_patterns("model*"))
    model = AutoModelForCausalLM.from_pretrained(TARGET, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(TARGET)
    weights = gguf_file.write(file / f"m.{packed.name}.gguf", model, tokenizer, packed, WORDS)
    before = model.model.layers[0].mlp.down_proj.weight.clone()
    model.load_state_dict(weights, strict=False)  # without the head, which is the embeddings
    assert not torch.equal(model.model.layers[0].mlp.down_proj.weight, before), "it is not packed"
    model.save_pretrained(whole)
    return file, whole


def answers(folder: Path, methods: list[str], loading: ModelOptions) -> dict[str, str]:
    """Return the texts that a model answers the question with, by each of some methods."""
    texts, taus, settings = {}, list[float](), Settings(max_new_tokens=24)
    with load(str(folder), loading=loading, settings=settings, method="none") as engine:
        for method in methods:
            engine.use(method)
            reply = engine.answer(QUESTION)
            taus.append(reply.stats.tau)
            texts[method] = reply.text
    assert methods == ["none"] or max(taus) > 1.5  # which of them draft, the costs decide
    return texts


@pytest.mark.parametrize("packed", [Types.Q8_0, Types.Q4_1], ids=lambda packed: packed.name)
def test_every_method_decodes_it_to_the_text_of_the_unpacked_weights(
    packed: Types, tmp_path: Path
) -> None:
    """In float32; as it is stored, where that can be, to one text as well."""
    file, whole = write_twins(tmp_path, packed)
    plain = answers(whole, ["none"], FLOAT32)["none"]
    methods = drafters.method_names()
    assert plain and {*TRAINED} < {*methods}
    unpacked = methods if packed is Types.Q8_0 else ["none"]  # once unpacked, all are alike
    assert answers(file, unpacked, FLOAT32) == dict.fromkeys(unpacked, plain)
    texts = answers(file, methods, PACKED)
    assert texts == dict.fromkeys(methods, texts["none"]) and texts["none"]
