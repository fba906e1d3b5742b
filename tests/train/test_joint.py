"""Heads and their base learn together: what moves, what stays, and what is written."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder
import pytest
import tiny
import torch
from peft import PeftModel
from torch import Tensor
from training import FLOAT32, METHOD, METHODS, arguments, job, learn

from nfox.errors import UsageError
from nfox.files.atomic import read_tensors
from nfox.heads import checkpoint
from nfox.loader import load
from nfox.models.loading import load_model
from nfox.models.options import ModelOptions
from nfox.reply import Settings
from nfox.text.messages import Message
from nfox.train import sharding
from nfox.train.data.rows import collate
from nfox.train.heads.base_model import TrainedBase
from nfox.train.heads.job import heads_class
from nfox.train.heads.joint_training import JointTraining, schedule_factor
from nfox.train.trainer import LearnerTrainer

pytestmark = pytest.mark.slow

LORA = JointTraining(base="lora", rank=4)
DISTILLED = JointTraining(base="lora", rank=4, self_distillation=True)
WHOLE = JointTraining(base="whole")
ASKED = [Message("user", "a dog over the fox")]
IDS = [[7 * i % 301 for i in range(2, 30)], [5 * i % 299 for i in range(2, 21)]]


def batch(learned: Sequence[int] = (12, 9)) -> dict[str, Tensor]:
    """Return two texts, of which the last `learned` tokens are labels."""
    rows = [
        {"input_ids": ids, "labels": [-100] * (len(ids) - n) + ids[-n:]}
        for ids, n in zip(IDS, learned, strict=True)
    ]
    return collate(rows)


def make_learner(joint: JointTraining = LORA, method: str = METHOD) -> Any:
    """Return heads and a tiny base as they are before the first step."""
    torch.manual_seed(0)
    training_job = job(method, joint=joint)
    return training_job.learner(load_model(str(folder.llama()), FLOAT32))


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


def state(learner: Any) -> dict[str, Tensor]:
    return {name: w.detach().clone() for name, w in learner.target.model.state_dict().items()}


def step(learner: Any) -> dict[str, float]:
    """Take one step of plain gradient descent."""
    learner.train()
    loss, numbers = learner(**batch())
    loss.backward()
    torch.optim.SGD(learner.parameters(), lr=0.1).step()
    learner.zero_grad()
    return dict(numbers)


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_base_stays_bit_for_bit(method: str) -> None:
    learner = make_learner(JointTraining(), method)
    before, heads = state(learner), copy.deepcopy(learner.heads.state_dict())
    step(learner)
    assert not moved(before, state(learner))
    assert moved(heads, learner.heads.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_with_lora_adapters_and_heads_learn_and_the_bases_own_weights_stay(method: str) -> None:
    learner = make_learner(LORA, method)
    before, heads = state(learner), copy.deepcopy(learner.heads.state_dict())
    step(learner)
    step(learner)  # in the first one only one factor of each adapter has a gradient
    changed = moved(before, state(learner))
    adapters = {name for name in before if "lora_" in name}
    assert changed == adapters
    assert any("lm_head" in name for name in adapters)
    assert len(adapters) == 2 * (2 * 7 + 1)
    assert moved(heads, learner.heads.state_dict())


def test_the_whole_base_learns_where_it_is_asked_for() -> None:
    learner = make_learner(WHOLE)
    before = state(learner)
    step(learner)
    assert moved(before, state(learner)) == set(before)


def test_an_lm_head_that_is_the_embeddings_too_gets_no_adapter() -> None:
    target = load_model(str(folder.llama()), FLOAT32).target
    target.model.lm_head.weight = target.model.model.embed_tokens.weight
    TrainedBase(target, LORA)
    names = [name for name, _ in target.model.named_parameters() if "lora_" in name]
    assert names
    assert not any("lm_head" in name for name in names)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", [n for n, f in tiny.FAMILIES.items() if f.proposals == "trees"])
def test_what_is_written_and_merged_is_what_was_trained(family: str, tmp_path: Path) -> None:
    target = tiny.recast(family, torch.float32)
    target.model.requires_grad_(False)
    untrained = copy.deepcopy(target.model)
    ids = torch.tensor(IDS[0])[None] % tiny.VOCABULARY
    base = TrainedBase(target, LORA)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in base.weights:
            weight.copy_(0.1 * torch.randn_like(weight))
        adapted = target.unembed(target.hidden_states(ids))
        with base.without_adapters():
            before = target.unembed(target.hidden_states(ids))
        base.write(tmp_path, None, torch.float32)
        read = PeftModel.from_pretrained(untrained, tmp_path / "adapter")
        merged = read.merge_and_unload()(ids, use_cache=False).logits
        theirs = tiny.target(family).model(ids, use_cache=False).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(before, theirs.float(), rtol=1e-3, atol=1e-3)
    assert float((adapted - before).abs().max()) > 1e-2


def test_the_bases_loss_is_that_of_transformers() -> None:
    learner = make_learner()
    learner.eval()
    inputs = batch()
    with torch.no_grad():
        loss = learner.base_loss(learner.read(inputs["input_ids"], inputs["labels"]))
        theirs = learner.target.model(**inputs, use_cache=False).loss
    torch.testing.assert_close(loss, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
        ("linear", {0.0: 0.0, 0.25: 0.25, 1.0: 1.0}),
        ("sine", {0.0: 0.0, 1 / 3: 0.5, 0.5: math.sqrt(0.5), 1.0: 1.0}),
        ("sine_0.5", {0.0: 0.0, 1 / 6: 0.5, 0.5: 1.0, 0.75: 1.0}),
    ],
)
def test_schedules(schedule: str, values: dict[float, float]) -> None:
    for progress, value in values.items():
        assert schedule_factor(schedule, progress) == pytest.approx(value)


def test_the_published_weights_are_those_of_the_config_or_the_method_of_training() -> None:
    assert LORA.heads_weight(0.3) == 0.2
    assert DISTILLED.heads_weight(1.0) == 0.01
    assert DISTILLED.heads_weight(0.0) == 0.0
    typed = JointTraining(base="lora", heads_coefficient=0.4, scheduler="linear", lr_multiplier=2)
    assert typed.heads_weight(0.5) == 0.2
    settings = (typed, LORA, JointTraining())
    assert [joint.effective_lr_multiplier for joint in settings] == [2, 4, 1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scheduler": "cosine"}, "no schedule"),
        ({"scheduler": "sine_2"}, "no schedule"),
        ({"scheduler": "sine_x"}, "no schedule"),
        ({"heads_coefficient": -1.0}, "above 0"),
        ({"dropout": 1.0}, "dropout"),
        ({"base": "whole", "self_distillation": True}, "needs adapters"),
        ({"base": "frozen", "self_distillation": True}, "needs adapters"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        JointTraining(**{"base": "lora"} | changes)


@pytest.mark.parametrize("joint", [JointTraining(lr_multiplier=3.0), LORA, WHOLE])
def test_heads_have_a_learning_rate_of_their_own(joint: JointTraining, tmp_path: Path) -> None:
    learner = make_learner(joint)
    settings = arguments(tmp_path, learning_rate=1e-3, weight_decay=0.1)
    optimizer = LearnerTrainer(learner, settings, [{}]).create_optimizer()  # type: ignore[list-item, arg-type]
    heads = {id(weight) for weight in learner.heads.parameters()}
    rates: dict[bool, set[float]] = {True: set(), False: set()}
    seen = []
    for group in optimizer.param_groups:
        assert not group["weight_decay"] or all(w.dim() > 1 for w in group["params"])
        for weight in group["params"]:
            rates[id(weight) in heads].add(round(group["lr"], 9))
            seen.append(id(weight))
    assert rates[True] == {1e-3 * joint.effective_lr_multiplier}
    assert rates[False] == (set() if joint.base == "frozen" else {1e-3})
    assert sorted(seen) == sorted(map(id, learner.parameters()))


def test_the_divergence_is_nothing_at_the_start_and_so_is_its_gradient() -> None:
    learner = make_learner(DISTILLED)
    learner.train()
    inputs = batch()
    loss = learner.divergence(learner.read(inputs["input_ids"], inputs["labels"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    gradients = [weight.grad for weight in learner.trained_base.weights]
    assert all(gradient is not None for gradient in gradients)
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-4
    learner(**batch())[0].backward()  # the heads' loss counts nothing yet
    assert max(float(weight.grad.abs().max()) for weight in learner.trained_base.weights) < 1e-4


def test_the_divergence_counts_learned_places_only() -> None:
    learner = make_learner(DISTILLED)
    learner.progress = 1.0
    learner.joint = JointTraining(base="lora", self_distillation=True, heads_coefficient=50.0)
    step(learner)
    step(learner)
    learner.eval()
    inputs = batch()
    learned = inputs["labels"][:, 1:] != -100
    with torch.no_grad():
        adapted = learner.target.model(inputs["input_ids"], use_cache=False).logits[:, :-1]
        with learner.trained_base.without_adapters():
            original = learner.target.model(inputs["input_ids"], use_cache=False).logits[:, :-1]
        p, q = original.log_softmax(-1), adapted.log_softmax(-1)
        expected = (p.exp() * (p - q)).sum(-1)[learned].mean()
        divergence = learner.divergence(learner.read(inputs["input_ids"], inputs["labels"]))
    assert float(divergence) > 1e-3
    torch.testing.assert_close(divergence, expected, rtol=1e-3, atol=1e-6)


def test_a_batch_with_nothing_to_learn_costs_nothing() -> None:
    for joint in (LORA, DISTILLED):
        learner = make_learner(joint)
        inputs = batch()
        inputs["labels"] = torch.full_like(inputs["labels"], -100)
        loss, _ = learner(**inputs)
        loss.backward()
        assert float(loss.detach()) == 0


@pytest.mark.parametrize("joint", [LORA, DISTILLED, WHOLE])
def test_going_on_from_a_checkpoint_changes_nothing(joint: JointTraining, tmp_path: Path) -> None:
    _, uninterrupted = learn(tmp_path / "a", job(joint=joint))
    at_three = str(tmp_path / "a" / "checkpoint-3")
    _, later = learn(tmp_path / "b", job(joint=joint), resume_from_checkpoint=at_three)
    assert later.losses == {step: uninterrupted.losses[step] for step in (4, 5, 6)}
    logged = [entry for entry in uninterrupted.all if "base_loss" in entry]
    assert len(logged) == 6
    for entry in logged:
        weighed = entry["base_loss"] + entry["heads_weight"] * entry["heads_loss"]
        assert entry["loss"] == pytest.approx(weighed, abs=2e-4)


def test_a_finished_training_only_writes_its_results_again(tmp_path: Path) -> None:
    learn(tmp_path, job(joint=LORA))
    adapter = tmp_path / "adapter" / "adapter_model.safetensors"
    before = read_tensors(adapter)
    adapter.unlink()
    learn(tmp_path, job(joint=LORA), resume_from_checkpoint="true")
    assert not moved(before, read_tensors(adapter))


def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    joint = JointTraining(base="lora", rank=4, dropout=0.0)
    _, at_once = learn(tmp_path / "a", job(joint=joint), per_device_train_batch_size=4)
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    _, parts = learn(tmp_path / "b", job(joint=joint), **sizes)
    assert parts.losses == pytest.approx(at_once.losses, rel=1e-3)


def test_activations_computed_twice_change_nothing(tmp_path: Path) -> None:
    _, once = learn(tmp_path / "a", job(joint=LORA), max_steps=2)
    again = {"activation_checkpointing": True}
    _, twice = learn(tmp_path / "b", job(joint=LORA), max_steps=2, **again)
    assert twice.losses == pytest.approx(once.losses, rel=1e-4)
    learn(tmp_path / "c", job(), max_steps=1, **again)


@pytest.mark.parametrize("method", METHODS)
def test_adapter_and_heads_chat_losslessly(method: str, tmp_path: Path) -> None:
    done, log = learn(tmp_path, job(method, joint=LORA), max_steps=30, save_steps=99)
    losses = [entry["base_loss"] for entry in log.all if "base_loss" in entry]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert done.adapter == tmp_path / "adapter"
    about = checkpoint.read_info(str(tmp_path))
    assert about is not None
    assert about.base == str(folder.llama().resolve())
    assert about.training["joint"] | {"base": "lora", "rank": 4} == about.training["joint"]
    words = list(read_tensors(done.adapter / "adapter_model.safetensors"))
    assert all("lora_" in name for name in words)
    loading = ModelOptions(dtype="float32", device="cpu", adapter=str(done.adapter))
    settings = Settings(max_new_tokens=48)
    tree = tmp_path / "tree.json"
    tree.write_text("[[0], [1], [0, 0]]")  # the one that pays here depends on the machine
    heads = {"heads": str(tmp_path), "options": {"tree": str(tree)}}
    drafted = load(done.model, loading=loading, settings=settings, **heads)
    plain = load(done.model, method="none", loading=loading, settings=settings)
    assert drafted.method == method
    bare = load(done.model, method="none", loading=FLOAT32, settings=settings)
    replies = [chat.answer(ASKED) for chat in (drafted, plain, bare)]
    texts = [reply.text for reply in replies]
    assert texts[0] == texts[1] != texts[2]
    assert sum(replies[0].stats.tried) > 0
    assert len(replies[0].ids) > 2


def test_a_whole_base_is_written_beside_its_heads_and_found_by_them(tmp_path: Path) -> None:
    done, _ = learn(tmp_path, job(joint=WHOLE))
    assert (done.model, done.adapter) == (str(tmp_path / "base"), None)
    before = load_model(str(folder.llama()), FLOAT32).target.model.state_dict()
    after = load_model(done.model, FLOAT32).target.model.state_dict()
    assert moved(before, after) == set(before)
    assert load(str(tmp_path), loading=FLOAT32).model.name == done.model
    with pytest.raises(UsageError, match="4bit cannot be trained whole"):
        learn(tmp_path, job(joint=WHOLE, loading=ModelOptions(quantisation="4bit")))


def test_a_whole_base_is_computed_and_written_in_16_bit_and_learns_in_32(tmp_path: Path) -> None:
    loading = ModelOptions(dtype="bfloat16", device="cpu")
    done, log = learn(tmp_path, job(joint=WHOLE, loading=loading, target_labels=True), bf16=True)
    saved = read_tensors(tmp_path / "base" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    checkpoint = read_tensors(tmp_path / "checkpoint-6" / "model.safetensors")
    assert {weight.dtype for weight in checkpoint.values()} == {torch.float32}
    before = load_model(str(folder.llama()), FLOAT32).target.model.state_dict()
    assert not torch.equal(before["lm_head.weight"].bfloat16(), saved["lm_head.weight"])
    assert all(math.isfinite(loss) for loss in log.losses.values())
    assert done.metrics is not None


def test_adapters_learn_on_a_4_bit_base(tmp_path: Path) -> None:
    loading = ModelOptions(dtype="bfloat16", quantisation="4bit", device="cpu")
    done, log = learn(tmp_path, job(joint=DISTILLED, loading=loading), max_steps=3, bf16=True)
    assert done.adapter is not None
    weights = read_tensors(done.adapter / "adapter_model.safetensors")
    assert any(bool(w.any()) for name, w in weights.items() if "lora_B" in name)
    first = next(entry for entry in log.all if "base_loss" in entry)
    assert first["base_loss"] == pytest.approx(0, abs=1e-3)


def dense(model: Any) -> None:
    """Put the weights that 4 bit layers stand for into their places."""
    from bitsandbytes.nn import Linear4bit

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear4bit):
            one_each = torch.eye(layer.in_features, dtype=torch.bfloat16)
            linear = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            linear.weight = torch.nn.Parameter(layer(one_each).T.detach().clone(), False)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, linear)


def test_gradients_on_a_4_bit_base_are_those_of_its_weights() -> None:
    pytest.importorskip("bitsandbytes")
    loading = ModelOptions(dtype="bfloat16", quantisation="4bit", device="cpu")
    training_job = job(joint=JointTraining(base="lora", rank=4, dropout=0.0), loading=loading)
    loaded = training_job.load()
    target, learner = loaded.target, training_job.learner(loaded)
    torch.manual_seed(1)
    gradients = []
    adapters = [(n, w) for n, w in target.model.named_parameters() if "lora_" in n]
    for name, weight in adapters:
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn_like(weight))
    with torch.no_grad():
        learner.eval()(**batch())  # at which bitsandbytes would pack the weights
    for change in (lambda model: None, dense):
        change(target.model)
        learner.train()
        learner.zero_grad()
        learner(**batch())[0].backward()
        gradients.append([weight.grad.flatten().clone() for _, weight in adapters])
    assert len(adapters) == 2 * (2 * 7 + 1)
    for (name, _), one, other in zip(adapters, *gradients, strict=True):
        assert float(torch.cosine_similarity(one, other, dim=0)) > 0.99, name


def test_heads_are_gone_on_with(tmp_path: Path) -> None:
    learn(tmp_path / "one", max_steps=20, save_steps=99)
    _, again = learn(tmp_path / "two", job(heads=str(tmp_path / "one"), config={}))
    _, anew = learn(tmp_path / "three")
    assert again.losses[1] < anew.losses[1]
    about = checkpoint.read_info(str(tmp_path / "two"))
    assert about is not None
    assert about.config["num_heads"] == 2
    assert about.training["heads"] == str(tmp_path / "one")
    _, joint = learn(tmp_path / "four", job(heads=str(tmp_path / "one"), config={}, joint=LORA))
    first = next(entry for entry in joint.all if "heads_loss" in entry)
    assert first["heads_loss"] == pytest.approx(again.losses[1], rel=0.1)
    with pytest.raises(UsageError, match="made with another num_heads") as caught:
        learn(tmp_path / "five", job(heads=str(tmp_path / "one"), config={"num_heads": 7}))
    assert f"leave --{METHOD}_num_heads out" in caught.value.hint


def test_sharded_weights_of_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(UsageError, match="ZeRO-3"):
        learn(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="FSDP is for heads"):
        learn(tmp_path, job(joint=LORA), fsdp=True)


PUBLISHED = {
    "adapter": "qlora",
    "lora_r": 4,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "load_in_4bit": True,
    f"{METHOD}_num_heads": 2,
    f"{METHOD}_num_layers": 1,
    f"{METHOD}_heads_coefficient": 0.2,
    f"{METHOD}_logging": True,
    f"{METHOD}_scheduler": "constant",
    f"{METHOD}_lr_multiplier": 4.0,
}


def parsed_joint(tmp_path: Path, *more: object, **changes: object) -> JointTraining:
    """Return the joint training that a config file and typed settings describe."""
    from nfox.cli.train.arguments import parse

    config = tmp_path / "config.yaml"
    config.write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in (PUBLISHED | changes).items()))
    needed = ["--model_name_or_path", "x", "--data_path", "y", "--output_dir", str(tmp_path)]
    training_job, *_ = parse(METHOD, [str(config), *needed, *map(str, more)], "")
    return training_job.joint


def test_published_keys_are_read(tmp_path: Path) -> None:
    second = parsed_joint(tmp_path)
    assert second == JointTraining("lora", False, 0.2, "constant", 4.0, 4, 16, 0.05)
    first = parsed_joint(tmp_path, f"--{METHOD}_only_heads", True)
    assert (first.base, first.effective_lr_multiplier) == ("frozen", 4.0)
    itself = parsed_joint(
        tmp_path, **{f"{METHOD}_self_distillation": True, f"{METHOD}_scheduler": None}
    )
    assert (itself.self_distillation, itself.effective_schedule) == (True, "sine")
    whole = parsed_joint(tmp_path, "--full_weights", True, adapter=None, load_in_4bit=False)
    assert whole.base == "whole"
    assert parsed_joint(tmp_path, adapter=None).base == "frozen"
    assert parsed_joint(tmp_path, f"--{METHOD}_only_heads", False, adapter=None).base == "lora"


def test_the_decay_has_its_published_name(tmp_path: Path) -> None:
    from nfox.cli.train.arguments import parse

    configs = {m: heads_class(m).heads_class.Config for m in METHODS}
    method = next(m for m in METHODS if "decay" in configs[m].model_fields)
    needed = ["--model_name_or_path", "x", "--data_path", "y", "--output_dir", str(tmp_path)]
    training_job, *_ = parse(method, [*needed, f"--{method}_decay_coefficient", "0.7"], "")
    assert training_job.config["decay"] == 0.7


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({f"{METHOD}_num_unfreeze_layers": 2}, "num_unfreeze_layers"),
        ({f"{METHOD}_distillation_regularization": 0.1}, "self_distillation"),
        ({f"{METHOD}_scheduler": "cosine"}, "no schedule"),
        ({f"{METHOD}_only_heads": True, f"{METHOD}_self_distillation": True}, "needs adapters"),
        ({"full_weights": True}, "either"),
        ({"load_in_4bit": False}, "load_in_4bit"),
    ],
)
def test_what_cannot_be_done_is_said(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parsed_joint(tmp_path, **changes)
    assert text in f"{caught.value.message} {caught.value.hint}"


def test_frequent_tokens_are_counted_where_the_base_is_trained_too() -> None:
    learner = make_learner()
    learner.eval()
    learner(**batch())
    assert learner.frequent_tokens() == []
    learner.train()
    learner(**batch())
    assert learner.frequent_tokens() == sorted({*IDS[0][-12:], *IDS[1][-9:]})
