"""Models by name: the commands that fetch, list and remove them, and /model in the chat."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli_model
import folder
import gguf_file
import pytest
import torch
from command_line import run
from test_cli_commands import ChatApp, do, make, said
from transformers import AutoModelForCausalLM, AutoTokenizer

from nfox import ModelOptions, Settings, load
from nfox.cli.chat.commands import models as models_command
from nfox.cli.display.header import method_line, print_header, print_welcome
from nfox.cli.engine_arguments import EngineArguments
from nfox.cli.known_models import GetArguments, ModelsArguments, get, models, remove, usual_model
from nfox.cli.options.completion import model_names
from nfox.cli.options.engine import ModelArguments
from nfox.decoding.sampling import Sampling
from nfox.demo import QUESTIONS, TARGET
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.known_models import KNOWN, SHIPPED, models_folder, without_package

FLOAT32 = ModelOptions(dtype="float32", device="cpu")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep models and conversations in folders of the test's own; return where SmolLM2 goes."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("nfox.known_models.SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    return models_folder() / "smollm2"


def keep(place: Path) -> Path:
    """Let a tiny model go by the known name, as a GGUF file."""
    place.mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(folder.llama(), dtype=torch.float32)
    gguf_file.write(place / "m.gguf", model, AutoTokenizer.from_pretrained(folder.llama()))
    return place


@pytest.fixture
def app(tmp_path: Path) -> ChatApp:
    """Return a chat with the model that says one thing, and one question answered."""
    engine = load(str(cli_model.save(tmp_path / "model")), loading=FLOAT32)
    engine.use_settings(Settings(max_new_tokens=9))
    app = make(engine)
    do(app, "Hello")
    said(app)
    return app


def test_they_are_listed_with_what_fits_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models(ModelsArguments())
    assert "not here yet: nfox get smollm2" in capsys.readouterr().out
    keep(place)
    shutil.copytree(folder.equipped() / "nfox" / "ctc", tmp_path / "shipped" / "smollm2" / "ctc")
    adapter = tmp_path / "shipped" / "smollm2" / "adapters" / "cllm"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    models(ModelsArguments())
    told = capsys.readouterr().out
    assert str(place) in told and "with weights for ctc, cllm (adapter)" in told
    models(ModelsArguments(as_json=True))
    [row] = json.loads(capsys.readouterr().out)["models"]
    assert row["kept_at"] == str(place) and row["repository"] == KNOWN["smollm2"].repository
    assert row["licence"] == "Apache-2.0" and row["weights"] == ["ctc", "cllm (adapter)"]


def test_they_are_fetched_and_removed_by_their_names(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nfox.files.fetching.fetch", lambda *arguments: keep(place))
    get("smollm2", GetArguments())
    assert capsys.readouterr().out == f"smollm2 is in {place} (Apache-2.0)\n"
    get("smollm2", GetArguments())
    assert "is there already" in capsys.readouterr().out
    remove("smollm2")
    remove("smollm2")
    assert capsys.readouterr().out == "smollm2 was removed\nsmollm2 was not there\n"
    for command in (lambda: get("smol", GetArguments()), lambda: remove("smol")):
        with pytest.raises(UsageError, match="no model of this name is known"):
            command()


def test_a_name_loads_the_model_with_what_comes_with_nfox(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="smollm2 is not on this machine yet") as absent:
        load("smollm2")
    assert absent.value.hint == "nfox get smollm2"
    with pytest.raises(ModelError, match="smollm2 is not on this machine yet"):
        load(str(folder.llama()), method="spec", draft_model="smollm2")
    keep(place)
    shutil.copytree(folder.equipped() / "nfox", tmp_path / "shipped" / "smollm2")
    engine = load("smollm2", method="medusa", loading=FLOAT32)
    assert engine.model.name == "smollm2" and engine.method == "medusa"
    assert engine.summary().drafter.startswith(str(tmp_path / "shipped"))
    plain = load(str(folder.llama()), method="none", loading=FLOAT32)
    assert engine.answer("fox").ids == plain.answer("fox").ids


def test_what_was_fetched_answers_where_no_model_is_named(place: Path) -> None:
    def chosen(**names: str) -> str | None:
        return usual_model(ModelArguments(**names)).model

    assert chosen() is None
    keep(place)
    assert chosen() == "smollm2"
    assert chosen(model="other") == "other"
    assert chosen(heads="h") is chosen(adapter="cllm") is chosen(draft_model="d") is None


@pytest.mark.parametrize(
    "words",
    [
        *("generate fox", "race fox", "serve --port 0", "-p fox"),
        *("bench --prompts a=DATA", "bench forwards", "eval loss --data DATA"),
        *("eval heads --data DATA", "eval jacobi --data DATA", "eval gsm8k --data DATA"),
    ],
)
def test_every_command_that_answers_takes_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def load(arguments: EngineArguments, **others: Any) -> None:
        raise UsageError(f"loading {arguments.model.model}")

    keep(place)
    monkeypatch.setattr(EngineArguments, "load", load)
    data = place.parent / "data.jsonl"
    data.write_text(json.dumps({"id": 1, "question": "why?", "answer": "#### 1"}) + "\n")
    words = words.replace("DATA", str(data))
    for command, model in ((words, "smollm2"), (f"{words} --model embedded", "embedded")):
        assert f"loading {model}" in run(*command.split()).stderr


def test_methods_and_the_doctor_look_at_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(place)
    assert json.loads(run("methods", "--json").stdout)["model"] == "smollm2"
    named = run("methods", "--json", "--model", "embedded").stdout
    assert json.loads(named)["model"] == str(TARGET)
    monkeypatch.setattr("nfox.cli.doctor.examination.examine", lambda subject: ())
    assert json.loads(run("doctor", "--json").stdout)["model"] == "smollm2"


def test_the_embedded_model_has_a_name(place: Path) -> None:
    keep(place)
    assert load("embedded", method="none").model.name == str(TARGET)
    assert "embedded" in model_names()


def test_the_embedded_model_says_that_it_is_a_demonstration(app: ChatApp, place: Path) -> None:
    engine = app.engine
    print_header(engine, app.screen, 1.0, verbose=False)
    assert "demonstration" not in said(app)
    embedded = load(str(TARGET), method="none")
    print_header(embedded, app.screen, 1.0, verbose=False)
    told = said(app)
    assert "the embedded model, a demonstration," in " ".join(told.split())
    assert "`nfox get smollm2` fetches one of 135M parameters (93 MB)" in told
    keep(place)
    print_header(embedded, app.screen, 1.0, verbose=False)
    assert "/model smollm2 is one of 135M parameters" in said(app)


def test_questions_to_try_suit_the_model(app: ChatApp, place: Path) -> None:
    def proposed(name: str) -> tuple[str, ...]:
        model = replace(app.engine.model, name=name)
        print_welcome(Engine(model, app.engine.template), app.screen, questions=True)
        shown = said(app)
        *questions, keys = shown.strip().splitlines()
        assert keys.startswith("/help") and questions[0].startswith("try:")
        return tuple(question.removeprefix("try:").strip() for question in questions)

    keep(place)
    embedded, known = proposed(str(TARGET)), proposed(str(place))
    assert embedded == QUESTIONS and known == KNOWN["smollm2"].questions
    assert known == proposed(KNOWN["smollm2"].repository) != proposed("some/other")
    print_welcome(app.engine, app.screen, questions=False)
    assert "try:" not in said(app)


def test_the_model_changes_and_the_messages_stay(app: ChatApp, place: Path) -> None:
    former, turns = app.engine, app.conversation.turns
    app.conversation.system = "Be brief."
    assert "in use: model" in do(app, "/model") and "not here yet" in do(app, "/model")
    for name, why in (("smollm2", "not on this machine"), ("./nowhere", "no such folder")):
        with pytest.raises(NfoxError, match=why):
            do(app, f"/model {name}")
        assert app.engine is former and app.conversation.turns == turns
    keep(place)
    assert "smollm2" in do(app, "/model smollm2")
    assert app.engine is not former and app.engine.model.name == "smollm2"
    assert app.engine.settings == former.settings and not app.engine.cache.tokens
    assert [(m.role, m.content) for m in app.conversation.turns] == [
        (m.role, m.content) for m in turns
    ]
    assert app.conversation.system == "Be brief."
    with pytest.raises(NfoxError, match="is another model's"):
        do(app, "/stats")
    with pytest.raises(NfoxError):
        do(app, "/continue")
    do(app, "And now?")
    asked = [(m.role, m.content) for m in app.conversation.messages]
    plain = load(str(folder.llama()), method="none", loading=FLOAT32)
    expected = plain.answer([{"role": r, "content": c} for r, c in asked[:-1]], max_new_tokens=9)
    assert asked[-1] == ("assistant", expected.text)
    with pytest.raises(NfoxError, match="closed"):
        former.answer("Hello")


def test_the_sampling_of_the_model_is_that_of_the_model_in_use(
    app: ChatApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what was typed on the command line, or set in the chat."""
    other = cli_model.save(tmp_path / "other")
    file = other / "generation_config.json"
    file.write_text(json.dumps({"do_sample": True, "temperature": 0.5, "top_p": 0.9}))
    params: dict[str, object] = {"sampling": "model", "top_k": 0, "top_p": None}
    context = SimpleNamespace(params=params)
    monkeypatch.setattr(models_command, "get_current_context", lambda silent: context)
    do(app, "/set repetition_penalty=1.25 seed=7")
    do(app, f"/model {other}")
    own = replace(Sampling(temperature=0.5, top_p=0.9, seed=7), repetition_penalty=1.25)
    assert app.engine.settings.sampling == own
    file.write_text(json.dumps({"num_beams": 3}))
    former = app.engine
    with pytest.raises(UsageError, match="num_beams=3"):
        do(app, f"/model {other}")
    assert app.engine is former
    params["sampling"] = "greedy"
    do(app, f"/model {other}")
    assert app.engine is not former and app.engine.settings.sampling == own


def test_the_line_of_a_method_names_shipped_weights_without_their_place() -> None:
    place = SHIPPED / "smollm2" / "ctc"
    summary = SimpleNamespace(
        method="ctc",
        why=f"its weights are in {place}",
        drafter=f"{place}, 7 nodes",
        model="smollm2",
    )
    engine: Any = SimpleNamespace(
        summary=lambda: summary, model=SimpleNamespace(name=summary.model)
    )
    assert method_line(engine) == "ctc: its weights are in nfox's own ctc; nfox's own ctc, 7 nodes"


def test_loading_another_model_can_be_stopped(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_another(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nfox.loader.load_another", load_another)
    former = app.engine
    assert "stopped; model answers, as before" in do(app, "/model smollm2")
    assert app.engine is former and "a fox" not in do(app, "Hello")


def test_what_comes_with_nfox_is_named_without_where_nfox_is_installed() -> None:
    assert without_package(str(TARGET / "nfox" / "spec")) == "nfox/demo/target/nfox/spec"
    for other in ("org/heads", "/elsewhere/nfox/spec", "heads"):
        assert without_package(other) == other
    with load(None, loading=FLOAT32) as engine:
        for method in ("spec", "ctc", "chimera"):
            engine.use(method)
            assert f"nfox/demo/target/nfox/{method}" in engine.drafter.describe()
            assert str(TARGET) not in engine.drafter.describe()
