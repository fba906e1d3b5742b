"""A model is told to think as its template is told, and what it thought is counted apart."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import pytest
from chat_templates import SWITCHED, TEMPLATES, UNSWITCHED
from test_rendering import applied, tokenizer_of
from test_templates import make

from nfox.decoding.drafter import StepTimes
from nfox.decoding.generate import Prompt, Step
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Verdict
from nfox.errors import NfoxError, UsageError
from nfox.models.options import LoadedModel
from nfox.models.prompt import encode_prompt
from nfox.reply import Reply, Request, Settings
from nfox.reply_text import to_updates
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.text.thinking import Think

SYSTEM, HI = Message("system", "Be brief."), Message("user", "Hi <think>")
TALK = [SYSTEM, HI, Message("assistant", "<think>so</think>Fine"), Message("user", "how are you?")]


class _DecoderOnly:
    is_encoder_decoder, vocabulary_size = False, 9999


def prompt_of(tokenizer: Any, messages: list[Message], think: Think = "auto") -> Prompt:
    template = resolve(tokenizer, "tokenizer").told(think)
    model: Any = LoadedModel("m", _DecoderOnly(), tokenizer)  # type: ignore[arg-type]
    return encode_prompt(model, template, messages)


@pytest.mark.parametrize("messages", [[SYSTEM, HI], TALK], ids=["question", "conversation"])
@pytest.mark.parametrize("name", SWITCHED)
def test_a_told_template_writes_what_transformers_makes_of_its_switch(
    name: str, messages: list[Message]
) -> None:
    source, variable, on, off = SWITCHED[name]
    tokenizer = tokenizer_of(source)
    template = resolve(tokenizer, "tokenizer")
    assert template.switch is not None and template.switch.name == variable
    options: dict[str, dict[str, Any]] = {"auto": {}, "on": {variable: on}, "off": {variable: off}}
    for think in get_args(Think):
        told = template.told(think)
        expected = applied(tokenizer, messages, **options[think])
        assert told.text(messages) == expected
        assert tokenizer.decode(told.encode(tokenizer, messages)) == expected
    asked = [SYSTEM, HI] if name == "insisting" else [HI]
    assert template.told("on").text(asked) != template.told("off").text(asked)


@pytest.mark.parametrize("name", UNSWITCHED)
def test_a_name_that_is_no_switch_is_none(name: str) -> None:
    tokenizer = tokenizer_of(UNSWITCHED[name])
    if name == "broken":
        with pytest.raises(NfoxError):
            resolve(tokenizer, "tokenizer")
        return
    template = resolve(tokenizer, "tokenizer")
    assert template.switch is None
    assert template.told("off") is template


def test_templates_without_any_such_name_have_no_switch() -> None:
    for source in TEMPLATES.values():
        assert resolve(tokenizer_of(source), "tokenizer").switch is None
    assert resolve(tokenizer_of(None), "vicuna_v1.1").switch is None


@pytest.mark.parametrize(
    ("name", "think", "inside"),
    [
        *[("qwen 3", think, False) for think in get_args(Think)],
        *[("laguna", "on", True), ("laguna", "off", False), ("laguna", "auto", False)],
        *[("deepseek v3.1", "on", True), ("deepseek v3.1", "off", False)],
        *[("minimax m3", "on", True), ("minimax m3", "off", False)],
    ],
)
def test_where_a_prompt_begins_to_think_its_reply_is_inside(
    name: str, think: Think, inside: bool
) -> None:
    tokenizer = tokenizer_of(SWITCHED[name][0])
    assert prompt_of(tokenizer, [SYSTEM, HI], think).thinking is inside
    for begun, expected in (
        ("so", inside),
        ("<think>so", True),
        ("so</think>Fine", False),
        ("<think>so</think>Fine", False),
    ):
        ids = tuple(tokenizer(begun, add_special_tokens=False).input_ids)
        for message in (Message("assistant", begun), Message("assistant", begun, ids)):
            assert prompt_of(tokenizer, [SYSTEM, HI, message], think).thinking is expected


def test_a_question_about_the_tag_begins_no_thought() -> None:
    tokenizer = tokenizer_of("{% for m in messages %}{{ m.content }}{% endfor %}<a>")
    assert not prompt_of(tokenizer, [HI]).thinking


def steps_of(ids: list[int], draw: random.Random) -> Iterator[Step]:
    """Yield steps that emit these tokens, several at a time, a second each."""
    while ids:
        count = draw.randint(1, 4)
        tokens, ids = tuple(ids[:count]), ids[count:]
        yield Step(
            tokens,
            ("accepted",) * len(tokens),
            TokenTree((0,), (-1,)),
            Verdict([0], 0, []),
            StepTimes(0.5, 0.5, 0, 0, 0),
        )


def is_inside(text: str, begins_inside: bool) -> bool:
    """Whether a text ends inside what is thought, tag by tag."""
    inside = begins_inside
    while True:
        _, found, text = text.partition("</think>" if inside else "<think>")
        if not found:
            return inside
        inside = not inside


@pytest.mark.parametrize("seed", range(40))
def test_thought_tokens_are_those_between_the_tags(seed: int) -> None:
    draw = random.Random(seed)
    tokenizer = tokenizer_of(None) if seed % 2 else make("byte-level")  # with tags, and without
    words = ("<think>", "</think>", "Hi", " how", " are 数", "😀", "\n", " <b> ", " x")
    text = "".join(draw.choices(words, k=draw.randint(1, 12)))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    inside = draw.random() < 0.5
    reply = Reply("none")
    request = Request(Prompt((0,), thinking=inside), Settings())
    updates = to_updates(steps_of(list(ids), draw), tokenizer, request, reply, frozenset())
    assert len(list(updates)) > 0
    shown = [tokenizer.decode(ids[:n]) for n in range(len(ids) + 1)]
    states = [is_inside(part, inside) for part in shown]
    expected = sum(before or after for before, after in pairwise(states))
    assert reply.stats.thought_tokens == expected
    share = reply.stats.thought_seconds / reply.stats.seconds
    assert (share == 0) is (expected == 0) and (share == 1) is (expected == len(ids))


def test_what_think_must_be_is_said() -> None:
    with pytest.raises(UsageError, match="auto or on or off"):
        Settings(think="maybe")  # type: ignore[arg-type]
    assert Settings().changed(think="off").think == "off"
