"""What version 0.1.0 wrote is read, and gone on with: the files in fixtures/0.1.0 are its own.

It wrote them for the tiny Llama of `folder.llama()`, in a folder called tiny-llama. The path of
that folder has been taken out of them; it is put in again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import folder
import pytest
import torch
from typer.testing import CliRunner, Result

from nfox import Conversation, Engine, ModelOptions, Settings, load
from nfox.cli.app import app
from nfox.drafters.medusa import Medusa
from nfox.files.hub import HubOptions
from nfox.heads.checkpoint import read_info
from nfox.models.loading import load_model

FIXTURES = Path(__file__).parent / "fixtures" / "0.1.0"
MODEL = "tiny-llama"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the files, and put their model beside them."""
    made = tmp_path_factory.mktemp("former")
    shutil.copytree(FIXTURES, made, dirs_exist_ok=True)
    shutil.copytree(folder.llama(), made / MODEL)
    for file in made.glob("*.provenance.json"):
        named = file.read_text().replace(f'"model": "{MODEL}"', f'"model": "{made / MODEL}"')
        file.write_text(named)
    return made


@pytest.fixture(autouse=True)
def inside(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)


def engine(**options: object) -> Engine:
    loading = ModelOptions(dtype="float32", **options)  # type: ignore[arg-type]
    return load(MODEL, loading=loading, settings=Settings(max_new_tokens=12))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_conversation_is_loaded_with_its_token_ids_and_goes_on() -> None:
    conversation = Conversation(engine())
    conversation.load(Path("conversation.json"))
    saved = json.loads(Path("conversation.json").read_text())
    assert [message.content for message in conversation.messages] == [
        message["content"] for message in saved["messages"]
    ]
    assert conversation.messages[2].ids == tuple(saved["messages"][2]["ids"])
    conversation.save(Path("again.json"))
    assert json.loads(Path("again.json").read_text()) == saved
    assert conversation.send("more").read_to_end().ids


def test_heads_are_loaded_and_draft() -> None:
    info = read_info("heads")
    assert info is not None
    assert (info.method, info.training["versions"]["nfox"]) == ("medusa", "0.1.0")
    heads, _ = Medusa.load_heads(engine().model, "heads", HubOptions())
    with torch.inference_mode():
        logits = heads.logits(torch.ones(1, 64), engine().model.target)
    assert logits.shape == (1, 2, 320)
    as_it_was = ModelOptions(dtype="float32")
    drafting = load(MODEL, method="medusa", heads="heads", loading=as_it_was)
    assert "medusa (heads)" in load(MODEL, heads="heads", loading=as_it_was).why
    assert drafting.answer("hello", max_new_tokens=12).ids == engine().answer("hello").ids


def test_an_adapter_is_loaded() -> None:
    plain, adapted = (
        load_model(MODEL, ModelOptions(dtype="float32", adapter=adapter)).target
        for adapter in (None, "adapter")
    )
    with torch.inference_mode():
        ids = torch.tensor([[5, 6, 7]])
        difference = adapted.hidden_states(ids) - plain.hidden_states(ids)
    assert difference.abs().max() > 0


@pytest.mark.parametrize(
    ("out", "command"),
    [
        ("own.jsonl", ("data", "distill", "--data", "data.json", "--max-new-tokens", 12)),
        ("answers.jsonl", ("generate", "--prompts", "prompts.jsonl", "--max-new-tokens", 12)),
        (
            "trajectories.jsonl",
            ("data", "trajectories", "--data", "two.json", "--n", 8, "--max-new-seq-len", 24),
        ),
    ],
)
def test_a_file_of_lines_is_gone_on_with_by_its_provenance(
    out: str, command: tuple[object, ...]
) -> None:
    """The same command finds nothing left to do; another one is refused."""
    before = Path(out).read_bytes()
    done = run(*command, "--model", MODEL, "--dtype", "float32", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert Path(out).read_bytes() == before
    other = run(*command, "--model", MODEL, "--dtype", "bfloat16", "--out", out)
    assert other.exit_code == 2
    assert Path(out).read_bytes() == before


def test_trajectories_are_learned_from() -> None:
    done = run(
        *("train", "cllm", "--target_model_path", MODEL, "--data_path", "trajectories.jsonl"),
        *("--output_dir", "cllm", "--adapter", "lora", "--lora_r", 2, "--max_steps", 1),
        *("--use_cpu", "True", "--report_to", "none"),
    )
    assert done.exit_code == 0, done.stderr
    assert Path("cllm/adapter/adapter_config.json").is_file()


def test_a_benchmarks_result_and_baseline_are_compared() -> None:
    done = run("bench", "compare", "baseline.json", "bench.json", "--guard")
    assert done.exit_code == 0, done.stderr
    drawn = run("bench", "report", "bench.json", "--html", "page.html")
    assert drawn.exit_code == 0, drawn.stderr
    assert "lookup" in Path("page.html").read_text()
