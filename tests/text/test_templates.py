"""What every template promises: the model reads what it was trained on, each reply as it was."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from nfox.errors import ModelError, NfoxError
from nfox.text.messages import Message
from nfox.text.resolve import available, resolve
from nfox.text.stream import reply_text

WORDS = ["USER:", "ASSISTANT:", "Hi", "how", "are", "you?", "Fine,", "thanks!", "A", "chat"]
WORDS += ["[INST]", "user", "assistant", "über", "数", "😀"]
FILES = resources.files("nfox.conversation_templates")
OURS = [name for name in available() if (FILES / f"{name}.json").is_file()]
TURNS_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<u>' + m.content }}"
    "{% else %}{{ '<a> ' + m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
)
KINDS = ("byte-level", "metaspace", "legacy")


@cache
def trained(kind: str) -> str:
    """Train a small tokenizer: GPT-2's kind, or Llama's with byte fallback, as it is or was."""
    special = ["<unk>", "<s>", "</s>"]
    space = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.pre_tokenizer = space
        replace_space = decoders.Replace("▁", " ")
        tokenizer.decoder = decoders.Sequence(
            [replace_space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        letters = []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS[:-2], k=20)) for _ in range(50)]
    tokenizer.train_from_iterator([*texts, "abcdefghijklmnopqrstuvwxyz.#<>|\\/_'- ABCD"], trainer)
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif kind in ("legacy", "stripping"):  # a space before every stretch between special tokens
        spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        strip = [normalizers.Strip(left=False)] * (kind == "stripping")
        tokenizer.normalizer = normalizers.Sequence([*strip, *spaces])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    data = json.loads(tokenizer.to_str())
    if tokenizer.normalizer:
        data["pre_tokenizer"] = None
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < 3]
    return json.dumps(data)


def make(kind: str, chat_template: str | None = None, **special: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained(kind)),
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **special},
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def talk(rng: random.Random, rounds: int, *, open_end: bool) -> list[Message]:
    """Make a conversation; with `open_end` the last reply is still to come."""
    roles = ("user", "assistant") * rounds
    messages = [Message(role, " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))) for role in roles]
    return messages[:-1] if open_end else messages


def as_generated(tokenizer, template, messages: list[Message], generate: bool) -> list[Message]:
    """Give every reply the ids that the whole text, tokenised at once, has in its place."""
    segments = template.segments(messages, generate=generate)
    text = "".join(segment.text for segment in segments)
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = list(zip(whole.input_ids, whole.offset_mapping, strict=True))
    result, at = list(messages), 0
    for segment in segments:
        start, at = at, at + len(segment.text)
        if segment.message is not None:
            ids = tuple(id for id, (_, end) in pairs if start < end <= at)
            result[segment.message] = replace(messages[segment.message], ids=ids)
    return result


def fastchat_prompt(name: str, messages: list[Message], system: str | None) -> str:
    from fastchat.conversation import get_conv_template

    conversation = get_conv_template(name)
    if system is not None:
        conversation.set_system_message(system)
    for message in messages:
        role = conversation.roles[message.role == "assistant"]
        conversation.append_message(role, message.content)
    if messages[-1].role == "user":
        conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def text_of(template, messages: list[Message], **options: bool) -> str:
    return "".join(segment.text for segment in template.segments(messages, **options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*OURS, "dolly_v2", "airoboros_v2"])
def test_a_conversation_is_tokenised_as_its_whole_text(name: str, kind: str) -> None:
    """Whether a reply's text is known or its ids, and with one BOS and no EOS added."""
    tokenizer = make(kind)
    template = resolve(tokenizer, name)
    for seed in range(6):
        messages = talk(random.Random(seed), 3, open_end=seed % 2 == 0)
        generate = seed % 2 == 0
        text = text_of(template, messages, generate=generate)
        expected = tokenizer(text).input_ids
        assert template.encode(tokenizer, messages, generate=generate) == expected
        known = as_generated(tokenizer, template, messages, generate)
        assert template.encode(tokenizer, known, generate=generate) == expected
        assert expected[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizers_own_template_is_applied_as_transformers_does(kind: str) -> None:
    for chat_template in (TURNS_TEMPLATE, TURNS_TEMPLATE.replace("{{ bos_token }}", "")):
        tokenizer = make(kind, chat_template)
        for seed in range(4):
            messages = talk(random.Random(seed), 2, open_end=True)
            turns = [{"role": m.role, "content": m.content} for m in messages]
            expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True).input_ids
            assert resolve(tokenizer, None).encode(tokenizer, messages) == expected


@pytest.mark.parametrize(
    ("name", "theirs", "system"),
    [
        ("vicuna_v1.1", "vicuna_v1.1", None),
        ("vicuna_v1.1", "vicuna_v1.1", "Be brief."),
        ("llama-2", "llama-2", None),
        ("llama-2", "llama-2", "Be brief."),
        ("mistral", "mistral", None),
        ("mistral", "mistral", "Be brief."),
        ("zephyr", "zephyr", None),
        ("zephyr", "zephyr", "Be brief."),
        ("chatml", "OpenHermes-2.5-Mistral-7B", "Be brief."),
        ("qwen", "qwen-7b-chat", None),
    ],
)
def test_our_templates_write_what_fastchats_do(name: str, theirs: str, system: str | None) -> None:
    template = resolve(make("byte-level"), name, system=system)
    for rounds in (1, 2, 3):
        messages = talk(random.Random(rounds), rounds, open_end=True)
        assert text_of(template, messages) == fastchat_prompt(theirs, messages, system)


def test_fastchats_own_templates_are_found_and_written_unchanged() -> None:
    tokenizer = make("byte-level")
    for name in set(available()) - set(OURS) - {"yuan2", "rwkv"}:
        messages = talk(random.Random(0), 2, open_end=True)
        template = resolve(tokenizer, name)
        assert template.origin == "fastchat"
        assert text_of(template, messages) == fastchat_prompt(name, messages, None), name


@pytest.mark.parametrize("kind", KINDS)
def test_generated_ids_are_never_tokenised_again(kind: str) -> None:
    tokenizer = make(kind)
    template = resolve(tokenizer, "vicuna_v1.1")
    rng = random.Random(1)
    begin = tokenizer("ASSISTANT: A", add_special_tokens=False).input_ids[-1:]
    for _ in range(20):
        ids = (*begin, *rng.choices(range(3, len(tokenizer)), k=5))
        first, second = Message("user", "Hi"), Message("user", "you?")
        reply = Message("assistant", reply_text(tokenizer, ids), ids)
        prompt = template.encode(tokenizer, [first])
        encoded = template.encode(tokenizer, [first, reply, second])
        # So the cache of the last turn is a prefix of this one, whatever the model wrote.
        assert encoded[: len(prompt) + len(ids)] == [*prompt, *ids]
        rest = encoded[len(prompt) + len(ids) :]
        assert rest[0] == tokenizer.eos_token_id
        assert tokenizer.decode(rest[1:]).strip() == "USER: you? ASSISTANT:"


def test_the_space_before_a_reply_is_neither_doubled_nor_lost() -> None:
    tokenizer = make("metaspace")
    template = resolve(tokenizer, "vicuna_v1.1", system="")
    hi, ids = Message("user", "Hi"), tuple(tokenizer("Fine", add_special_tokens=False).input_ids)
    for reply in (Message("assistant", "Fine"), Message("assistant", "Fine", ids)):
        encoded = template.encode(tokenizer, [hi, reply], generate=False)
        assert tokenizer.decode(encoded[1:]) == "USER: Hi ASSISTANT: Fine</s>"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OURS)
def test_the_model_learns_its_replies_and_how_they_end(name: str, kind: str) -> None:
    tokenizer = make(kind)
    template = resolve(tokenizer, name)
    messages = talk(random.Random(3), 3, open_end=False)
    ids, supervised = template.encode_supervised(tokenizer, messages)
    assert ids == template.encode(tokenizer, messages, generate=False)
    learnt = tokenizer.decode([id for id, flag in zip(ids, supervised, strict=True) if flag])
    expected = "".join(m.content + template.end for m in messages if m.role == "assistant")
    assert "".join(learnt.split()) == "".join(expected.split())
    known = as_generated(tokenizer, template, messages, generate=False)
    assert template.encode_supervised(tokenizer, known) == (ids, supervised)


def test_whitespace_of_a_reply_is_supervised_too() -> None:
    tokenizer = make("byte-level")
    messages = [Message("user", "Hi"), Message("assistant", "a\n\n  b\n")]
    ids, supervised = resolve(tokenizer, "vicuna_v1.1").encode_supervised(tokenizer, messages)
    learnt = [id for id, flag in zip(ids, supervised, strict=True) if flag]
    assert tokenizer.decode(learnt) == " a\n\n  b\n</s>"


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_reply_is_continued(kind: str) -> None:
    tokenizer = make(kind)
    template = resolve(tokenizer, "vicuna_v1.1")
    hi = Message("user", "Hi")
    ids = tuple(tokenizer("how are", add_special_tokens=False).input_ids)
    prompt = template.encode(tokenizer, [hi])
    assert template.encode(tokenizer, [hi, Message("assistant", "", ids)]) == [*prompt, *ids]
    assert text_of(template, [hi, Message("assistant", "how are")]).endswith("ASSISTANT: how are")


def test_a_text_that_brings_its_own_bos_gets_no_second_one() -> None:
    tokenizer = make("byte-level")
    messages = talk(random.Random(0), 2, open_end=True)
    template = resolve(tokenizer, "internlm-chat", system="<s>")
    assert template.encode(tokenizer, messages)[:1] == [tokenizer.bos_token_id]
    text = text_of(template, messages)
    assert text.startswith("<s>")
    assert (
        template.encode(tokenizer, messages) == tokenizer(text, add_special_tokens=False).input_ids
    )


def test_what_a_template_cuts_is_cut_from_replies_as_they_were_generated_too() -> None:
    """Templates trim, or drop what was thought: the prompt is then the template's own."""
    thinking = TURNS_TEMPLATE.replace("m.content | trim", "m.content.split('</think>')[-1]")
    tokenizer = make("byte-level", thinking)
    template = resolve(tokenizer, None)
    for text, expected in (("<think>so</think>Fine", "Fine"), (" Fine", " Fine")):
        ids = tuple(tokenizer(text, add_special_tokens=False).input_ids)
        for known in (None, ids):
            reply = Message("assistant", text, known)
            messages = [Message("user", "Hi"), reply, Message("user", "?")]
            decoded = tokenizer.decode(template.encode(tokenizer, messages))
            assert decoded == f"<s><u>Hi<a> {expected}</s><u>?<a>"
        # A reply that is continued goes on from what was said.
        messages = [Message("user", "Hi"), Message("assistant", text, ids)]
        assert tokenizer.decode(template.encode(tokenizer, messages)) == f"<s><u>Hi<a>{text}"


def test_a_reply_may_be_written_in_another_place_than_it_was_asked_for() -> None:
    """As where thinking is asked for by the prompt and left out of the past."""
    thinking = TURNS_TEMPLATE.replace("{{ '<a>' }}", "{{ '<a><think>' }}")
    tokenizer = make("byte-level", thinking)
    template = resolve(tokenizer, None)
    for known in (None, tuple(tokenizer("Fine", add_special_tokens=False).input_ids)):
        messages = [Message("user", "Hi"), Message("assistant", "Fine", known)]
        decoded = tokenizer.decode(template.encode(tokenizer, messages, generate=False))
        assert decoded == "<s><u>Hi<a> Fine</s>"


def test_a_template_that_answers_to_a_reply_does_not_swallow_or_double_text() -> None:
    shouting = TURNS_TEMPLATE.replace("{{ eos_token }}", "{{ '!' if m.content == 'Fine' }}</s>")
    tokenizer = make("byte-level", shouting)
    messages = [Message("user", "Hi"), Message("assistant", "Fine"), Message("user", "?")]
    assert text_of(resolve(tokenizer, None), messages) == "<s><u>Hi<a> Fine!</s><u>?<a>"
    quoting = TURNS_TEMPLATE.replace("'<u>' + m.content", "m.content + messages[-1].content")
    tokenizer = make("byte-level", quoting)
    assert text_of(resolve(tokenizer, None), messages[:2], generate=False).endswith("<a> Fine</s>")


@pytest.mark.parametrize("kind", ["metaspace", "stripping"])
def test_text_after_a_reply_gets_no_space_of_its_own(kind: str) -> None:
    tokenizer = make(kind)
    template = resolve(tokenizer, "raw")
    reply = Message("assistant", "a", (tokenizer.convert_tokens_to_ids("a"),))
    for text in ("ssistant", "\nHi", "."):
        messages = [Message("user", "Hi"), reply, Message("user", text)]
        rest = template.encode(tokenizer, messages)[len(template.encode(tokenizer, messages[:2])) :]
        assert "".join(tokenizer.convert_ids_to_tokens(rest)) == text.replace("\n", "<0x0A>")


def test_text_that_looks_like_a_placeholder_is_text() -> None:
    tokenizer = make("byte-level")
    messages = [Message("user", "@reply1; @reply@1;"), Message("assistant", "@reply0;")]
    text = text_of(resolve(tokenizer, "chatml"), messages, generate=False)
    assert text == (
        "<|im_start|>user\n@reply1; @reply@1;<|im_end|>\n"
        "<|im_start|>assistant\n@reply0;<|im_end|>\n"
    )


def test_a_template_without_system_messages_gets_it_in_the_first_question() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer = make("byte-level", refusing + TURNS_TEMPLATE)
    template = resolve(tokenizer, None, system="Be brief.")
    assert text_of(template, [Message("user", "Hi")]) == "<s><u>Be brief.\n\nHi<a>"


@pytest.mark.parametrize(
    ("chat_template", "complaint"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
        ("{% for m in messages %}{{ m.nothing.at_all }}{% endfor %}", "nothing"),
        ("{% for %}", "Expected"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
    ],
)
def test_a_template_that_fails_says_so_in_one_line(chat_template: str, complaint: str) -> None:
    with pytest.raises(NfoxError, match=complaint) as caught:
        resolve(make("byte-level", chat_template), None)
    assert "tokenizer" in caught.value.message
    assert "\n" not in caught.value.message
    assert "--conv-template" in caught.value.hint


def test_fastchats_templates_refuse_what_they_would_misplace() -> None:
    template = resolve(make("byte-level"), "zero_shot")
    with pytest.raises(NfoxError, match=r"zero_shot.*take turns"):
        template.segments([Message("user", "a"), Message("user", "b")])


def test_what_ends_a_reply_stops_generation() -> None:
    tokenizer = make("byte-level")
    assert resolve(tokenizer, "chatml").stop_strings == ("<|im_end|>",)
    assert resolve(tokenizer, "zero_shot").stop_strings == ("###",)
    tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    template = resolve(tokenizer, "chatml")
    assert template.stop_strings == ()
    assert template.stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    tokenizer.chat_template = TURNS_TEMPLATE.replace("{{ eos_token }}", "{{ '<|im_end|>' }}")
    assert resolve(tokenizer, None).stop_ids == template.stop_ids


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("lmsys/vicuna-7b-v1.3", "vicuna_v1.1"),
        ("FasterDecoding/medusa-vicuna-33b-v1.3", "vicuna_v1.1"),
        ("cllm/consistency-llm-7b-sharegpt48k", "vicuna_v1.1"),
        ("cllm/consistency-llm-7b-math", "cllm-math"),
        ("GAIR/Abel-7B-001", "cllm-math"),
        ("cllm/consistency-llm-7b-spider", "cllm-spider"),
        ("cllm/consistency-llm-7b-codesearchnet", "cllm-python"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral"),
        ("HuggingFaceH4/zephyr-7b-beta", "zephyr"),
        ("Qwen/Qwen2-7B-Instruct", "qwen"),
        ("meta-llama/Llama-2-7b-hf", None),
        ("carperai/stable-vicuna-13b-delta", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", None),
        ("./runs/medusa-1", None),
        ("", None),
    ],
)
def test_a_model_without_template_is_looked_up_and_never_guessed(model: str, name: str) -> None:
    if name:
        assert resolve(make("byte-level"), None, model_name=model).name == name
        tokenizer = make("byte-level", TURNS_TEMPLATE)
        trained_otherwise = name.startswith("cllm-")  # and its tokenizer is its target's
        taken = name if trained_otherwise else "tokenizer"
        assert resolve(tokenizer, None, model_name=model).name == taken
        assert resolve(tokenizer, "plain", model_name=model).name == "plain"
    else:
        with pytest.raises(ModelError, match="no chat template") as caught:
            resolve(make("byte-level"), None, model_name=model)
        assert "vicuna_v1.1" in caught.value.hint


def test_an_unknown_name_brings_the_nearest_ones() -> None:
    with pytest.raises(ModelError, match=r"did you mean vicuna_v1\.1") as caught:
        resolve(make("byte-level"), "vicuna_v1.2")
    assert caught.value.code == 3
    with pytest.raises(ModelError, match="tokenizer"):
        resolve(make("byte-level"), "tokenizer")


def test_a_file_may_be_written_our_way_or_fastchats(tmp_path: Path) -> None:
    tokenizer = make("byte-level")
    ours = tmp_path / "ours.json"
    ours.write_text(json.dumps({"name": "ours", "chat_template": TURNS_TEMPLATE}))
    theirs = tmp_path / "theirs.json"
    fields = {"system_message": "S", "roles": ["Q", "A"], "sep_style": "ADD_COLON_TWO"}
    theirs.write_text(
        json.dumps({"name": "t", **fields, "sep": "|", "sep2": "</s>", "stop_str": None})
    )
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert text_of(resolve(tokenizer, str(ours)), messages) == "<s><u>a<a> b</s><u>c<a>"
    assert text_of(resolve(tokenizer, str(theirs)), messages) == "S|Q: a|A: b</s>Q: c|A:"
    assert resolve(tokenizer, str(theirs)).origin == str(theirs)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"name": "x", "chat_template": "", "stop": "a", "seperator": 1}', "seperator, stop unkn"),
        (
            '{"name": "x", "roles": ["a", "b"], "sep_style": "TWO"}',
            "TWO is none of ADD_COLON_SINGLE",
        ),
        ('{"name": "x", "chat_template": 1}', "chat_template.str: Input should be a valid string"),
        ("[]", "mapping"),
        ('{"name": ', "not JSON: EOF while parsing a value at line 1"),
        (None, "No such file"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=complaint) as caught:
        resolve(make("byte-level"), str(path))
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_our_files_are_named_as_their_templates_and_described() -> None:
    for name in OURS:
        fields = json.loads((FILES / f"{name}.json").read_text("utf-8"))
        assert fields["name"] == name
        assert fields["description"].endswith(".")


def test_cllms_prompts_are_the_published_ones() -> None:
    """As in data/generate_trajectory.py of hao-ai-lab/Consistency_LLM."""
    tokenizer = make("byte-level")
    question = [Message("user", "Q")]
    assert text_of(resolve(tokenizer, "cllm-math"), question) == (
        "Question:\nQ\nAnswer:\nLet's think step by step.\n"
    )
    assert text_of(resolve(tokenizer, "cllm-spider"), question) == (
        "### Instruction:\nCould you translate the following question into SQL. "
        "Please only generate SQL, don't include explanation in the answer. Q\n### Response:\n"
    )
    assert text_of(resolve(tokenizer, "cllm-python"), question) == (
        "### Instruction:\nPlease generate code based on the following doc:\nQ\n### Response:\n"
    )


def test_names_cost_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, nfox.text.resolve as t; assert 'vicuna_v1.1' in t.available();"
        "assert not {'torch', 'transformers', 'fastchat.model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OURS)
def test_a_reply_that_is_not_supervised_is_context_to_its_last_token(name: str, kind: str) -> None:
    """The ids are the same, and of what is learned exactly that reply and its end are missing."""
    tokenizer = make(kind)
    template = resolve(tokenizer, name)
    messages = talk(random.Random(3), 3, open_end=False)
    replies = [n for n, message in enumerate(messages) if message.role == "assistant"]
    for left_out in ([0], [1], [2], [0, 2], [0, 1, 2]):
        for known in (messages, as_generated(tokenizer, template, messages, generate=False)):
            ids, supervised = template.encode_supervised(tokenizer, known)
            runs = [
                [*run] for flag, run in groupby(range(len(ids)), supervised.__getitem__) if flag
            ]
            assert len(runs) == len(replies)
            expected = [
                flag and not any(n in runs[i] for i in left_out)
                for n, flag in enumerate(supervised)
            ]
            context = [
                replace(m, supervised=n not in [replies[i] for i in left_out])
                for n, m in enumerate(known)
            ]
            assert template.encode_supervised(tokenizer, context) == (ids, expected)
