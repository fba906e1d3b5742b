"""The embedded model as packed GGUF files: trained weights, each beside its twin as safetensors."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf_file
import pytest
import torch
from gguf_file import Types
from transformers import AutoModelForCausalLM, AutoTokenizer

from nfox import ModelOptions, Settings, drafters, load
from nfox.demo import TARGET

FLOAT32 = ModelOptions(dtype="float32", device="cpu", offline=True)
QUESTIONS = ("What is 12 + 30?", "I want to find a restaurant in San Jose.")
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


def answers(folder: Path, methods: list[str]) -> dict[str, list[str]]:
    """Return the texts that a model answers the questions with, by each of some methods."""
    texts, settings = {}, Settings(max_new_tokens=24)
    with load(str(folder), loading=FLOAT32, settings=settings, method="none") as engine:
        for method in methods:
            engine.use(method)
            replies = [engine.answer(question) for question in QUESTIONS]
            assert method not in TRAINED or max(reply.stats.tau for reply in replies) > 1.5
            texts[method] = [reply.text for reply in replies]
    return texts


@pytest.mark.parametrize("packed", [Types.Q8_0, Types.Q4_1], ids=lambda packed: packed.name)
def test_every_method_decodes_it_to_the_text_of_the_unpacked_weights(
    packed: Types, tmp_path: Path
) -> None:
    file, whole = write_twins(tmp_path, packed)
    plain = answers(whole, ["none"])["none"]
    assert all(plain)
    methods = drafters.method_names()
    assert TRAINED and answers(file, methods) == dict.fromkeys(methods, plain)
