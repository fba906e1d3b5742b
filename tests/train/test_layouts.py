"""Records as people publish them: read as they were meant, or what is lost is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder
import pytest

from nfox.errors import UsageError
from nfox.heads.base import IGNORE
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.train.data.conversations import parse_records, read_conversations
from nfox.train.data.rows import Rows
from nfox.train.data.tasks import read_tasks

SHARE = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
PAIR = [Message("user", "hi"), Message("assistant", "hello")]
BRIEF = Message("system", "be brief")
OF_A_TURN = ("reasoning_content", "reasoning_details", "train_detail", "training_detail")


def said(content: Any, **fields: Any) -> dict[str, Any]:
    """Return a record whose reply has these fields."""
    return {"messages": [CHAT[0], {"role": "assistant", "content": content, **fields}]}


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"system": "be brief", "conversations": SHARE}, [BRIEF, *PAIR]),
        ({"system_prompt": "be brief", "conversations": SHARE, "id": 3}, [BRIEF, *PAIR]),
        ({"system": None, "system_prompt": "", "conversations": SHARE}, PAIR),
        ({"conversations": [{"from": "system", "value": "be brief"}, *SHARE], "system": "be brief"},
         [BRIEF, *PAIR]),
        ({"messages": [{"role": "developer", "content": "be brief"}, *CHAT]}, [BRIEF, *PAIR]),
        ({"conversation": CHAT, "conversation_id": "1", "turn": 1, "redacted": False}, PAIR),
        ({"messages": CHAT, "conversations": SHARE}, PAIR),
        ({"messages": CHAT, "conversations": None, "conversation": []}, PAIR),
        ({"messages": CHAT, "prompt": "hi", "prompt_id": "x"}, PAIR),
        ({"conversation": [{"input": "hi", "output": "hello"}], "source": "x"}, PAIR),
        ([{"system": "be brief", "input": "hi", "output": "hello", "weight": 1}], [BRIEF, *PAIR]),
        (said("hello", weight=float("nan")), PAIR),
        ({"conversation": {"role": ["user", "assistant"], "content": ["hi", "hello"]}}, PAIR),
        ({"messages": CHAT, "chosen": CHAT, "tools": "[]", "functions": None, "images": []}, PAIR),
        ([{"from": "Human", "value": "hi"}, {"from": "ChatGPT ", "value": "hello"}], PAIR),
        ([{"from": "user", "value": "hi"}, {"from": "bing", "value": "hello"}], PAIR),
        ([{"role": "human", "content": "hi"}, {"role": "bard", "value": "hello"}], PAIR),
        ([{"from": None, "role": "user", "value": None, "content": "hi"}, CHAT[1]], PAIR),
        (said([{"type": "text", "text": "hello", "index": None}]), PAIR),
        (said("hello", tool_calls=None, function_call={}, weight=None, name="x"), PAIR),
        (said("hello", weight=1.0, loss=True, refusal=None), PAIR),
        (said("cut \ud83d"), [PAIR[0], Message("assistant", "cut \ufffd")]),
    ],
)  # fmt: skip
def test_it_is_read_as_it_was_meant(record: Any, messages: list[Message]) -> None:
    dataset = parse_records([record])
    assert dataset.conversations == [messages]
    assert dataset.describe() == "1 conversations"


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (said("hello", tool_calls=[{"id": "1"}]), "tool_calls"),
        (said(None, function_call={"name": "f"}), "function_call"),
        (said(None), "content null"),
        (said(7), "content that is no text"),
        (said([{"type": "image_url", "image_url": {}}]), "content of type image_url"),
        (said("hello", weight=0), "replies of weight 0 alone"),
        ([CHAT[0], {"role": "tool", "content": "x"}], "role tool"),
        ([CHAT[0], {"from": "observation", "value": "x"}], "role observation"),
        (
            [CHAT[0], {"from": "\x1b]0;\ud800" + "x" * 99, "value": "x"}],
            "role ]0;\ufffdxxxxxxxxxxxxxxxxxxxxxxxxx",
        ),
        ([CHAT[0], {"input": "a", "text": "b"}], "turns with input, text, without a role"),
        ([CHAT[0], {**CHAT[1], "value": "other"}], "value and content that differ"),
        ([CHAT[0], {**CHAT[1], "from": "human"}], "from and role that differ"),
        ([CHAT[0], "hello"], "turns that are no objects"),
        ({"messages": CHAT, "conversations": SHARE[:1]}, "messages that differ"),
        ({"prompt": "hi", "completion": "hello"}, "records with prompt, completion"),
        ({"instruction": "x", "input": "", "output": "y"}, "records with instruction, output"),
        ({"conversation_a": CHAT, "conversation_b": CHAT}, "conversation_a, conversation_b"),
        (None, "not JSON in UTF-8"),
        ({"conversations": json.dumps(SHARE)}, "records with conversations"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_counted_by_name(record: Any, name: str) -> None:
    dataset = parse_records([record, {"messages": CHAT}, record])
    assert dataset.conversations == [PAIR]
    assert f"{name} (2)" in dataset.describe()


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"prompt": "other"}, "prompt"),
        ({"completion": "other"}, "completion"),
        ({"rejected": [CHAT[0], {"role": "assistant", "content": "no"}]}, "rejected"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"image": "a.jpg"}, "image"),
        ({"system": ["be brief"]}, "system"),
        ({"documents": [{"text": "x"}]}, "documents"),
        ({"chat_template_kwargs": {"custom_instructions": "be brief"}}, "chat_template_kwargs"),
    ],
)
def test_what_stands_beside_a_conversation_is_counted_by_name(
    more: dict[str, Any], name: str
) -> None:
    dataset = parse_records([{"messages": CHAT, **more}])
    assert (dataset.conversations, dataset.describe()) == (
        [PAIR], f"1 conversations; not read: {name} (1)",
    )  # fmt: skip


def test_other_system_messages_and_thoughts_are_counted_too() -> None:
    record = {"messages": [{"role": "system", "content": "be brief"}, *CHAT], "system": "be long"}
    others = [said("hello", **{name: [{"text": "they greet"}]}) for name in OF_A_TURN]
    dataset = parse_records([record, *others])
    assert dataset.conversations == [[BRIEF, *PAIR], *[PAIR] * len(others)]
    assert dataset.unread == {"system beside another one": 1, **dict.fromkeys(OF_A_TURN, 1)}


@pytest.mark.parametrize("weight", [0.5, -1, "0", [1]])
def test_a_weight_of_another_kind_is_counted_and_costs_no_turn(weight: Any) -> None:
    for replies in (True, False):
        dataset = parse_records([said("hello", weight=weight)], replies=replies)
        assert dataset.conversations == [PAIR if replies else PAIR[:1]]
        assert dataset.describe() == f"1 conversations; not read: weight {weight} (1)"


def test_a_broken_file_has_a_short_report() -> None:
    records = [said("x", weight=n) for n in range(2, 99)]
    report = parse_records(records).describe()
    assert "89 others" in report and len(report) < 300


@pytest.mark.parametrize(
    "flag",
    [
        *({"weight": 0}, {"weight": 0.0}, {"loss": False}, {"train": False}),
        *({"loss": 0}, {"train": 0.0}, {"loss_mask": 0}),  # as tables have them
    ],
)
def test_a_reply_of_no_weight_is_read_and_not_learned(flag: dict[str, Any]) -> None:
    whole = {"messages": [*CHAT, *said("hello again")["messages"]]}
    partly = {"messages": [CHAT[0], {**CHAT[1], **flag}, *said("hello again")["messages"]]}
    tokenizer: Any = folder.tokenizer()
    template = resolve(tokenizer, None)
    conversations = parse_records([whole, partly]).conversations
    first, second = Rows(conversations, template, tokenizer, 512)
    assert first["input_ids"] == second["input_ids"]
    learned = [
        [n for n, label in enumerate(row["labels"]) if label != IGNORE] for row in (first, second)
    ]
    half = len(learned[0]) - len(learned[1])
    assert learned[1] == learned[0][half:]  # the second reply and its end
    assert tokenizer.decode([first["input_ids"][n] for n in learned[0][:half]]).split() == [
        "hello</s>"
    ]


def test_lines_of_another_encoding_are_counted_and_such_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [json.dumps(said(text), ensure_ascii=False) for text in ("hello", "café", "hello")]
    path.write_bytes("\r\n".join(rows).encode("latin-1"))
    dataset = read_conversations(str(path))
    assert dataset.conversations == [PAIR, PAIR]
    assert (
        "1 skipped as malformed; not read: lines that are not JSON in UTF-8 (1)"
        in dataset.describe()
    )
    for data, name in (
        ("\n".join(rows).encode("utf-16"), "UTF-16"),
        (f"[{rows[1]}]".encode("latin-1"), "not UTF-8: byte 0xe9"),
        (b"\x7fELF\0\xff\n{}", "not a text"),
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=name) as caught:
            read_conversations(str(path))
        assert str(path) in caught.value.message
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(said("cut \ud83d")).encode())
    (conversation,) = read_conversations(str(path)).conversations
    assert conversation[1].content == "cut \ufffd"
    path.write_bytes(
        2 * (b"\xef\xbb\xbf" + rows[0].encode() + b"\n")
    )  # two files, one behind the other
    assert read_conversations(str(path)).conversations == [PAIR, PAIR]


def test_a_task_beside_a_conversation_is_that_conversation(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"question": "hi", "messages": CHAT}, {"question": "other", "messages": CHAT}]
    rows += [{"question": "hi", "answer": "hello"}, {"question": None, "answer": "hello"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = read_tasks(str(path))
    assert dataset.conversations == [PAIR] * 3
    assert dataset.unread == {"question": 1, "content null": 1}
    more = {
        "question": "hi",
        "answer": "hello",
        "system": "be brief",
        "context": "They meet.",
        "level": 3,
    }
    path.write_text(json.dumps(more))
    dataset = read_tasks(str(path))
    assert (dataset.conversations, dataset.unread) == ([[BRIEF, *PAIR]], {"context": 1})
