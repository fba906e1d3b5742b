"""One trainer for all heads: what it computes does not depend on how the work is divided."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder
import pytest
import tiny
import torch
import two_processes
from training import FLOAT32, METHOD, METHODS, arguments, data, job, learn
from typer.testing import CliRunner

from nfox import drafters
from nfox.cli.app import app
from nfox.drafters.common.heads import HeadsDrafter
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.files.hub import HubOptions
from nfox.heads import checkpoint
from nfox.heads.base import IGNORE, TextBatch, measure_accuracy
from nfox.heads.checkpoint import read_info
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel
from nfox.train import run as run_module
from nfox.train.checkpoints import checkpoints, resume_point, training_disk_full
from nfox.train.data.rows import collate
from nfox.train.dry_run import dry_run
from nfox.train.heads.joint_training import JointTraining
from nfox.train.heads.learner import HeadsLearner
from nfox.train.output_folder import check_output_folder
from nfox.train.run import train


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "heads.safetensors")


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "opt", "qwen2-mixed"])
def test_padded_batches_have_the_states_that_the_cache_has(family: str) -> None:
    target = tiny.target(family)
    texts = [[7 * i % 61 for i in range(20)], [5 * i % 59 for i in range(11)]]
    rows = [{"input_ids": text, "labels": text} for text in texts]
    batch = collate(rows)
    hidden = target.hidden_states(batch["input_ids"])
    for row, text in zip(hidden, texts, strict=True):
        past = target.new_cache()
        target.read(text, past)
        torch.testing.assert_close(row[: len(text)], past.hidden, rtol=1e-4, atol=1e-5)


def test_target_labels_are_the_targets_greedy_tokens() -> None:
    target = tiny.target()
    tokens = [*tiny.PROMPT, *tiny.slow("llama", tiny.PROMPT, 12)]
    wrong = torch.tensor([[(token + 1) % tiny.VOCABULARY for token in tokens]])
    wrong[:, : len(tiny.PROMPT)] = IGNORE
    ids = torch.tensor([tokens])
    learner = HeadsLearner(tiny.make(METHOD).heads, target)  # type: ignore[attr-defined]
    text = TextBatch(ids, target.hidden_states(ids), wrong)
    labels = learner.with_target_labels(text).labels
    assert labels[0, len(tiny.PROMPT) :].tolist() == tokens[len(tiny.PROMPT) :]
    assert set(labels[0, : len(tiny.PROMPT)].tolist()) == {IGNORE}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target_labels", [False, True])
def test_trained_heads_are_used_from_their_folder(
    method: str, target_labels: bool, tmp_path: Path
) -> None:
    result, log = learn(
        tmp_path, job(method, target_labels=target_labels), max_steps=20, save_steps=20
    )
    losses = list(log.losses.values())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    drafter = drafters.method_class(method)
    assert issubclass(drafter, HeadsDrafter)
    target = load_model(str(folder.llama()), FLOAT32).target
    heads, info = drafter.load_heads(LoadedModel("x", target), str(tmp_path), HubOptions())
    assert result.metrics is not None
    assert info.accuracy == [[round(x, 4) for x in row] for row in result.metrics.accuracy]
    assert info.training["steps"] == 20
    assert info.training["tokens"] > 40
    assert heads.config.num_heads == 2


@pytest.mark.parametrize(
    ("before", "now", "after"), [([1, 3], [3, 7], [1, 3, 7]), ([], [3], []), ([1], [], [])]
)
def test_heads_that_learn_more_guess_what_they_guessed_before_too(
    before: list[int], now: list[int], after: list[int], tmp_path: Path
) -> None:
    learn(tmp_path, max_steps=1)
    info = read_info(str(tmp_path))
    assert info is not None
    checkpoint.write(tmp_path, info.model_copy(update={"frequent_tokens": before}), {})
    learner: Any = SimpleNamespace(frequent_tokens=lambda: now)
    assert job(heads=str(tmp_path))._frequent_tokens(learner) == after
    assert job()._frequent_tokens(learner) == now


def test_what_the_loss_reports_is_logged(tmp_path: Path) -> None:
    _, log = learn(tmp_path, max_steps=2, logging_steps=2)
    logged = next(entry for entry in log.all if "loss" in entry)
    assert any(name.endswith("_top1") for name in logged)


def test_going_on_from_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    _, uninterrupted = learn(tmp_path / "a")
    at_three = str(tmp_path / "a" / "checkpoint-3")
    _, later = learn(tmp_path / "b", resume_from_checkpoint=at_three)
    assert list(later.losses) == [4, 5, 6]
    assert later.losses == {step: uninterrupted.losses[step] for step in (4, 5, 6)}
    for name, weight in weights(tmp_path / "a").items():
        assert torch.equal(weights(tmp_path / "b")[name], weight)


def test_a_finished_training_only_writes_its_heads_again(tmp_path: Path) -> None:
    learn(tmp_path)
    before = weights(tmp_path)
    (tmp_path / "heads.safetensors").unlink()
    done, later = learn(tmp_path, resume_from_checkpoint="true")
    assert later.losses == {}
    assert not done.stopped
    for name, weight in weights(tmp_path).items():
        assert torch.equal(before[name], weight)


def test_a_checkpoint_holds_the_heads_and_not_the_target(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    learn(tmp_path, max_steps=1)
    names = load_file(tmp_path / "checkpoint-1" / "model.safetensors").keys()
    assert {name.removeprefix("heads.") for name in names if name.startswith("heads.")} == set(
        weights(tmp_path)
    )
    assert all(name.startswith("heads.") for name in names)


@pytest.mark.slow
def test_evaluating_changes_nothing(tmp_path: Path) -> None:
    _, plain = learn(tmp_path / "a")
    evaluated = job(eval_data=str(data()))
    _, watched = learn(tmp_path / "b", evaluated, eval_strategy="steps", eval_steps=2)
    assert watched.losses == plain.losses
    evaluations = [entry for entry in watched.all if "eval_loss" in entry]
    assert len(evaluations) == 3
    assert all(entry["eval_tau"] >= 1 for entry in evaluations)


@pytest.mark.slow
def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    _, at_once = learn(tmp_path / "a", per_device_train_batch_size=4)
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    _, parts = learn(tmp_path / "b", **sizes)
    assert parts.losses == pytest.approx(at_once.losses, rel=1e-4)


def in_two(out: Path, method: str = METHOD, **changes: Any) -> list[str]:
    """What is typed for a training of three steps in two processes."""
    settings: dict[str, Any] = {
        "model_name_or_path": folder.llama(),
        "data_path": data(),
        "eval_data_path": data(),
        "output_dir": out,
        f"{method}_num_heads": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "per_device_train_batch_size": 2,
        "max_steps": 3,
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
        **changes,
    }
    return [str(part) for name, value in settings.items() for part in (f"--{name}", value)]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    two_processes.train(METHOD, *in_two(tmp_path / "two"))
    two = two_processes.losses(tmp_path / "two" / "checkpoint-3")
    evaluated = job(eval_data=str(data()))
    result, log = learn(tmp_path / "one", evaluated, per_device_train_batch_size=4, max_steps=3)
    assert two == pytest.approx(log.losses, rel=1e-4)
    info = json.loads((tmp_path / "two" / "drafter.json").read_text())
    assert result.metrics is not None
    for ours, theirs in zip(result.metrics.accuracy, info["accuracy"], strict=True):
        assert theirs == pytest.approx(ours, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_weights_sharded_over_two_processes_learn_the_same_and_go_on(
    method: str, tmp_path: Path
) -> None:
    """FSDP: what is measured, written and, by one method for all, resumed is whole."""
    fsdp = ["--fsdp", "full_shard"]
    typed = in_two(tmp_path / "sharded", method, save_steps=2)
    two_processes.train(method, *typed, *fsdp, sharded=True)
    last = tmp_path / "sharded" / "checkpoint-3"
    sharded = two_processes.losses(last)
    _, log = learn(tmp_path / "one", job(method), per_device_train_batch_size=4, max_steps=3)
    assert sharded == pytest.approx(log.losses, rel=1e-4)
    for name, weight in weights(tmp_path / "sharded").items():
        torch.testing.assert_close(weight, weights(tmp_path / "one")[name], rtol=0, atol=2e-2)
    if method != METHOD:  # a checkpoint is made of any heads alike
        return
    shutil.rmtree(last)
    two_processes.train(method, *typed, *fsdp, "--resume_from_checkpoint", "true", sharded=True)
    assert two_processes.losses(last) == sharded


def test_batches_with_nothing_to_learn_leave_the_heads_alone(tmp_path: Path) -> None:
    # Lazily, a conversation whose reply is beyond the maximum is an empty row.
    done, log = learn(tmp_path, job(lazy=True, max_length=8), max_steps=2, weight_decay=0.0)
    assert set(log.losses.values()) == {0.0}
    assert all(bool(weight.isfinite().all()) for weight in weights(tmp_path).values())
    assert done.metrics is not None
    assert done.metrics.label_count == 0


@pytest.mark.slow
def test_stopping_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    _, uninterrupted = learn(tmp_path / "a")
    answers = iter([False, True, True])
    result = train(job(), arguments(tmp_path / "b"), stop=lambda: next(answers))
    assert result.stopped
    assert result.folder == tmp_path / "b" / "checkpoint-2"
    assert not (tmp_path / "b" / "heads.safetensors").exists()
    _, later = learn(tmp_path / "b", resume_from_checkpoint="true")
    assert later.losses == {step: uninterrupted.losses[step] for step in (3, 4, 5, 6)}


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(what: Any, place: Any, *rest: Any, **options: Any) -> None:
        if "checkpoint-6" in str(place):
            raise OSError(28, "No space left on device")
        save(what, place, *rest, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NfoxError, match="checkpoint-3 is whole") as caught:
        learn(tmp_path)
    assert "--resume_from_checkpoint" in caught.value.hint
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3"]
    monkeypatch.undo()
    _, later = learn(tmp_path, resume_from_checkpoint="true")
    assert list(later.losses) == [4, 5, 6]


def test_where_to_go_on(tmp_path: Path) -> None:
    for step, state in ((4, "{}"), (20, "{}"), (30, '{"cut')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert resume_point(None, tmp_path) is resume_point("False", tmp_path) is None
    newest = tmp_path / "checkpoint-20"
    assert resume_point("True", tmp_path) == resume_point("20", tmp_path) == newest
    assert resume_point(str(newest), tmp_path / "else") == newest
    with pytest.raises(ModelError, match="no whole checkpoint") as caught:
        resume_point("30", tmp_path)
    assert "last whole one is checkpoint-20" in caught.value.hint
    with pytest.raises(UsageError, match="no such checkpoint"):
        resume_point(str(tmp_path / "absent"), tmp_path)
    with pytest.raises(UsageError, match="no checkpoint"):
        resume_point("true", tmp_path / "else")


@pytest.mark.parametrize("name", ["file", "file/heads"])
def test_an_output_folder_that_cannot_be_one_is_refused_before_anything_is_read(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"--output_dir .*{name}: .*file is no folder"):
        train(job(data=str(tmp_path / "nothing")), arguments(tmp_path / name))


def _copy(name: str, out: Path) -> None:
    """Put what lies beside the equipped model, or heads as they are published, into a folder."""
    if name == "published":
        beside = folder.equipped() / "nfox" / "medusa"
        words = [
            "export",
            "medusa",
            str(beside),
            "--out",
            str(out),
            "--base-model",
            str(folder.llama()),
        ]
        assert CliRunner().invoke(app, words).exit_code == 0
    elif name in ("draft", "cllm", "damaged"):
        out.mkdir()
        record = "{" if name == "damaged" else json.dumps({"method": name})
        (out / "training.json").write_text(record)
    else:
        shutil.copytree(folder.llama() if name == "model" else folder.equipped() / name, out)


@pytest.mark.parametrize(
    ("there", "trained", "words"),
    [
        ("nfox/medusa", "chimera", "medusa heads"),
        ("published", "ctc", "medusa heads"),
        ("nfox/ctc", "cllm", "ctc heads"),
        ("draft", "medusa", "a draft model"),
        ("cllm", "draft", "a model for Jacobi decoding"),
        ("model", "draft", "a model"),
        ("nfox/medusa", "medusa", ""),
        ("published", "medusa", ""),
        ("draft", "draft", ""),
        ("damaged", "medusa", ""),
    ],
)
def test_what_another_training_made_is_not_written_over(
    there: str, trained: str, words: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _copy(there, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    typed = ["--model", str(tmp_path / "absent"), "--output_dir", str(out)]  # nothing to load
    for named in ([], ["--data_path", "absent.json"])[not words :]:
        done = CliRunner().invoke(app, ["train", trained, *typed, *named])
        assert done.exit_code == (2 if words else 3), done.stderr
        assert (f"--output_dir {out} holds {words}, which" in done.stderr) is bool(words)
        assert (f"{out}-{trained}" in done.stderr) is bool(words)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_training_that_was_cut_while_it_wrote_its_model_goes_on(tmp_path: Path) -> None:
    _copy("model", tmp_path / "out")
    (tmp_path / "out" / "checkpoint-3").mkdir()
    check_output_folder(tmp_path / "out", "draft")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), training_disk_full(tmp_path):
        raise PermissionError(13, "no")


def test_measuring_says_what_is_proposed() -> None:
    target = tiny.target()
    text = [*tiny.PROMPT, *tiny.slow("llama", tiny.PROMPT, 12)]
    learner = HeadsLearner(tiny.make(METHOD).heads, target)  # type: ignore[attr-defined]
    rows: Any = [{"input_ids": text, "labels": text}]
    accuracy = learner.measure(rows, width=tiny.VOCABULARY)
    assert all(len(row) == tiny.VOCABULARY for row in accuracy.accuracy)
    assert accuracy.label_count == len(text)
    assert accuracy.tau() >= accuracy.tau(2) >= 1


@pytest.mark.parametrize("kind", ["t5", "mamba"])
def test_models_that_no_heads_draft_for_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder-decoder|recurrent"):
        learn(tmp_path, job(model=str(getattr(folder, kind)())))


def test_methods_without_heads_and_wrong_sizes_are_refused(tmp_path: Path) -> None:
    other = next(name for name in drafters.method_names() if name not in METHODS)
    with pytest.raises(UsageError, match="no heads to train"):
        learn(tmp_path, job(other))
    with pytest.raises(UsageError, match=f"--{METHOD}_num_heads"):
        learn(tmp_path, job(config={"num_heads": "many"}))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", ["num_heads", "num_layers"])
def test_sizes_that_nothing_has_are_refused_before_the_base_is_loaded(
    method: str, size: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"--{method}_{size}") as caught:
        learn(tmp_path, job(method, config={size: 0}, model="./absent"))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target_labels", [False, True])
def test_guesses_are_compared_with_the_data_whatever_is_learned(
    method: str, target_labels: bool
) -> None:
    target = tiny.target()
    heads: Any = tiny.make(method).heads  # type: ignore[attr-defined]
    ids = torch.tensor([[7 * i % 61 for i in range(20)]])
    learner = HeadsLearner(heads, target, target_labels=target_labels)
    _, data = HeadsLearner(heads, target)(ids, torch.ones_like(ids), ids)
    _, numbers = learner(ids, torch.ones_like(ids), ids)
    names = {name for name in data if "_top" in name and "_base" not in name}
    assert names
    assert {name: numbers[name] for name in names} == {name: data[name] for name in names}
    assert "head1_base_top1" in numbers or not target_labels
    if (
        target_labels and "head1_top5" in numbers
    ):  # its numbers are of the very guesses that are proposed
        right = measure_accuracy(
            heads, target, [learner.with_target_labels(learner.read(ids, ids))], 5
        )
        for depth, row in enumerate(right, 1):
            for rank in range(1, 6):
                logged = numbers[f"head{depth}_base_top{rank}"]
                assert logged == pytest.approx(sum(row[:rank]), abs=2e-3)


def test_a_dry_run_leaves_no_trace(tmp_path: Path) -> None:
    fields = {
        "config": {"num_heads": 2},
        "joint": JointTraining(base="lora", rank=4),
    }  # with dropout
    training_job = job(**fields)
    learner = training_job.learner(training_job.load())
    learner.eval()
    rows: Any = [{"input_ids": [*range(20, 40)], "labels": [*range(20, 40)]}] * 3
    before = {name: weight.clone() for name, weight in learner.state_dict().items()}
    dice = random.getstate(), torch.get_rng_state()
    seconds, memory = dry_run(learner, rows, 2)
    assert seconds > 0
    assert memory > 1e6
    assert random.getstate() == dice[0]
    assert torch.equal(torch.get_rng_state(), dice[1])
    assert not learner.training
    for name, weight in learner.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(weight.grad is None for weight in learner.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("going_on", [False, True])
def test_the_time_is_logged_before_the_first_step_and_changes_nothing(
    going_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, uninterrupted = learn(tmp_path / "a")
    point = str(tmp_path / "a" / "checkpoint-3") if going_on else None
    lines: list[str] = []
    settings = arguments(tmp_path / "b", resume_from_checkpoint=point)
    train(job(), settings, log=lines.append, stop=lambda: bool(lines.append("step")))
    position = next(index for index, line in enumerate(lines) if "one batch was tried" in line)
    assert position < lines.index("step")
    assert f"for {3 if going_on else 6} steps" in lines[position]
    monkeypatch.setattr(run_module, "dry_run", lambda *_: (0.0, 0))
    _, plain = learn(tmp_path / "c", resume_from_checkpoint=point)
    assert plain.losses == {n: loss for n, loss in uninterrupted.losses.items() if n > 3 * going_on}


def test_heads_beside_their_base_are_found_there(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(folder.llama(), base)
    learn(base / "nfox" / METHOD, job(model=str(base)), max_steps=1)
    from nfox.drafters.common.method import WeightSources

    assert drafters.method_class(METHOD).locate(str(base), WeightSources()) == str(
        base / "nfox" / METHOD
    )
