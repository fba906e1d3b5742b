"""A tokenizer is the model's own, and a token that the model does not know never reaches it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import folder
import pytest
import tiny
import torch
from transformers import AutoTokenizer

from nfox import ModelOptions, drafters, load
from nfox.decoding.generate import Prompt
from nfox.drafters.none import Autoregressive
from nfox.errors import ModelError, UsageError

OFFLINE = ModelOptions(offline=True, dtype="float32")
SIZE = 320  # rows of the tiny Llama's embedding


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder.llama(), tmp_path / "model"))


def with_tokens(tmp_path: Path, count: int) -> Path:
    """Return the tiny Llama with tokens that were added without resizing it."""
    model = copied(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<extra{number}>" for number in range(count)])
    tokenizer.save_pretrained(model)
    return model


def refused(model: Path) -> ModelError:
    with pytest.raises(ModelError) as error:
        load(str(model), loading=OFFLINE)
    assert error.value.code == 3
    assert "\n" not in error.value.message + error.value.hint
    return error.value


def test_a_token_beyond_the_embedding_is_refused_where_a_prompt_has_it(tmp_path: Path) -> None:
    engine = load(str(with_tokens(tmp_path, 99)), loading=OFFLINE)
    last = len(engine.model.tokenizer) - 1
    assert last >= SIZE
    assert engine.answer("what was added is not in here").ids
    for method in drafters.method_names():
        if not drafters.method_class(method).needs:
            engine.use(method)
            with pytest.raises(UsageError, match="<extra98>") as error:
                engine.answer("here it is: <extra98>.")
            assert str(last) in error.value.message
            assert "resize" in error.value.hint
    assert engine.answer("<extra0>: the embedding was padded so far").ids


def test_a_template_made_of_tokens_beyond_the_embedding_is_refused_at_once(tmp_path: Path) -> None:
    model = with_tokens(tmp_path, 99)
    template = folder.TEMPLATE.replace("<s>", "<extra98>")
    (model / "chat_template.jinja").write_text(template)
    error = refused(model)
    assert "<extra98>" in error.message
    assert str(model) in error.message


def test_ids_that_no_tokenizer_made_are_judged_as_well() -> None:
    target = tiny.target()
    for unknown in (tiny.VOCABULARY, 10**9, -1):
        prompt = Prompt((1, unknown, 2))
        with pytest.raises(UsageError, match=f"no token {unknown}"):
            prompt.check(99, tiny.VOCABULARY)
        with pytest.raises(UsageError, match=f"no token {unknown}"):
            tiny.run(target, Autoregressive(), [1, unknown, 2])
        with pytest.raises(UsageError, match=f"no token {unknown}"):
            target.hidden_states(torch.tensor([[1, unknown]]))
    Prompt((0, tiny.VOCABULARY - 1)).check(99, tiny.VOCABULARY)
    with pytest.raises(UsageError, match="no token 64"):
        Prompt((0,), (1, 64)).check(99, tiny.VOCABULARY)


def test_a_larger_models_tokenizer_is_refused_at_once(tmp_path: Path) -> None:
    model = copied(tmp_path)
    file = model / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    more = {f"other{number}": 300 + number for number in range(700)}
    tokenizer["model"]["vocab"] |= more
    file.write_text(json.dumps(tokenizer))
    error = refused(model)
    assert "another model's tokenizer" in error.message
    assert str(SIZE) in error.message


@pytest.mark.parametrize(
    "kind", ["LlamaTokenizer", "Qwen2TokenizerFast", "T5Tokenizer", "PreTrainedTokenizerFast", 5]
)
def test_a_tokenizers_config_alone_is_no_tokenizer(tmp_path: Path, kind: object) -> None:
    """transformers makes a tokenizer of it that drops every text."""
    model = copied(tmp_path)
    (model / "tokenizer.json").unlink()
    config = {"tokenizer_class": kind, "eos_token": "</s>"}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    assert "tokenizer.json" in refused(model).hint


@pytest.mark.parametrize("text", ["", "{}", "[]", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_tokenizer_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    model = copied(tmp_path)
    (model / "tokenizer.json").write_text(text)
    assert "tokenizer" in refused(model).message


def test_a_tokenizer_without_its_config_is_one(tmp_path: Path) -> None:
    model = copied(tmp_path)
    (model / "tokenizer_config.json").unlink()
    assert load(str(model), loading=OFFLINE).answer("hi").ids


@pytest.mark.parametrize("end", ["x", [1, "x"], [[1]], 1.5, True, {}])
def test_an_end_that_is_no_token(tmp_path: Path, end: object) -> None:
    model = copied(tmp_path)
    for name in ("generation_config.json", "config.json"):
        values = json.loads((model / name).read_text()) | {"eos_token_id": end}
        (model / name).write_text(json.dumps(values))
    error = refused(model)
    assert "eos_token_id" in error.message
