"""Consistency training: its losses are the paper's, whatever is read at once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import folder
import pytest
import tiny
import torch
import training
import two_processes
from torch import Tensor
from torch.nn.functional import cross_entropy
from training import FLOAT32, Log, arguments
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.decoding.generate import Limits, Prompt
from nfox.drafters.jacobi import Jacobi
from nfox.errors import UsageError
from nfox.files.atomic import read_tensors
from nfox.loader import load
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions, Quantisation
from nfox.models.transformers_target import TransformersTarget
from nfox.reply import Settings
from nfox.text.messages import Message
from nfox.train.cllm import branch_attention
from nfox.train.cllm.answers import AnswerSet
from nfox.train.cllm.blocks import blocks
from nfox.train.cllm.branch_attention import BranchedBatch, BranchedText
from nfox.train.cllm.job import ConsistencyJob
from nfox.train.cllm.learner import ConsistencyLearner
from nfox.train.cllm.rows import Row, TrajectoryRows, collate
from nfox.train.cllm.trajectories import Trajectory
from nfox.train.heads.joint_training import JointTraining
from nfox.train.job import TrainingResult
from nfox.train.run import train

WHOLE = JointTraining(base="whole")
N = 5


def trajectories(target: Any, prompt: tuple[int, ...], count: int, name: str) -> list[Trajectory]:
    """Return the trajectories of an answer of `count` blocks, with another answer as labels."""
    text, decoded = list(prompt), []
    for number, block in enumerate(
        blocks(target, Prompt(tuple(prompt)), N, Limits(count * N), seed=len(name))
    ):
        states = [list(state) for state in block.states]
        decoded.append((number, list(text), states))
        text += block.tokens
    labels = [*prompt, 3, 1, 4, 1, 5]
    return [Trajectory(name, n, len(prompt), p, s, text, labels) for n, p, s in decoded]


@cache
def two_answers(family: str = "llama") -> tuple[Trajectory, ...]:
    """Return the trajectories of two answers."""
    target = tiny.target(family)
    first = trajectories(target, tiny.PROMPT, 3, "a")
    return (*first, *trajectories(target, tiny.PROMPT[2:6], 2, "bb"))


def rows(
    stop_ids: tuple[int, ...] = (),
    length: int = 99,
    of: Sequence[Trajectory] | None = None,
    **options: bool,
) -> TrajectoryRows:
    return TrajectoryRows(AnswerSet(of or two_answers(), stop_ids, length, **options))


def make_learner(family: str = "llama", weight: float = 10.0) -> ConsistencyLearner:
    target = tiny.recast(family, tiny.FAMILIES[family].dtype)
    return ConsistencyLearner(target, WHOLE, target.dtype, weight)


def log_probs(model: Any, tokens: Any) -> Tensor:
    """Return [T, V] log-probabilities after each token, from a forward of its own."""
    logits: Tensor = model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
    return logits.log_softmax(-1)


def literal(model: Any, drawn: list[tuple[Trajectory, int]], *, local: bool, given: bool) -> Tensor:
    """Return the loss of blocks, each with the state that was drawn, as the paper writes it."""
    losses = []
    for trajectory, j in drawn:
        state, better = trajectory.states[j], trajectory.states[j + 1 if local else -1]
        start = len(trajectory.prompt)
        first = next(i for i in range(N) if state[i] != better[i])
        with torch.no_grad():
            p = log_probs(model, [*trajectory.prompt, *better])
        q = log_probs(model, [*trajectory.prompt, *state])
        positions = range(start + first, start + N)
        kl = [(p[i - 1].exp() * (p[i - 1] - q[i - 1])).sum() for i in positions]
        text = torch.tensor(list(trajectory.labels or ()) if given else list(trajectory.complete))
        length = trajectory.question_length
        ar = cross_entropy(log_probs(model, text.tolist())[length - 1 : -1], text[length:])
        losses.append(sum(kl) / len(kl) + 10 * ar)
    return torch.stack(losses).mean()


def drawn(data: TrajectoryRows, *, local: bool) -> list[tuple[Trajectory, int]]:
    """Return for each block the index of the state that was drawn, read off the rows' nodes."""
    chosen = []
    for index in range(len(data)):
        row = data[index]
        answer = [t for t in two_answers() if tuple(t.complete) == tuple(row.text.trunk)]
        for number, trajectory in enumerate(answer):
            positions = [i for i, b in enumerate(row.block) if b == number]
            if positions:
                chosen.append((trajectory, _which(trajectory, row, positions, local)))
    return chosen


def _which(trajectory: Trajectory, row: Row, positions: list[int], local: bool) -> int:
    """Return the index of the state whose tokens are at some nodes."""
    for j, state in enumerate(trajectory.states[:-1]):
        better = trajectory.states[j + 1] if local else trajectory.states[-1]
        if state == better:
            continue
        first = next(i for i in range(N) if state[i] != better[i])
        node_ids = [row.text.ids[row.student_nodes[position]] for position in positions[1:]]
        if len(positions) == N - first and list(state[first:-1]) == node_ids:
            return j
    raise AssertionError("no such state")


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_the_loss_and_its_gradients_are_those_of_the_paper(local: bool, given: bool) -> None:
    learner = make_learner()
    for epoch in range(2):
        data = rows(local=local, dataset_answers=given)
        data.set_epoch(epoch)
        chosen = drawn(data, local=local)
        assert len(chosen) == data.block_count == 5
        loss, numbers = learner(**collate([data[0], data[1]]))
        expected = literal(learner.target.model, chosen, local=local, given=given)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-8)
        assert numbers["consistency"] > 0
        ours = torch.autograd.grad(loss, learner.trained_base.weights)
        theirs = torch.autograd.grad(expected, learner.trained_base.weights)
        for gradient, reference in zip(ours, theirs, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "qwen2-mixed", "bloom"])
def test_texts_read_at_once_are_those_read_one_by_one(family: str) -> None:
    target = tiny.target(family)
    texts = []
    for seed in range(2):
        dice = random.Random(seed)
        text = BranchedText([dice.randrange(60) for _ in range(14 + 5 * seed)])
        for start in (3, 9, 9):
            text.add(start, [*text.trunk[start : start + 2], *dice.choices(range(60), k=4)])
        texts.append(text)
    batch = BranchedBatch.of(texts)
    with torch.no_grad():
        hidden = branch_attention.read(target, batch)
        slow = branch_attention._read_branches_apart(target, batch, batch.positions_and_mask()[1])
    there = batch.branch >= 0
    torch.testing.assert_close(hidden[there], slow[there], rtol=1e-4, atol=1e-5)
    assert torch.equal(batch.positions_and_mask()[0][0, :14], torch.arange(14))


def test_a_branch_is_read_from_where_it_leaves_the_text() -> None:
    text = BranchedText([1, 2, 3, 4, 5, 6])
    assert text.add(2, [3, 4, 9, 8, 7]) == [1, 2, 3, 6, 7]
    assert (text.ids[6:], text.prefix_length[6:], text.branch[6:]) == ([9, 8], [4, 4], [1, 1])
    assert text.add(2, [3, 4, 5, 6]) == [1, 2, 3, 4]
    assert text.add(6, [7, 8]) == [5, 8]
    assert text.branch[8:] == [2]


def test_what_stands_behind_the_end_of_the_answer_counts_nothing() -> None:
    first = two_answers()[0]
    final = list(first.states[-1])
    position = max(map(final.index, final[:-1]))
    end, tokens = final[position], [*first.prompt, *final[: position + 1]]
    learner = make_learner()
    cut = AnswerSet(two_answers()[:3], (end,), 99)
    assert cut.left_out == 2
    row = TrajectoryRows(cut)[0]
    assert list(row.text.trunk) == tokens
    changed = [
        [*state[: position + 1], *((token + 1) % 60 for token in state[position + 1 :])]
        for state in first.states
    ]
    other = Trajectory("a", 0, first.question_length, first.prompt, changed, ())
    loss, _ = learner(**collate([row]))
    same, _ = learner(**collate([rows((end,), of=[other])[0]]))
    assert float(loss.detach()) == pytest.approx(float(same.detach()), rel=1e-12)
    text = torch.tensor(tokens)
    ar = cross_entropy(
        log_probs(learner.target.model, tokens)[first.question_length - 1 : -1],
        text[first.question_length :],
    )
    assert learner(**collate([row]))[1]["ar"] == pytest.approx(float(ar.detach()), rel=1e-6)


def test_a_block_without_a_wrong_state_counts_its_text_alone() -> None:
    trajectory = two_answers()[0]
    converged = replace(trajectory, data_id="x", states=trajectory.states[-1:], complete=())
    loss, numbers = make_learner(weight=1.0)(**collate([rows(of=[converged])[0]]))
    assert numbers["consistency"] == 0
    assert float(loss.detach()) == pytest.approx(numbers["ar"])


def test_states_drawn_depend_on_the_row_and_the_epoch_only() -> None:
    data, same_data = rows(), rows()
    assert [data[i].student_nodes for i in (0, 1)] == [same_data[i].student_nodes for i in (0, 1)]
    texts = set()
    for epoch in range(8):
        data.set_epoch(epoch)
        texts.add(tuple(data[0].text.ids))
    assert len(texts) > 2


@cache
def data() -> Path:
    """Write trajectories of the tiny model with labels, and return the file."""
    target = load_model(str(folder.llama()), FLOAT32).target
    dice, lines = random.Random(1), []
    for number in range(8):
        prompt = tuple(dice.randrange(2, 300) for _ in range(dice.randint(3, 9)))
        for trajectory in trajectories(target, prompt, 2, f"data_{number}"):
            lines.append(json.dumps(trajectory.record()))
    path = Path(mkdtemp(prefix="nfox-trajectories-")) / "own.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def job(**changes: Any) -> ConsistencyJob:
    fields = {"method": "cllm", "model": str(folder.llama()), "data": str(data())}
    return ConsistencyJob(**{**fields, "loading": FLOAT32, **changes})


def learn(
    out: Path, training_job: ConsistencyJob | None = None, **changes: Any
) -> tuple[TrainingResult, Log]:
    log = Log()
    settings = {"learning_rate": 1e-3, **changes}
    return train(training_job or job(), arguments(out, **settings), callbacks=[log]), log


LORA = JointTraining(base="lora", rank=4)


@pytest.mark.slow
@pytest.mark.parametrize("joint", [WHOLE, LORA])
def test_going_on_from_a_checkpoint_changes_nothing(joint: JointTraining, tmp_path: Path) -> None:
    _, uninterrupted = learn(tmp_path / "a", job(joint=joint))
    at_three = str(tmp_path / "a" / "checkpoint-3")
    _, later = learn(tmp_path / "b", job(joint=joint), resume_from_checkpoint=at_three)
    assert later.losses == {step: uninterrupted.losses[step] for step in (4, 5, 6)}


@pytest.mark.slow
def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    _, at_once = learn(tmp_path / "a", per_device_train_batch_size=4)
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    _, parts = learn(tmp_path / "b", **sizes)
    assert parts.losses == pytest.approx(at_once.losses, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, "4bit"])
@pytest.mark.parametrize("joint", [WHOLE, LORA])
def test_activations_computed_twice_change_nothing(
    joint: JointTraining, bits: Quantisation | None, tmp_path: Path
) -> None:
    """Also of a 4 bit base, where nothing reached the adapters of the published program."""
    if bits and joint is WHOLE:
        pytest.skip("4 bit weights cannot be trained")
    training_job = job(joint=joint, loading=replace(FLOAT32, quantisation=bits))
    _, once = learn(tmp_path / "kept", training_job, max_steps=3)
    done, again = learn(
        tmp_path / "twice", training_job, max_steps=3, activation_checkpointing=True
    )
    assert again.losses == pytest.approx(once.losses, rel=1e-4)
    if done.adapter is not None:
        written = read_tensors(done.adapter / "adapter_model.safetensors")
        assert all(bool(weight.any()) for name, weight in written.items() if "lora_B" in name)


@pytest.mark.slow
@pytest.mark.parametrize("joint", [WHOLE, JointTraining(base="lora", rank=8, dropout=0.0)])
def test_a_batch_that_is_learned_by_heart_is_iterated_faster(
    joint: JointTraining, tmp_path: Path
) -> None:
    rate = 1e-3 if joint.base == "whole" else 1e-2
    settings = {"learning_rate": rate, "per_device_train_batch_size": 8, "max_steps": 60}
    done, log = learn(tmp_path, job(joint=joint), save_steps=99, **settings)
    logged = [entry for entry in log.all if "consistency" in entry]
    for name in ("consistency", "ar", "loss"):
        assert sum(e[name] for e in logged[-5:]) < 0.6 * sum(e[name] for e in logged[:5])
    assert sum(e["forward"] for e in logged[-5:]) > sum(e["forward"] for e in logged[:5])
    loading = ModelOptions(dtype="float32", device="cpu", adapter=_text(done.adapter))
    settings_of = Settings(max_new_tokens=16)
    ask = [Message("user", "a dog over the fox")]
    texts = [
        "".join(
            piece.text
            for piece in load(
                done.model, method=method, loading=loading, settings=settings_of
            ).stream(ask)
        )
        for method in ("jacobi", "none")
    ]
    assert texts[0] == texts[1]
    about = json.loads((tmp_path / "training.json").read_text())
    assert (about["method"], about["training"]["n"]) == ("cllm", N)
    assert about["base"] == str(folder.llama().resolve())
    assert about["training"]["consistency"] == pytest.approx(done.metrics.values()["consistency"])


@pytest.mark.slow
def test_a_trained_model_iterates_to_its_own_greedy_text(tmp_path: Path) -> None:
    """In float64, by window and pool, against transformers' own decoding, far beyond its data."""
    joint = JointTraining(base="lora", rank=8, dropout=0.0)
    done, _ = learn(tmp_path, job(joint=joint), max_steps=8, learning_rate=1e-2, save_steps=99)
    options = ModelOptions(dtype="float32", device="cpu", adapter=_text(done.adapter))
    model = load_model(done.model, options).target.model.double()
    model.generation_config.eos_token_id = None
    target = TransformersTarget(model)
    for prompt in ([5, 6, 7, 8], [11, 3, 200, 4, 9, 17], list(range(40, 60))):
        ids = torch.tensor([prompt])
        expected = model.generate(ids, max_new_tokens=60, do_sample=False)[0, len(prompt) :]
        for drafter in (Jacobi(N), Jacobi(3, 4, 3), Jacobi(4, 3, 2, takes_trees=False)):
            steps = tiny.run(target, drafter, prompt, max_tokens=60)
            assert tiny.text(steps) == expected.tolist()


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def test_a_checkpoint_holds_adapters_and_not_the_model(tmp_path: Path) -> None:
    done, _ = learn(tmp_path, job(joint=LORA), max_steps=1, save_steps=1)
    saved = read_tensors(tmp_path / "checkpoint-1" / "model.safetensors")
    assert len(saved) == 2 * (2 * 7 + 1)
    assert done.adapter == tmp_path / "adapter"
    written = read_tensors(done.adapter / "adapter_model.safetensors")
    assert len(written) == len(saved)


def test_with_qlora_the_base_is_in_4_bit_and_gradients_reach_the_adapters(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit

    from nfox.cli.train.arguments import parse

    needed = ["--target_model_path", str(folder.llama()), "--data_path", str(data())]
    words = [*needed, "--output_dir", str(tmp_path), "--qlora", "--use_cpu"]
    training_job, *_ = parse("cllm", words, "")
    loaded = training_job.load()
    learner: Any = training_job.learner(loaded)
    kinds = [m for m in loaded.target.model.modules() if isinstance(m, Linear4bit)]
    assert len(kinds) == 2 * 7
    named = {n: w for n, w in loaded.target.model.named_parameters() if "lora_" in n}
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in named.items():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn_like(weight))
    data_rows = training_job.rows(str(data()), loaded, lambda line: None, lazy=False)
    learner.train()
    learner(**collate([data_rows[0], data_rows[1]]))[0].backward()
    assert all(w.grad is not None and float(w.grad.abs().max()) > 0 for w in named.values())
    assert sorted(map(id, learner.parameters())) == sorted(map(id, named.values()))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def typed(out: Path, **changes: object) -> list[str]:
    settings = {"target_model_path": folder.llama(), "data_path": data(), "output_dir": out,
                "max_steps": 2, "use_cpu": True, "bf16": False, "logging_steps": 1,
                "save_steps": 99, **changes}  # fmt: skip
    return [str(part) for name, value in settings.items() for part in (f"--{name}", value)]


def test_the_published_flags_train_and_the_command_to_use_it_is_printed(tmp_path: Path) -> None:
    flags = {"max_new_tokens": N, "use_gt_labels": True, "model_max_length": 200, "adapter": "lora",
             "lazy_preprocess": True, "report_to": "none", "num_train_epochs": 1,
             "gradient_checkpointing": True, "weight_decay": "0.", "eval_data_path": data(),
             "warmup_ratio": 0.03, "lr_scheduler_type": "cosine"}  # fmt: skip
    done = run("train", "cllm", *typed(tmp_path, **flags))
    assert done.exit_code == 0, done.stderr
    assert "8 answers, 16 blocks of 5 tokens" in done.stderr
    assert "not used: --lazy_preprocess" in done.stderr
    assert "step 2: eval loss" in done.stderr
    adapter = tmp_path / "adapter"
    assert f"nfox --model {folder.llama()} --adapter {adapter} --method jacobi" in done.stdout
    about = json.loads((tmp_path / "training.json").read_text())
    assert about["training"]["answers"] == "data"
    assert "train cllm" in about["training"]["command"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_new_tokens": 16}, "--max_new_tokens is 16"),
        ({"data_path": "UNLABELLED", "use_gt_labels": True}, "no labels_ids"),
        ({"model_max_length": 2}, "raise --model_max_length"),
        ({"ar_weight": -1}, "below 0"),
        ({"qlora": True, "load_in_8bit": True}, "4 bit"),
        ({"load_in_4bit": True}, "trained whole"),
        ({"fsdp": "full_shard auto_wrap"}, "ZeRO-2"),
        ({"data_path": "CONVERSATIONS"}, "no Jacobi trajectory"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    records = [json.loads(line) for line in data().read_text().splitlines()]
    bare.write_text("\n".join(json.dumps({**r, "labels_ids": None}) for r in records))
    files = {"UNLABELLED": bare, "CONVERSATIONS": training.data()}
    changes = {name: files.get(value, value) for name, value in changes.items()}
    done = run("train", "cllm", *typed(tmp_path / "out", **changes))
    assert done.exit_code == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Also in the second epoch, when other states are drawn."""
    settings = {"learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 0,
                "per_device_train_batch_size": 2, "max_steps": 4,
                "eval_data_path": data()}  # fmt: skip
    two_processes.train("cllm", *typed(tmp_path / "two", **settings))
    two = two_processes.losses(tmp_path / "two" / "checkpoint-4")
    seen = job(eval_data=str(data()))
    result, log = learn(tmp_path / "one", seen, per_device_train_batch_size=4, max_steps=4)
    assert two == pytest.approx(log.losses, rel=1e-3)
    record = json.loads((tmp_path / "two" / "training.json").read_text())["training"]
    assert record["loss"] == pytest.approx(result.metrics.loss, rel=1e-3)


def test_blocks_of_published_sets_without_the_whole_answer_are_learned() -> None:
    trajectory = two_answers()[0]
    incomplete = replace(trajectory, data_id="x", complete=[1, 2, 3])
    assert list(rows(of=[incomplete])[0].text.trunk) == [*trajectory.prompt, *trajectory.states[-1]]
    with pytest.raises(UsageError, match="within the first 5 tokens"):
        rows((), 5, [incomplete])
