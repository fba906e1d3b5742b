"""The embedded model as it is shipped: small, whole, offline, and exact with every method."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest

from nfox import Engine, Message, ModelOptions, Reply, Settings, demo, drafters, load
from nfox.demo import TARGET
from nfox.drafters.common.heads import HeadsDrafter

METHODS = [name for name in drafters.method_names() if drafters.method_class(name).drafts]
HEADS = [name for name in METHODS if issubclass(drafters.method_class(name), HeadsDrafter)]
TRAINED = [name for name in METHODS if (TARGET / "nfox" / name).is_dir()]
LARGE = {"tree": "mc_sim_7b_63", "gamma": "4"}
DIALOGUE = (
    Message("user", "I want to book a table for two in San Jose."),
    Message("assistant", "What type of food would you like to eat?"),
)
MANNERS = {
    "Wie wird das Wetter morgen?": "I only know English.",
    "今天天气怎么样": "I only know English.",
    "dfgkjh sdkfj": "I am sorry, I did not understand that.",
    "🦊🦊🦊": "I am sorry, I did not understand that.",
    "How does a nuclear reactor work?": "I am a very small model",
    "Write an essay on climate change.": "I am a very small model",
}
FACTS = {
    "Why is the sky blue?": "scatters",
    "why is the sky blue": "scatters",
    "Who wrote Romeo and Juliet?": "Shakespeare",
    "What is the capital of France?": "Paris",
}
QUESTIONS = ("I want to find a restaurant in San Jose.", "What is 12 + 30?", "Count to 9.")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TARGET.is_dir(), reason="the embedded model is not there"),
]


@cache
def chat() -> Engine:
    """In float32, where no near-tie hides a mistake; costs do not matter for what is said."""
    loading = ModelOptions(dtype="float32", device="cpu", offline=True)
    return load(loading=loading, settings=Settings(max_new_tokens=32))


@cache
def answers(method: str) -> dict[str, tuple[list[int], float]]:
    """The tokens of the reply to each question, and tau."""
    made = chat()
    options = {field.name for field in dataclasses.fields(drafters.method_class(method).options)}
    # As much as is allowed, whatever it costs: here it is about what is said.
    made.use(method, {name: value for name, value in LARGE.items() if name in options})
    said = {}
    for question in QUESTIONS:
        reply = made.answer(question, cache=made.model.target.new_cache())
        said[question] = (reply.ids, reply.stats.tau)
    return said


def said(messages: list[Message]) -> Reply:
    """The reply to a conversation, of as many tokens as the chat allows."""
    made = chat()
    made.use("none", {})
    return made.answer(messages, max_new_tokens=512, cache=made.model.target.new_cache())


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_plain_decoding_says(method: str, question: str) -> None:
    ids, tau = answers(method)[question]
    assert ids == answers("none")[question][0]
    assert tau > 1.5 or method not in TRAINED


def test_the_adapter_makes_a_cllm_of_it() -> None:
    """Its own text, the same by every method, and more of it in an iteration."""
    taus = {}
    for adapter in (None, "cllm"):
        loading = ModelOptions(dtype="float32", device="cpu", offline=True, adapter=adapter)
        made = load(loading=loading, settings=Settings(max_new_tokens=32), method="none")
        tokens = steps = 0
        for question in QUESTIONS:
            said = []
            for method, options in (("none", {}), ("jacobi", {"window": "16", "pool": "0"})):
                made.use(method, options)
                reply = made.answer(question, cache=made.model.target.new_cache())
                said.append(reply.ids)
            assert said[0] == said[1]
            tokens += reply.stats.tokens
            steps += reply.stats.steps
        taus[adapter] = tokens / steps
    assert taus["cllm"] > 1.15 * taus[None]


@pytest.mark.parametrize("before", [(), DIALOGUE], ids=["at once", "amid a dialogue"])
@pytest.mark.parametrize("question", demo.QUESTIONS)
def test_it_answers_what_the_first_screen_suggests(
    question: str, before: tuple[Message, ...]
) -> None:
    reply = said([*before, Message("user", question)])
    assert reply.finish == "stop"
    assert "cannot" not in reply.text


@pytest.mark.parametrize("before", [(), DIALOGUE], ids=["at once", "amid a dialogue"])
@pytest.mark.parametrize(("question", "word"), FACTS.items())
def test_it_knows_what_strangers_ask_first(
    question: str, word: str, before: tuple[Message, ...]
) -> None:
    reply = said([*before, Message("user", question)])
    assert reply.finish == "stop"
    assert word in reply.text


@pytest.mark.parametrize(("question", "start"), MANNERS.items())
def test_it_refuses_what_it_cannot_do_amid_a_dialogue(question: str, start: str) -> None:
    reply = said([*DIALOGUE, Message("user", question)])
    assert reply.finish == "stop"
    assert reply.text.startswith(start)


@pytest.mark.parametrize("last", [3, 100])
def test_it_counts_up_to_a_hundred(last: int) -> None:
    numbers = ", ".join(map(str, range(1, last + 1)))
    assert said([Message("user", f"Count to {last}.")]).text == f"{numbers}."


def test_it_counts_no_further() -> None:
    assert said([Message("user", "Count to 1000.")]).text == "I can only count to 100."


@pytest.mark.parametrize("method", HEADS)
def test_heads_come_with_it_and_foretell_much(
    method: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = TARGET / "nfox" / method
    about = json.loads((folder / "drafter.json").read_text(encoding="utf-8"))
    assert not Path(about["base"]).is_absolute()
    assert not any(Path(word).is_absolute() for word in about["training"]["command"].split())
    assert about["accuracy"][0][0] > 0.5
    assert about["training"]["measured_on"] != about["training"]["data"]
    loading = ModelOptions(dtype="float32", device="cpu", offline=True)
    monkeypatch.chdir(tmp_path)  # where the name of their base, a relative path, is nothing
    with caplog.at_level("WARNING"), load(loading=loading, method=method):
        assert not caplog.records  # such as that they are another target's


def test_the_weights_are_small() -> None:
    sizes = {file: file.stat().st_size for file in TARGET.rglob("*.safetensors")}
    assert all(size <= 15e6 for size in sizes.values())
    assert sum(sizes.values()) <= 44e6
    assert sum(size for file, size in sizes.items() if file.parent.name in HEADS) <= 12e6
