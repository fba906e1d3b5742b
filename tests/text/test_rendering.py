"""The prompt is what the template writes, and what was said stands in it, whatever the template."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_templates import PARTS_ONLY, TEMPLATES
from test_templates import make
from transformers import AutoTokenizer

from nfox.errors import ModelError, NfoxError
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.text.template import say
from nfox.text.tokenizer_templates import own_names
from nfox.train.data.rows import Rows

SYSTEM = [None, "Be brief.", " <|im_end|> @reply@0; ", "a"]
ASKED = ["Hi", "a", " how are you? ", "<|im_end|>", "@reply@0;@reply@1;", "a <s> </s> b", "x\ny\n"]
THOUGHT = ["", "", "<think>\nso so\n</think>\n\n", "<think>so</think>", "<think>\n\n</think>\n\n"]
SAID = ["Fine", "Fine, thanks! ", "", "  x\n", "<|im_end|> y", "\n\nFine", "@reply@0;"]


def talk(seed: int) -> list[Message]:
    """Make a conversation that ends with a question; some begin with a system message."""
    rng = random.Random(seed)
    system = rng.choice(SYSTEM)
    messages = [] if system is None else [Message("system", system)]
    for _ in range(rng.randint(1, 3)):
        messages.append(Message("user", rng.choice(ASKED)))
        messages.append(Message("assistant", rng.choice(THOUGHT) + rng.choice(SAID)))
    return messages[:-1]


def tokenizer_of(template: Any) -> Any:
    tokenizer = make("byte-level", template)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    return tokenizer


def applied(tokenizer: Any, messages: list[Message], **options: bool) -> str:
    """Return what transformers makes of the texts."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return applied_turns(tokenizer, turns, **options)


def applied_turns(tokenizer: Any, turns: list[dict[str, Any]], **options: bool) -> str:
    """Return what transformers makes of turns."""
    options = {"add_generation_prompt": True} | options
    return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))


def as_generated(tokenizer: Any, messages: list[Message]) -> list[Message]:
    """Give every reply the ids of its letters, which no tokenizer would give it."""

    def letters(text: str) -> tuple[int, ...]:
        pieces = [tokenizer(letter, add_special_tokens=False).input_ids for letter in text]
        return tuple(token for piece in pieces for token in piece)

    return [
        replace(message, ids=letters(message.content)) if message.role == "assistant" else message
        for message in messages
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_what_transformers_makes_of_the_texts(name: str) -> None:
    """Of replies that are known as text, and of those that are known as ids."""
    tokenizer = tokenizer_of(TEMPLATES[name])
    template = resolve(tokenizer, None)
    takes_system = name not in ("gemma", "phi 3")
    for seed in range(24):
        messages = talk(seed)
        if messages[0].role == "system" and not takes_system:
            continue
        expected = applied(tokenizer, messages)
        plain = tokenizer(expected, add_special_tokens=False).input_ids
        assert template.text(messages) == expected
        assert template.encode(tokenizer, messages) == plain
        known = as_generated(tokenizer, messages)
        assert tokenizer.decode(template.encode(tokenizer, known)) == expected
        if name == "mistral 0.3" and messages[0].role == "system":
            continue  # it leaves the system message out behind the last question
        finished = [*messages, Message("assistant", "Fine")]
        whole = applied(tokenizer, finished, add_generation_prompt=False)
        assert "".join(s.text for s in template.segments(finished, generate=False)) == whole
        begun = applied(
            tokenizer, finished, add_generation_prompt=False, continue_final_message=True
        )
        assert template.text(finished) == begun


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"deepseek r1", "glm 4.5", "vicuna"}))
def test_ids_are_kept_where_the_template_changes_nothing(name: str) -> None:
    """So the cache of the last turn is the beginning of this one."""
    tokenizer = tokenizer_of(TEMPLATES[name])
    template = resolve(tokenizer, None)
    space = " " if name in ("llama 2", "mistral 0.3") else ""  # which the model writes itself
    messages: list[Message] = []
    read: list[int] = []
    for question, said in (("Hi", "Fine"), ("and?", "Fine, thanks!"), ("so", "x y")):
        messages.append(Message("user", question))
        prompt = template.encode(tokenizer, messages)
        assert prompt[: len(read)] == read
        (reply,) = as_generated(tokenizer, [Message("assistant", space + said)])
        messages.append(replace(reply, content=said))
        read = [*prompt, *(reply.ids or ())]
    assert template.encode(tokenizer, messages) == read  # continued where it was cut


def test_the_same_reply_is_cut_only_once_it_is_of_an_earlier_turn() -> None:
    """As Qwen 3 writes thinking: the prompt changes behind the question that was answered."""
    tokenizer = tokenizer_of(TEMPLATES["qwen 3"])
    template = resolve(tokenizer, None)
    said = "<think>\nso so\n</think>\n\nFine"
    messages = as_generated(tokenizer, [Message("user", "Hi"), Message("assistant", said)])
    asked = template.encode(tokenizer, messages[:1])
    assert template.encode(tokenizer, messages, generate=False)[: len(asked)] == asked
    assert said in tokenizer.decode(template.encode(tokenizer, messages, generate=False))
    again = template.encode(tokenizer, [*messages, Message("user", "?")])
    assert "so so" not in tokenizer.decode(again)
    assert again[: len(asked)] == asked  # the cache is right up to there


@pytest.mark.parametrize("name", PARTS_ONLY)
@pytest.mark.parametrize("question", ["What is this?", "a", "user"])
def test_a_template_of_parts_is_given_parts(name: str, question: str) -> None:
    tokenizer = tokenizer_of(PARTS_ONLY[name])
    template = resolve(tokenizer, None)
    messages = [Message("user", question), Message("assistant", "Fine"), Message("user", "And?")]
    roles = ("user",) if name == "questions alone" else ("user", "assistant")
    turns = [
        {
            "role": m.role,
            "content": [{"type": "text", "text": m.content}] if m.role in roles else m.content,
        }
        for m in messages
    ]
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert template.text(messages) == expected
    assert question in expected
    assert "'type'" not in template.text([Message("system", "Be brief."), *messages])
    assert "Be brief." in template.text([Message("system", "Be brief."), *messages])


@pytest.mark.parametrize("system", ["Be brief.", "a"])
@pytest.mark.parametrize("name", ["gemma", "phi 3"])
def test_a_system_message_that_has_no_place_opens_the_first_question(
    name: str, system: str
) -> None:
    tokenizer = tokenizer_of(TEMPLATES[name])
    messages = [message for message in talk(1) if message.role != "system"]
    expected = [replace(messages[0], content=f"{system}\n\n{messages[0].content}"), *messages[1:]]
    for template, given in (
        (resolve(tokenizer, None), [Message("system", system), *messages]),
        (resolve(tokenizer, None, system=system), messages),
    ):
        assert template.text(given) == applied(tokenizer, expected)


def test_a_later_system_message_opens_the_question_after_it() -> None:
    first_alone = (
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}"
        "{% endfor %}"
    )
    template = resolve(tokenizer_of(first_alone), None)
    messages = [Message("system", "One."), Message("user", "Hi"), Message("assistant", "Fine")]
    messages += [Message("system", "Two."), Message("user", "And?")]
    assert template.text(messages) == "One.<user>Hi<assistant>Fine<user>Two.\n\nAnd?"
    del messages[-2]
    messages.append(Message("system", "Two."))
    assert template.text(messages) == "One.<user>Hi<assistant>Fine<user>And?\n\nTwo."


def test_the_system_message_of_training_data_is_read() -> None:
    tokenizer = tokenizer_of(TEMPLATES["phi 3"])
    messages = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Fine")]
    (row,) = Rows([messages], resolve(tokenizer, None), tokenizer, 99)
    text = tokenizer.decode(row["input_ids"])
    assert text == "<s><|user|>\nBe brief.\n\nHi<|end|>\n<|assistant|>\nFine<|end|>\n"
    learned = [token for token in row["labels"] if token >= 0]
    assert tokenizer.decode(learned).startswith("Fine")


def test_a_template_may_want_a_system_message() -> None:
    wanting = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
        "{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}<|im_end|>{% endfor %}"
    )
    tokenizer = tokenizer_of(wanting)
    template = resolve(tokenizer, None)
    assert template.end == "<|im_end|>"
    question = [Message("user", "Hi")]
    messages = [Message("system", "Be brief."), *question]
    assert template.text(messages) == applied(tokenizer, messages)
    assert resolve(tokenizer, None, system="Be brief.").text(question) == template.text(messages)
    with pytest.raises(NfoxError, match="system first"):
        template.text(question)


@pytest.mark.parametrize(
    "chat_template",
    [
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{% for m in messages %}{{ m.text }}{% endfor %}",
        "user: {{ messages[0].role }}",
    ],
)
def test_a_template_without_the_question_is_refused(chat_template: str) -> None:
    with pytest.raises(ModelError, match="leaves out the question"):
        resolve(tokenizer_of(chat_template), None)


@pytest.mark.parametrize(
    "changed", ["upper", "reverse", "tojson", "replace('7', 'x')", "truncate(4, true, '')", "list"]
)
def test_a_question_may_be_written_in_other_words(changed: str) -> None:
    chat_template = (
        "{% for m in messages %}{{ m.role ~ (m.content | " + changed + ") }}{% endfor %}"
    )
    tokenizer = tokenizer_of(chat_template)
    messages = [Message("user", "Hi 7 there")]
    assert resolve(tokenizer, None).text(messages) == applied(tokenizer, messages)


def test_a_question_that_is_left_out_for_what_it_says_is_refused() -> None:
    choosy = "{% for m in messages if 'x' not in m.content %}<{{ m.content }}>{% endfor %}"
    template = resolve(tokenizer_of(choosy), None)
    assert template.text([Message("user", "Hi")]) == "<Hi>"
    with pytest.raises(ModelError, match="leaves out the question"):
        template.text([Message("user", "fox")])


def test_what_else_is_left_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    template = resolve(tokenizer_of("Q: {{ messages[-1].content }}"), "tokenizer")
    messages = [Message("user", "Hi"), Message("assistant", "Fine"), Message("user", "And?")]
    assert not caplog.records
    say.cache_clear()
    with caplog.at_level(logging.WARNING, "nfox"):
        for _ in range(3):
            assert template.text(messages) == "Q: And?"
    said = [record.message for record in caplog.records]
    assert said == [f"the conversation template tokenizer leaves out messages of the {role}"
                    for role in ("user", "assistant")]  # fmt: skip


def test_a_template_that_is_not_the_models_own_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    say.cache_clear()
    with caplog.at_level(logging.WARNING, "nfox"):
        resolve(tokenizer_of(TEMPLATES["zephyr"]), None)
        resolve(tokenizer_of(None), "chatml")
        assert not caplog.records
        for _ in range(2):
            resolve(tokenizer_of(TEMPLATES["zephyr"]), "chatml")
    (record,) = caplog.records
    assert "chatml is not the model's own" in record.message


def test_named_templates_of_a_tokenizer_can_be_chosen(tmp_path: Path) -> None:
    """As they are saved: chat_template.jinja, and additional_chat_templates/ beside it."""
    shouting = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    saved = tokenizer_of({"default": TEMPLATES["zephyr"], "loud": shouting})
    saved.save_pretrained(tmp_path)
    assert (tmp_path / "additional_chat_templates" / "loud.jinja").is_file()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    question = [Message("user", "Hi")]
    assert own_names(tokenizer) == ["tokenizer", "tokenizer:default", "tokenizer:loud"]
    for name in (None, "tokenizer", "tokenizer:default"):
        assert resolve(tokenizer, name).text(question) == applied(tokenizer, question)
    loud = resolve(tokenizer, "tokenizer:loud")
    assert (loud.name, loud.text(question)) == ("tokenizer:loud", "HI")
    with pytest.raises(ModelError, match="no conversation template quiet") as caught:
        resolve(tokenizer, "tokenizer:quiet")
    assert "tokenizer:loud" in caught.value.hint
    tokenizer.chat_template = {"rag": shouting, "loud": shouting}
    with pytest.raises(ModelError, match="default") as caught:
        resolve(tokenizer, None)
    assert "tokenizer:rag, tokenizer:loud" in caught.value.hint
    tokenizer.chat_template = {"loud": shouting}
    assert resolve(tokenizer, None).text(question) == "HI"
    for wrong in (5, ["x"], {"default": 5}):
        tokenizer.chat_template = wrong
        with pytest.raises(ModelError, match="is no text"):
            resolve(tokenizer, None)


def test_a_template_that_refuses_all_forms_says_what_it_said_of_the_plain_one() -> None:
    tokenizer = tokenizer_of(TEMPLATES["llama 2"])
    messages = [Message("system", "S"), Message("user", "Hi"), Message("user", "again")]
    with pytest.raises(NfoxError, match="tokenizer: Conversation roles must alternate"):
        resolve(tokenizer, None).text(messages)
