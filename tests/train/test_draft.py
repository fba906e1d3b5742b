"""Draft models learn their target's distribution, and how good they are is what the engine sees."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import folder
import pytest
import tiny
import torch
import training
import two_processes
from torch import Tensor
from training import FLOAT32, Log, arguments
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.decoding.costs import Costs
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.drafters.spec import Speculative
from nfox.errors import ModelError, UsageError
from nfox.files.atomic import read_tensors
from nfox.models.loading import load_model
from nfox.train.draft.distillation import Distillation, divergence
from nfox.train.draft.job import DraftJob, DraftSizes
from nfox.train.draft.learner import DraftLearner, collate
from nfox.train.job import TrainingResult
from nfox.train.run import train

pytestmark = pytest.mark.slow

KINDS = ("forward", "reverse", "tv")
TEXTS = [[7 * i % 61 for i in range(20)], [5 * i % 59 for i in range(11)]]


def batch(texts: Any = TEXTS, learned: int = 6, first: int = 0) -> dict[str, Tensor]:
    """Return texts of which the last `learned` tokens are labels."""
    return collate(
        [
            {
                "input_ids": ids,
                "labels": [-100] * (len(ids) - learned) + ids[-learned:],
                "number": first + number,
            }
            for number, ids in enumerate(texts)
        ]
    )


def make_learner(**options: Any) -> DraftLearner:
    """Return a tiny pair in float64."""
    draft = tiny.recast("llama", torch.float64)
    draft.model.load_state_dict(tiny.draft().model.state_dict())
    return DraftLearner(draft, tiny.target(), Distillation(**options))


def literal(kind: str, p: Tensor, q: Tensor) -> float:
    """Return the divergence of two distributions, summed token by token."""
    if kind == "tv":
        return sum(abs(float(a) - float(b)) for a, b in zip(p, q, strict=True)) / 2
    first, second = (p, q) if kind == "forward" else (q, p)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return sum(a * (math.log(a) - math.log(b)) for a, b in pairs)


def distributions(learner: DraftLearner) -> list[tuple[Tensor, Tensor]]:
    """Return the distributions of target and draft model before each label, text by text."""
    pairs = []
    with torch.no_grad():
        for ids in TEXTS:
            probabilities = [
                model.model(torch.tensor([ids]), use_cache=False).logits[0].softmax(-1)
                for model in (learner.target, learner.student)
            ]
            positions = range(len(ids) - 7, len(ids) - 1)
            pairs += [
                (probabilities[0][i].double(), probabilities[1][i].double()) for i in positions
            ]
    return pairs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_is_the_mean_divergence_at_the_learned_positions(kind: str, weight: float) -> None:
    learner = make_learner(divergence=kind, top1_weight=weight)
    pairs = distributions(learner)
    expected = [
        literal(kind, p, q) - weight * math.log(float(q[int(p.argmax())])) for p, q in pairs
    ]
    loss, numbers = learner(**batch())
    assert float(loss.detach()) == pytest.approx(sum(expected) / len(pairs), rel=1e-6)
    accepted = [float(torch.minimum(p, q).sum()) for p, q in pairs]
    assert numbers["alpha"] == pytest.approx(sum(accepted) / len(pairs), rel=1e-6)
    agreed = [int(p.argmax()) == int(q.argmax()) for p, q in pairs]
    assert numbers["agreement"] == pytest.approx(sum(agreed) / len(pairs))


@pytest.mark.parametrize("kind", KINDS)
def test_cached_probabilities_are_those_of_some_tokens_and_of_all_others_together(
    kind: str,
) -> None:
    learner = make_learner(divergence=kind, cached_top_k=5)
    expected = []
    for p, q in distributions(learner):
        few = p.topk(5).indices
        coarse = [torch.cat([d[few], 1 - d[few].sum()[None]]) for d in (p, q)]
        expected.append(literal(kind, *coarse))
    learner.train()
    loss, _ = learner(**batch())
    # The cache is in 16 bit.
    assert float(loss.detach()) == pytest.approx(sum(expected) / len(expected), rel=1e-2)


def test_with_cached_probabilities_later_epochs_compute_no_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = make_learner(cached_top_k=5)
    learner.train()
    computed, _ = learner(**batch())
    monkeypatch.setattr(learner.target, "hidden_states", None)
    cached, _ = learner(**batch())
    assert torch.equal(computed, cached)
    single = [learner(**batch(TEXTS[i : i + 1], first=i))[0] for i in (0, 1)]
    torch.testing.assert_close(sum(single) / 2, computed)


def test_all_tokens_cached_are_the_whole_distribution() -> None:
    uncached, cached = make_learner(), make_learner(cached_top_k=tiny.VOCABULARY - 1)
    cached.train()
    loss, _ = uncached(**batch())
    torch.testing.assert_close(cached(**batch())[0], loss, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_lead_to_the_target(kind: str) -> None:
    torch.manual_seed(0)
    p = torch.randn(4, 9, dtype=torch.float64).log_softmax(-1)
    assert divergence(p, p, kind).abs().max() < 1e-12  # type: ignore[arg-type]
    logits = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        divergence(p, logits.log_softmax(-1), kind).sum().backward()  # type: ignore[arg-type]
        optimizer.step()
    assert float((p.exp() - logits.detach().softmax(-1)).abs().max()) < 0.03


def drafted_positions(steps: Any, prompt: Any) -> tuple[list[int], list[int], float]:
    """Return a text, the positions of drafted tokens in it, and the share that was accepted."""
    text, drafted, accepted = list(prompt), [], 0
    for step in steps:
        if len(step.tree) == 2:
            drafted.append(len(text))
            accepted += step.sources[0] == "accepted"
        text += step.tokens
    return text, drafted, accepted / len(drafted)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_measured_is_what_the_engine_accepts(temperature: float) -> None:
    learner = make_learner()
    drafter = Speculative(tiny.draft(), tiny.VOCABULARY, gamma=1)
    rule = make_rule("rejection", sampling=Sampling(temperature=temperature, seed=3))
    steps = tiny.run(tiny.target(), drafter, tiny.PROMPT, rule=rule, max_tokens=200)
    text, drafted, rate = drafted_positions(steps, tiny.PROMPT)
    labels = [text[i] if i in drafted else -100 for i in range(len(text))]
    metrics: Any = learner.measure([{"input_ids": text, "labels": labels, "number": 0}])  # type: ignore[arg-type]
    assert metrics.label_count == len(drafted) > 90
    if temperature:  # four standard deviations of so many draws
        alpha = metrics.others["alpha"]
        assert rate == pytest.approx(alpha, abs=4 * math.sqrt(alpha * (1 - alpha) / len(drafted)))
    else:
        assert rate == pytest.approx(metrics.others["agreement"])


def test_vocabularies_of_other_sizes_are_cut_to_what_both_have() -> None:
    target = tiny.target()
    small = tiny.target("llama", vocab_size=tiny.VOCABULARY - 3)
    for pair in ((small, target), (target, small)):
        learner = DraftLearner(*pair, Distillation())
        texts = [[i % 60 for i in ids] for ids in TEXTS]
        loss, numbers = learner(**batch(texts))
        assert float(loss.detach()) > 0
        assert 0 < numbers["alpha"] < 1
    target.model.requires_grad_(False)
    small.model.requires_grad_(False)


def job(**changes: Any) -> DraftJob:
    fields = {"method": "draft", "model": str(folder.llama()), "data": str(training.data())}
    sizes = {"sizes": DraftSizes(1, 32, 0, 2)}
    return DraftJob(**{**fields, **sizes, "loading": FLOAT32, **changes})


def learn(
    out: Path, training_job: DraftJob | None = None, **changes: Any
) -> tuple[TrainingResult, Log]:
    log = Log()
    return train(training_job or job(), arguments(out, **changes), callbacks=[log]), log


@pytest.mark.parametrize("top_k", [0, 8])
def test_going_on_from_a_checkpoint_changes_nothing(top_k: int, tmp_path: Path) -> None:
    distillation = Distillation(cached_top_k=top_k)
    _, uninterrupted = learn(tmp_path / "a", job(distillation=distillation))
    at_three = str(tmp_path / "a" / "checkpoint-3")
    _, later = learn(
        tmp_path / "b", job(distillation=distillation), resume_from_checkpoint=at_three
    )
    assert later.losses == {step: uninterrupted.losses[step] for step in (4, 5, 6)}


def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    _, at_once = learn(tmp_path / "a", per_device_train_batch_size=4)
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    _, parts = learn(tmp_path / "b", **sizes)
    assert parts.losses == pytest.approx(at_once.losses, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_raises_alpha_and_what_is_written_drafts(kind: str, tmp_path: Path) -> None:
    training_job = job(distillation=Distillation(divergence=kind), eval_data=str(training.data()))  # type: ignore[arg-type]
    settings = {"max_steps": 60, "per_device_train_batch_size": 24, "save_steps": 99}
    done, log = learn(tmp_path, training_job, eval_strategy="steps", eval_steps=20, **settings)
    alphas = [entry["alpha"] for entry in log.all if "alpha" in entry]
    assert sum(alphas[-5:]) > 1.5 * sum(alphas[:5])
    watched = [entry["eval_alpha"] for entry in log.all if "eval_alpha" in entry]
    assert watched == sorted(watched)
    assert len(watched) == 3
    written = load_model(str(tmp_path), FLOAT32)
    assert written.tokenizer is not None
    assert written.target.vocabulary_size == 320
    weights = read_tensors(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["method"], record["training"]["divergence"]) == ("draft", kind)
    assert {"first_choice", "keep_choices"} <= record["training"].keys()
    assert record["training"]["alpha"] == done.metrics.values()["alpha"]
    assert "of a forward" in done.advice[0]


def test_a_given_draft_model_is_gone_on_with(tmp_path: Path) -> None:
    learn(tmp_path / "one", max_steps=20, save_steps=99)
    _, again = learn(tmp_path / "two", job(draft=str(tmp_path / "one")), max_steps=1)
    _, anew = learn(tmp_path / "three", max_steps=1)
    assert again.losses[1] < anew.losses[1]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    other = folder.llama(1, words="entirely different words make another tokenizer of it")
    with pytest.raises(ModelError, match="another tokenizer") as caught:
        learn(tmp_path, job(draft=str(other)))
    assert "\n" not in caught.value.message


def test_a_new_draft_model_has_the_targets_tokens_and_tied_embeddings() -> None:
    target = load_model(str(folder.llama()), FLOAT32).target
    model = DraftSizes(2, 128).new_model(target)
    config = model.config
    assert (config.num_attention_heads, config.head_dim, config.intermediate_size) == (2, 64, 384)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (config.vocab_size, config.max_position_embeddings) == (320, 512)
    assert (config.bos_token_id, config.eos_token_id) == (0, 1)


def test_the_best_length_of_drafts_depends_on_how_many_are_accepted() -> None:
    costs = Costs({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.4, 16: 2.0})
    lengths = [costs.best_gamma(16, 0.1, alpha=alpha) for alpha in (0.0, 0.3, 0.6, 0.9)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 0 < lengths[-1]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def typed(out: Path, **changes: object) -> list[str]:
    settings = {"target": folder.llama(), "data_path": training.data(), "output_dir": out,
                "layers": 1, "hidden": 32, "heads": 2, "max_steps": 2, "use_cpu": True,
                "bf16": False, "logging_steps": 1, "save_steps": 99, **changes}  # fmt: skip
    words = {name: value for name, value in settings.items() if value is not None}
    return [str(part) for name, value in words.items() for part in (f"--{name}", value)]


def test_a_draft_model_is_trained_from_the_command_line_and_used(tmp_path: Path) -> None:
    flags = {"divergence": "tv", "keep_choices": 8, "eval_data_path": training.data()}
    done = run("train", "draft", *typed(tmp_path, **flags))
    assert done.exit_code == 0, done.stderr
    assert "a new draft model for" in done.stderr
    assert "alpha 0." in done.stderr
    assert "of a forward" in done.stdout
    assert f"nfox --model {folder.llama()} --draft-model {tmp_path}" in done.stdout
    answered = run("generate", "hello", "--model", folder.llama(), "--draft-model", tmp_path,
                   "--max-new-tokens", 4, "--dtype", "float32")  # fmt: skip
    assert answered.exit_code == 0, answered.stderr


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"draft": "x"}, "--layers is a size of a new draft model"),
        ({"hidden": 30, "heads": 4}, "choose another --heads"),
        ({"layers": 0}, "above 0"),
        ({"divergence": "js"}, "invalid choice"),
        ({"keep_choices": -1}, "0 or above"),
        ({"target": None}, "--model_name_or_path is missing"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    done = run("train", "draft", *typed(tmp_path, **changes))
    assert done.exit_code == 2, done.stderr
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_no_other_divergence_is_known() -> None:
    with pytest.raises(UsageError, match="no divergence"):
        Distillation(divergence="js")  # type: ignore[arg-type]


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-2, "lr_scheduler_type": "linear", "warmup_steps": 0,
                "per_device_train_batch_size": 2, "max_steps": 3}  # fmt: skip
    two_processes.train("draft", *typed(tmp_path / "two", **settings))
    two = two_processes.losses(tmp_path / "two" / "checkpoint-3")
    _, log = learn(tmp_path / "one", per_device_train_batch_size=4, max_steps=3)
    assert two == pytest.approx(log.losses, rel=1e-4)
