"""`nfox doctor`: what it finds, and that it finds what is wrong."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder
import huggingface_hub
import pytest
import torch
from test_cli_generate import run

from nfox import drafters
from nfox.cli.doctor import changes, machine, measured, packages
from nfox.cli.doctor.before import of_model
from nfox.cli.doctor.drawing import Drawing
from nfox.cli.doctor.findings import Advice, Finding, ordered_advice
from nfox.cli.doctor.measured import Speed
from nfox.cli.doctor.subject import Subject
from nfox.cli.options.engine import ModelArguments
from nfox.decoding.costs import Costs
from nfox.decoding.stats import Stats
from nfox.models.native.library import NativeLibraryError
from nfox.models.options import LoadProgress
from nfox.reply import Reply


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measure for a moment only, without what lies in this machine's cache, on a machine alone."""
    monkeypatch.setattr(measured, "_SECONDS", 0.01)
    monkeypatch.setattr(changes, "_SECONDS", 0.01)
    monkeypatch.setattr("psutil.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "none"))


def examined(*words: str) -> dict[str, Any]:
    """Return what `nfox doctor --json` says, with its exit code and the findings by their names."""
    done = run("doctor", "--json", "--device", "cpu", *words)
    result = json.loads(done.stdout)
    findings = result["findings"]
    by_name = {finding["name"]: finding for finding in findings}
    drafting = {one["name"]: one for one in findings if one["section"] == "drafting"}
    return {**result, "code": done.exit_code, "by_name": by_name, "drafting": drafting}


def subject_of(model: Path | str, **options: Any) -> Subject:
    return Subject(ModelArguments(model=str(model), device="cpu", **options))


def test_a_model_with_all_weights_is_measured_by_every_method() -> None:
    found = examined("--model", str(folder.equipped()))
    assert found["code"] == 0 and found["ok"]
    by_name = found["by_name"]
    measured_methods = {
        one["name"] for one in found["findings"] if "tokens_per_second" in one["facts"]
    }
    assert measured_methods == {*drafters.method_names()}
    assert by_name["none"]["facts"]["speedup"] == 1 == by_name["none"]["facts"]["tau"]
    assert by_name["memory"]["facts"]["weight_bytes"] > 0
    assert by_name["step"]["facts"]["seconds"]["1"] > 0
    assert {one["mark"] for one in found["findings"]} <= {"ok", "warn", "-"}
    for one in found["advice"]:  # each is a command that can be typed
        assert shlex.split(one["command"])[0] in ("nfox", "pip", "sudo")


def test_lines_are_aligned_and_marked_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("doctor", "--device", "cpu")
    assert done.exit_code == 0 and "\x1b" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    found = [line for line in lines if line[2:7].strip() in ("ok", "warn", "wrong", "-")]
    assert len(found) > 15 and all(line[9] != " " and line[8] == " " for line in found)
    assert done.stdout.splitlines()[0] == "machine"
    assert "\nwhat to do, the most gain first\n" in done.stdout


def test_marks_survive_without_colour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for columns in (40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        drawing = Drawing()
        drawing.finding(Finding("section", "name", "word " * 30, "wrong"))
        told = capsys.readouterr().out
        assert "wrong" in told and "\x1b[31m" not in told and "38;5" not in told
        plain = re.sub("\x1b[^m]*m", "", told).splitlines()
        rows = [line for line in plain if "word" in line]
        assert max(map(len, plain)) <= columns and len(rows) > 1
        assert columns < 60 or len({line.index("word") for line in rows}) == 1


def test_advice_mends_first_and_then_gains_most() -> None:
    def advised(name: str, gain: float | None, mark: Any = "ok") -> Finding:
        return Finding("s", name, "", mark, Advice(name, name, gain))

    findings = [
        advised("unmeasured", None),
        advised("some", 1.2),
        advised("much", 1.9),
        Finding("s", "fine", ""),
        advised("mended", None, "wrong"),
        advised("much", 1.9),
    ]
    assert [one.text for one in ordered_advice(findings)] == [
        "mended",
        "much",
        "some",
        "unmeasured",
    ]


def test_a_package_that_is_too_old_or_missing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.name: one for one in packages.of_packages()}["needed"].mark == "ok"
    installed = metadata.version

    def version(name: str) -> str:
        if name == "peft":
            raise metadata.PackageNotFoundError
        return "0.1" if name == "rich" else installed(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {one.name: one for one in packages.of_packages()}["needed"]
    assert found.mark == "wrong" and found.advice is not None
    assert "peft is missing (needs >=" in found.text and "rich 0.1 (needs >=" in found.text
    words = shlex.split(found.advice.command)
    assert words[:3] == ["pip", "install", "-U"] and words[3].startswith("peft>=")
    assert words[4].startswith("rich>=")


def test_bounds_are_read_of_the_installed_package_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nfox.__file__", str(tmp_path / "nfox" / "__init__.py"))
    texts = [
        "torch>=2",
        "datasets>=99; extra == 'train'",
        "ruff>=1; extra == 'dev'",
        "tomli; python_version < '3'",
    ]
    told = SimpleNamespace(
        get_all=lambda name: {"Requires-Dist": texts, "Provides-Extra": ["train", "dev"]}[name],
        __getitem__=None,
    )

    class Metadata(dict[str, str]):
        get_all = staticmethod(told.get_all)

    monkeypatch.setattr(metadata, "metadata", lambda name: Metadata({"Requires-Python": ">=9"}))
    python, needed, extras = packages._declared()
    assert not python.contains("3.12")
    assert [one.name for one in needed] == ["torch"]
    assert {name: [one.name for one in some] for name, some in extras.items()} == {
        "train": ["datasets"]
    }
    found = {one.name: one for one in packages.of_packages()}
    assert found["python"].mark == "wrong" and "nfox needs >=9" in found["python"].text


def test_what_does_not_start_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libtorch.so: cannot\nopen")

    monkeypatch.setattr(packages, "import_module", broken)
    found = examined("--model", str(folder.llama()))
    assert found["code"] == 1 and not found["ok"]
    last = found["findings"][-1]
    assert last["name"] == "torch" and last["mark"] == "wrong"
    assert last["text"] == "it does not start: libtorch.so: cannot open"
    assert found["advice"][0]["command"] == "pip install --force-reinstall torch"


def test_a_busy_machine_and_one_without_a_compiler_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = subject_of(folder.llama())
    monkeypatch.setattr("psutil.getloadavg", lambda: (99.0, 0.0, 0.0))
    load = {one.name: one for one in machine.of_processor(1, subject)}["load"]
    assert load.mark == "warn" and load.text.startswith("99.0 on")
    told = run("doctor", "--device", "cpu", "--model", "./absent").stdout
    assert "what to do, the most gain first (measured while other programs ran)" in told

    def none() -> str:
        raise NativeLibraryError("no C++ compiler")

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(machine, "compiler_version", lambda: "c++ 12")
    monkeypatch.setattr(machine, "native_library", none)
    compiler = {one.name: one for one in machine.of_forwards(cpu)}["compiler"]
    assert compiler.mark == "wrong" and not compiler.advice
    monkeypatch.setattr(machine, "compiler_version", none)
    compiler = {one.name: one for one in machine.of_forwards(cpu)}["compiler"]
    assert compiler.mark == "warn" and compiler.advice
    assert [one.mark for one in machine.of_forwards(gpu)] == ["ok"]


def test_the_limits_of_a_container_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    subject = subject_of(folder.llama())
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert {one.mark for one in machine.of_processor(4, subject)} == {"ok"}
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    found = {one.name: one for one in machine.of_processor(4, subject)}
    assert found["processor"].mark == found["memory"].mark == "warn"
    assert found["processor"].advice
    assert found["processor"].advice.command.endswith("--threads 1")


def test_a_gpu_that_torch_cannot_use_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "version")
    assert [one.mark for one in machine.of_gpus()] == ["ok"]
    (tmp_path / "version").touch()
    monkeypatch.setattr("torch.version.cuda", None)
    [found] = machine.of_gpus()
    assert found.mark == "wrong" and "without CUDA" in found.text and found.advice


def memory_of(model: Path, **options: Any) -> Finding:
    *_, found = of_model(subject_of(model, dtype="float32", **options), "model")
    return found


def test_memory_is_told_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder.equipped(context=512)
    found = memory_of(model)
    size = (model / "model.safetensors").stat().st_size
    facts = found.facts
    assert found.mark == "ok" and facts["weight_bytes"] == size and facts["copy_bytes"] == 0
    # Keys and values of 2 layers, those of the draft model's 1, and each one's hidden state.
    assert facts["cache_bytes"] == 512 * 4 * (2 * 3 * 2 * 16 + 2 * 64)
    heads = sum(file.stat().st_size for file in model.glob("nfox/*/*.safetensors"))
    assert 0.9 * heads < facts["drafting_bytes"] < 2.1 * heads
    whole = size + facts["drafting_bytes"] + facts["cache_bytes"]
    assert memory_of(model, max_context=64).facts["cache_bytes"] == facts["cache_bytes"] // 8

    monkeypatch.setattr("nfox.cli.doctor.before.free_bytes", lambda options: whole - 1)
    monkeypatch.setattr("nfox.cli.doctor.before.LEAST_CONTEXT", 64)
    short = memory_of(model)
    assert short.mark == "warn" and short.advice
    words = shlex.split(short.advice.command)
    assert words[words.index("--max-context") + 1] == "256"
    assert memory_of(model, max_context=256).mark == "ok"

    monkeypatch.setattr("nfox.cli.doctor.before.free_bytes", lambda options: size)
    small = memory_of(model)
    assert small.mark == "wrong" and small.advice and "--load-in-4bit" in small.advice.command
    found_all = examined("--model", str(model))
    assert found_all["code"] == 1 and found_all["findings"][-1]["name"] == "memory"


def test_the_copy_of_the_weights_is_told_with_the_room_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = subject_of(folder.llama(), dtype="bfloat16")
    *_, found = of_model(subject, "model")
    copy, weights = found.facts["copy_bytes"], found.facts["weight_bytes"]
    assert copy and "a copy of them" in found.text and "no room for the copy" not in found.text
    monkeypatch.setattr("nfox.cli.doctor.before.free_bytes", lambda options: weights + 2 * copy)
    *_, found = of_model(subject, "model")
    assert "no room for the copy" in found.text


@pytest.mark.parametrize(
    ("words", "name", "told"),
    [
        (("--model", "./absent"), "model", "./absent: no such folder"),
        (("--model", "someone/absent"), "model", "someone/absent is not on this machine"),
        (("--model", "absent"), "model", "absent is not on this machine"),
        (("--model", "absent/"), "model", "absent/: no such folder"),
        (("--heads", "./absent"), "model", "no such folder"),
        (("--adapter", "./absent"), "model", "no such folder"),
        (("--device", "cuda:77"), "device", "there is no device 'cuda:77'"),
    ],
)
def test_what_is_not_there_is_wrong_and_not_an_error(
    words: tuple[str, ...], name: str, told: str
) -> None:
    found = examined(*words)
    assert found["code"] == 1
    assert found["by_name"][name]["mark"] == "wrong" and told in found["by_name"][name]["text"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("someone/absent", "hf download someone/absent"),
        ("absent", "name a folder, an id of the hub (org/name), or one of `nfox models`"),
        ("smolm2", "did you mean smollm2?"),
    ],
)
def test_a_model_that_is_not_there_is_advised_by_what_its_name_may_mean(
    name: str, told: str
) -> None:
    advice = examined("--model", name)["by_name"]["model"]["advice"]
    assert told in (advice["text"], advice["command"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--quantize", "int8", "--load-in-4bit"), "choose one of the two"),
        (("one", "--model", "two"), "two models: one and two"),
        (("--draft-model", ""), "--draft-model is empty"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(
    words: tuple[str, ...], told: str
) -> None:
    done = run("doctor", *words)
    assert done.exit_code == 2 and told in done.stderr


@pytest.mark.parametrize("make", [folder.mamba, folder.t5])
def test_models_of_other_kinds_are_fit_too(make: Any) -> None:
    found = examined("--model", str(make()))
    assert found["code"] == 0 and found["by_name"]["none"]["facts"]["tokens"] > 0
    assert "cannot pay" not in found["by_name"]["step"]["text"] or make is folder.t5
    assert not [one for one in found["findings"] if one["mark"] == "wrong"]


def test_slow_loading_is_not_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_QUICK", 0.0)
    found = examined("--model", str(folder.llama()), "--dtype", "float32")
    advice = found["by_name"]["--dtype bfloat16"]["advice"]
    assert advice["gain"] is None and "doctor" in shlex.split(advice["command"])


def test_what_bitsandbytes_quantised_is_compared_with_what_is_quantised_for_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = subject_of(folder.llama(), load_in_8bit=True)
    target = SimpleNamespace(
        stored_in=None, is_native=False, dtype=torch.bfloat16, device=torch.device("cpu")
    )
    engine: Any = SimpleNamespace(model=SimpleNamespace(target=target), loader=1, threads=1)
    monkeypatch.setattr(changes, "usable_cores", lambda: 1)
    [found] = changes.of_changes(subject, engine, 99.0, LoadProgress())
    assert found.advice and found.name == "--quantize int8"
    words = shlex.split(found.advice.command)
    assert "--load-in-8bit" not in words and words[words.index("--quantize") + 1] == "int8"


def test_what_a_file_has_in_few_bits_is_not_quantised_for_speed() -> None:
    subject = subject_of(folder.llama())
    advised = []
    for stored_in in (None, Path("model.Q4_1.gguf")):
        target = SimpleNamespace(stored_in=stored_in, is_native=True, dtype=torch.bfloat16)
        engine: Any = SimpleNamespace(model=SimpleNamespace(target=target))
        advised.append([option for option, _ in changes._candidates(subject, engine)])
    assert advised == [["--quantize int8", "--quantize int4"], []]


def test_a_gpu_is_described_and_has_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here: torch's answers are made up, and what it computes is the CPU's."""
    ones = torch.ones
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index: "Some GPU",
        "get_device_capability": lambda index: (9, 0),
        "mem_get_info": lambda index: (10**9, 2 * 10**9),
        "is_bf16_supported": lambda including_emulation: True,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(f"torch.cuda.{name}", answer)

    def on_gpu(*sizes: int, device: str) -> torch.Tensor:
        if device == "cuda:1":
            raise RuntimeError("no kernel image is available\nmore")
        return ones(*sizes)

    monkeypatch.setattr("torch.ones", on_gpu)
    first, second = machine.of_gpus()
    assert first.mark == "ok"
    assert first.text == "Some GPU, 1.0 GB of 2.0 GB are free, computes in bfloat16"
    assert second.mark == "wrong" and second.text.endswith("no kernel image is available")


def test_heads_of_another_model_are_wrong(tmp_path: Path) -> None:
    model = Path(shutil.copytree(folder.equipped(), tmp_path / "model"))
    file = model / "nfox" / "medusa" / "drafter.json"
    about = json.loads(file.read_text())
    about["config"]["hidden_size"] = 32
    file.write_text(json.dumps(about))
    found = examined("--model", str(model))
    assert found["code"] == 1 and found["by_name"]["medusa"]["mark"] == "wrong"
    assert "was trained for" in found["by_name"]["medusa"]["text"]
    assert "tokens_per_second" in found["by_name"]["chimera"]["facts"]  # the others go on


def test_the_draft_models_tokens_and_prompts_are_compared(tmp_path: Path) -> None:
    found = examined("--draft-model", str(folder.llama(layers=1, seed=1)))
    assert found["drafting"]["spec"]["text"].startswith("named: ")
    found = found["by_name"]
    assert found["tokenizer"]["mark"] == found["template"]["mark"] == "ok"
    assert "have the same prompts" in found["template"]["text"]
    other = Path(shutil.copytree(folder.llama(layers=1, seed=1), tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    found = examined("--draft-model", str(other))["by_name"]
    assert found["tokenizer"]["mark"] == "ok" and found["template"]["mark"] == "warn"
    found = examined("--draft-model", str(folder.llama(words="other words, quite others")))
    assert found["code"] == 1 and found["by_name"]["tokenizer"]["mark"] == "wrong"
    assert "has another tokenizer" in found["by_name"]["spec"]["text"]


def test_training_is_advised_where_nothing_is_there_that_was_trained() -> None:
    found = examined("--model", str(folder.llama()))
    [advice] = [one for one in found["advice"] if " train " in one["command"]]
    assert found["by_name"]["weights"]["mark"] == "-"
    words = shlex.split(advice["command"])
    assert words[2] in drafters.method_names() and str(folder.llama()) in words
    assert advice["gain"] is None
    found = examined("--model", str(folder.equipped()))
    assert not [one for one in found["advice"] if " train " in one["command"]]


def test_a_model_without_a_chat_template_is_measured_all_the_same(tmp_path: Path) -> None:
    found = examined("--model", str(folder.without_template(tmp_path / "base")))
    assert found["code"] == 0 and found["by_name"]["template"]["mark"] == "warn"
    assert found["by_name"]["none"]["facts"]["tokens"] > 0


def test_what_lies_in_the_cache_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_cache(name: str, source: Path) -> None:
        place = tmp_path / "hub" / f"models--someone--{name}"
        shutil.copytree(source, place / "snapshots" / ("c" * 40))
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("c" * 40)

    in_cache("small", folder.llama(layers=1, seed=1))
    in_cache("foreign", folder.llama(layers=1, seed=1, words="other words, quite others"))
    in_cache("heads", folder.equipped() / "nfox" / "ctc")
    cache = str(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)
    monkeypatch.setattr("nfox.cli.doctor.drafting.SHIPPED", tmp_path / "shipped")
    shutil.copytree(folder.equipped() / "nfox" / "medusa", tmp_path / "shipped" / "m" / "medusa")
    other = tmp_path / "shipped" / "m" / "chimera"
    shutil.copytree(folder.equipped() / "nfox" / "chimera", other)
    about = json.loads((other / "drafter.json").read_text())
    about["training"] = {"base_fingerprint": [1.0, 2.0]}  # of another model
    (other / "drafter.json").write_text(json.dumps(about))
    found = examined("--model", str(folder.llama(layers=4)))
    cached = {one["facts"]["unused"]: one for one in found["findings"] if "unused" in one["facts"]}
    shipped = str(tmp_path / "shipped" / "m" / "medusa")
    assert set(cached) == {"someone/small", "someone/heads", shipped}
    assert cached["someone/small"]["name"] == "spec" and cached["someone/heads"]["name"] == "ctc"
    assert "--draft-model someone/small" in cached["someone/small"]["advice"]["command"]
    assert found["by_name"]["medusa (unused)"]["facts"]["tokens"] > 0
    assert found["by_name"]["ctc (unused)"]["facts"]["tokens"] > 0
    used = examined("--model", str(folder.llama(layers=4)), "--draft-model", "someone/small")
    assert used["code"] == 0 and used["by_name"]["spec"]["facts"]["tokens"] > 0


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Speed]]:
    """Let methods be as fast as the test says."""
    given: dict[str, Speed] = {}
    monkeypatch.setattr(measured, "_measured", lambda engine, ways, progress: given)
    yield given


def test_the_fastest_method_is_advised_with_what_was_measured(speeds: dict[str, Speed]) -> None:
    speeds["none"] = Speed(100, 1.0, 100, [[1, 2]])
    speeds["lookup"] = Speed(300, 1.0, 100, [[1, 2]])
    speeds["auto"] = Speed(200, 1.0, 100, [[1, 2]])
    found = examined("--model", str(folder.llama()))
    [advice] = [one for one in found["advice"] if "--method" in one["command"]]
    assert advice["gain"] == 1.5 and advice["command"].endswith("--method lookup")
    assert found["by_name"]["lookup"]["facts"]["speedup"] == 3
    for lookup in (Speed(210, 1.0, 100, [[1, 2]]), Speed(300, 1.0, 100, [[1, 2]], [1.0, 5.0])):
        speeds["lookup"], speeds["auto"].rates = lookup, [2.0, 2.0]
        found = examined("--model", str(folder.llama()))
        assert not [one for one in found["advice"] if "--method" in one["command"]]


def test_a_gain_that_cannot_be_is_not_claimed(speeds: dict[str, Speed]) -> None:
    speeds["none"] = Speed(100, 5.0, 100, [[1, 2]])  # while other programs ran
    speeds["lookup"] = Speed(120, 1.0, 100, [[1, 2]])
    speeds["auto"] = Speed(100, 1.0, 100, [[1, 2]])
    found = examined("--model", str(folder.llama()))
    lookup = found["by_name"]["lookup"]
    assert lookup["mark"] == "warn" and "gain not known: other programs ran" in lookup["text"]
    assert lookup["facts"]["speedup"] is None and "6.00x" not in lookup["text"]
    assert not [one for one in found["advice"] if "--method" in one["command"]]


def test_of_several_rounds_the_fastest_reply_to_each_question_counts() -> None:
    def reply(seconds: float, tokens: int = 10) -> Any:
        return Reply("none", ids=[tokens], stats=Stats(tokens=tokens, steps=5, seconds=seconds))

    speed = Speed.of([[reply(1.0), reply(9.0, 20)], [reply(7.0), reply(2.0, 20)]])
    assert (speed.tokens, speed.seconds, speed.steps, speed.tau) == (30, 3.0, 10, 3.0)
    assert speed.replies == [[10], [20], [10], [20]] and len(speed.rates) == 4


def test_another_text_by_a_native_forward_is_wrong(speeds: dict[str, Speed]) -> None:
    engine: Any = SimpleNamespace(
        make=lambda name: None, model=SimpleNamespace(target=SimpleNamespace(is_native=True))
    )
    speeds["none"] = Speed(100, 1.0, 100, [[1, 2], [3]])
    speeds["lookup"] = Speed(100, 1.0, 100, [[1, 2], [4]])
    subject = subject_of(folder.llama())
    plain, other = measured.of_methods(subject, engine, [], LoadProgress())
    assert plain.mark == "ok" and other.mark == "wrong" and "1 of 2" in other.text
    engine.model.target.is_native = False
    _, other = measured.of_methods(subject, engine, [], LoadProgress())
    assert other.mark == "ok"


def test_other_options_are_advised_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of several times counts: a machine is busy now and then."""
    before = torch.get_num_threads()

    def advised(times: dict[int, float]) -> Advice | None:
        noise = iter([1.0, 5.0, 0.0, 1.0, 2.0, 0.0])

        def costs(target: object, time_limit: float) -> Costs:
            return Costs({1: times[torch.get_num_threads()] + next(noise)})

        monkeypatch.setattr(changes, "measure_costs", costs)
        target: Any = None
        return changes._of_threads(subject_of(folder.llama()), target, 7).advice

    advice = advised({before: 2.0, 7: 1.0})
    assert advice and advice.gain == 2.0 and "--threads 7" in advice.command
    assert torch.get_num_threads() == before
    assert advised({before: 1.0, 7: 1.0}) is None


def test_a_command_keeps_what_was_asked_for() -> None:
    arguments = ModelArguments(model="a b", load_in_4bit=True, max_context=99)
    command = Subject(arguments).command("doctor", method="lookup", quantize=None, threads=2)
    words = shlex.split(command)
    assert words[:4] == ["nfox", "doctor", "--model", "a b"]
    assert words[-2:] == ["--method", "lookup"] and "--load-in-4bit" in words
    assert words[words.index("--threads") + 1] == "2"
    assert words[words.index("--max-context") + 1] == "99"
