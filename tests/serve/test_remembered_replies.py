"""Replies that a client sends back: read as they were generated, or as the template cuts them."""

from __future__ import annotations

from typing import Any

import folder
import pytest
from chat_templates import TEMPLATES
from serving import load_tiny

from nfox.engine import Engine
from nfox.reply import Reply
from nfox.serve.pending_reply import Question
from nfox.serve.prompts import PromptEncoder
from nfox.text.messages import Message
from nfox.text.resolve import resolve

THOUGHT = "<think>\nso so\n</think>\n\n"


def engine_with(name: str) -> Engine:
    engine = load_tiny(folder.llama())
    engine.model.tokenizer.chat_template = TEMPLATES[name]
    engine.use_template(resolve(engine.model.tokenizer, None))
    return engine


def letters(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text letter by letter, as no tokenizer would give them."""
    return [token for letter in text for token in tokenizer(letter).input_ids]


@pytest.mark.parametrize("name", ["qwen 3", "deepseek r1", "chatml", "llama 3"])
@pytest.mark.parametrize("said", [f"{THOUGHT}Fine", "Fine", "Fine \n"])
def test_a_remembered_reply_is_written_as_the_template_writes_its_text(
    name: str, said: str
) -> None:
    engine = engine_with(name)
    tokenizer, encoder = engine.model.tokenizer, PromptEncoder(engine)
    first = Question((Message("user", "hi"),))
    asked = encoder.encode(first).ids
    ids = letters(tokenizer, said)
    encoder.remember(first, Reply("none", ids=ids, text=said, finish="stop"))
    messages = (*first.messages, Message("assistant", said), Message("user", "and?"))
    again = encoder.encode(Question(messages)).ids
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(again) == text
    unchanged = text.startswith(tokenizer.decode(asked) + said)
    assert unchanged == (list(again[: len(asked) + len(ids)]) == [*asked, *ids])
    assert unchanged or name != "chatml"
