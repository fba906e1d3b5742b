"""ConversationDataset to learn from: what is read, what is left out, and what of it is learned."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import types
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import folder
import pytest

from nfox.errors import NfoxError, UsageError
from nfox.heads.base import IGNORE
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.text.template import Template
from nfox.train.data.conversations import normalise, parse_records, read_conversations
from nfox.train.data.rows import Rows, collate

U, A, S = "user", "assistant", "system"


def share(*turns: tuple[str, str]) -> dict[str, Any]:
    names = {U: "human", A: "gpt", S: "system"}
    return {"conversations": [{"from": names.get(r, r), "value": text} for r, text in turns]}


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


GOOD = ((U, "the fox"), (A, "jumps over"), (U, "the dog"), (A, "the lazy dog"))


@pytest.mark.parametrize("layout", [share, chat])
@pytest.mark.parametrize("form", ["list", "lines", "one"])
def test_both_layouts_in_all_files_are_the_same(layout: Any, form: str, tmp_path: Path) -> None:
    records = [layout(*GOOD)] * (1 if form == "one" else 2)
    path = tmp_path / "data.json"
    if form == "lines":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    else:
        path.write_text(json.dumps(records if form == "list" else records[0], indent=1))
    dataset = read_conversations(str(path))
    assert dataset.conversations == [[Message(*turn) for turn in GOOD]] * len(records)
    assert (dataset.cut, dataset.malformed) == (0, 0)


def test_a_gzipped_file_is_read_as_what_is_in_it(tmp_path: Path) -> None:
    plain, packed = tmp_path / "data.jsonl", tmp_path / "data.jsonl.gz"
    plain.write_text("".join(json.dumps(share(*GOOD)) + "\n" for _ in range(2)))
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    assert read_conversations(str(packed)) == read_conversations(str(plain))
    assert read_conversations(str(plain.rename(tmp_path / "unpacked.gz"))) == read_conversations(
        str(packed)
    )


@pytest.mark.parametrize(
    "broken", [lambda b: b[:-9], lambda b: b[:12] + b"\xff" + b[13:], lambda b: b[:2] + b"odd" * 9]
)
def test_a_gzipped_file_that_is_broken_is_one_line(broken: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(broken(gzip.compress(json.dumps(share(*GOOD)).encode())))
    with pytest.raises(UsageError, match="not readable") as caught:
        read_conversations(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("turns", "kept", "whole"),
    [
        ([S, U, A], [S, U, A], True),
        ([A, U, A], [U, A], False),
        ([S, A, U, A], [S, U, A], False),
        ([U, A, U], [U, A], False),
        ([U, A, A, U, A], [U, A], False),
        ([U, U, A], [], False),
        ([U, A, "tool", A], [U, A], False),
        ([S, U], [], False),
        ([U], [], False),
        ([], [], True),
    ],
)
def test_only_whole_turns_are_kept(turns: list[str], kept: list[str], whole: bool) -> None:
    messages, all_of_it = normalise(share(*((role, "x") for role in turns)))
    assert [message.role for message in messages] == kept
    assert all_of_it == whole


ODD = [None, 3, [], {}, {"conversations": None}, {"conversations": "x"}, {"messages": [1, None]}]


@pytest.mark.parametrize("record", [*ODD, {"messages": [{"role": U, "content": None}]}])
def test_malformed_records_are_skipped_and_counted(record: Any) -> None:
    dataset = parse_records([record, share(*GOOD), record])
    assert (len(dataset.conversations), dataset.malformed) == (1, 2)
    assert "2 skipped" in dataset.describe()


def test_bare_lists_of_messages_are_read() -> None:
    """As Medusa's create_data.py writes them."""
    dataset = parse_records([chat(*GOOD)["messages"], None])
    assert dataset.conversations == [[Message(*turn) for turn in GOOD]]
    assert dataset.malformed == 1


def test_bare_lists_of_messages_stand_on_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    line = json.dumps(chat(*GOOD)["messages"]) + "\n"
    path.write_text(line + line[:30] + "\n" + line)
    dataset = read_conversations(str(path))
    assert dataset.conversations == [[Message(*turn) for turn in GOOD]] * 2
    assert dataset.malformed == 1


def test_a_question_without_a_reply_is_counted_as_that() -> None:
    dataset = parse_records([share((U, "hi")), share((S, "be"), (U, "hi")), share(*GOOD), {"a": 1}])
    assert (len(dataset.conversations), dataset.unanswered, dataset.malformed) == (1, 2, 1)
    assert "2 without a reply, 1 skipped as malformed" in dataset.describe()


@pytest.mark.parametrize(
    ("turns", "kept", "whole"),
    [
        ([U], [U], True),
        ([U, U, U], [U, U, U], True),
        ([S, U, A, U], [S, U, U], True),
        ([A, U], [U], True),
        ([U, "tool", U], [U], False),
        ([S], [], True),
        ([S, A], [], True),
    ],
)
def test_where_replies_are_made_anew_questions_are_enough(
    turns: list[str], kept: list[str], whole: bool
) -> None:
    dataset = parse_records([share(*((role, "x") for role in turns))], replies=False)
    assert [message.role for messages in dataset.conversations for message in messages] == kept
    assert (len(dataset.conversations), dataset.cut) == (bool(kept), bool(kept) and not whole)


def test_a_line_cut_off_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(share(*GOOD)) + "\n" + json.dumps(share(*GOOD))[:40])
    assert (
        len(read_conversations(str(path)).conversations),
        read_conversations(str(path)).malformed,
    ) == (1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no conversation with a reply"),
        ("", "no conversation with a reply"),
        (json.dumps([share((U, "hi"))]), "no conversation with a reply"),
        ("[{", "not JSON"),
    ],
)
def test_data_without_a_reply_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        read_conversations(str(path))
    assert "\n" not in str(caught.value)


def test_absent_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_conversations(str(tmp_path / "absent.json"))
    with pytest.raises(UsageError, match="no such file"):
        read_conversations(str(tmp_path / "absent.jsonl.gz"))
    with pytest.raises(UsageError, match="a folder with one; found none"):
        read_conversations(str(tmp_path))


def test_a_folder_stands_for_the_only_file_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = tmp_path / "ShareGPT" / "own.jsonl"
    inner.parent.mkdir()
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    inner.write_text(json.dumps({"conversations": turns}) + "\n")
    (tmp_path / "README.md").write_text("...")
    (inner.parent / "own.jsonl.provenance.json").write_text("{}")  # as we leave it beside
    assert len(read_conversations(str(tmp_path)).conversations) == 1
    assert "ShareGPT/own.jsonl is read" in caplog.text
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(UsageError, match=r"found 2: ShareGPT/own.jsonl, other.json"):
        read_conversations(str(tmp_path))


def test_the_hidden_states_of_ctc_are_no_conversations(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "data_0.ckpt").write_bytes(b"PK")
    with pytest.raises(UsageError, match="hidden states") as caught:
        read_conversations(str(tmp_path))
    assert "conversations that they were made of" in caught.value.hint


def test_a_text_file_asks_a_question_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("first?\n\n second? \n")
    asked = read_conversations(str(tmp_path / "prompts.txt"), replies=False).conversations
    assert [[message.content for message in messages] for messages in asked] == [
        ["first?"],
        ["second?"],
    ]


def test_a_hub_id_needs_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="`datasets` is not installed") as caught:
        read_conversations("someone/something")
    assert "nfox[train]" in caught.value.hint


def test_a_hub_id_is_loaded_with_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def load_dataset(name: str, split: str, cache_dir: str | None) -> list[Any]:
        asked.append((name, split, cache_dir))
        if name == "not/there":
            raise FileNotFoundError("no such dataset\nand a long story")
        return [share(*GOOD)]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: module)
    assert (
        len(read_conversations("some/one").conversations)
        == len(read_conversations("some/one:test", "kept").conversations)
        == 1
    )
    assert asked == [("some/one", "train", None), ("some/one", "test", "kept")]
    with pytest.raises(NfoxError, match=r"no such dataset$"):
        read_conversations("not/there")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve a folder; yield its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_read_as_a_file_is(tmp_path: Path, server: str) -> None:
    (tmp_path / "some.jsonl.gz").write_bytes(gzip.compress(json.dumps(share(*GOOD)).encode()))
    assert len(read_conversations(f"{server}/some.jsonl.gz").conversations) == 1
    with pytest.raises(NfoxError, match=r"cannot read .*404"):
        read_conversations(f"{server}/other.jsonl")
    with pytest.raises(NfoxError, match=r"cannot read http://127\.0\.0\.1:9/x"):
        read_conversations("http://127.0.0.1:9/x")


def test_schema_guided_dialogues_are_read_as_published(tmp_path: Path) -> None:
    turns = [
        {"speaker": "USER", "utterance": "A table for two?", "frames": []},
        {"speaker": "SYSTEM", "utterance": "At what time?", "frames": []},
    ]
    file = tmp_path / "dialogues_001.json"
    file.write_text(json.dumps([{"dialogue_id": "1_00000", "services": ["x"], "turns": turns}]))
    (conversation,) = read_conversations(str(file)).conversations
    assert [(message.role, message.content) for message in conversation] == [
        ("user", "A table for two?"), ("assistant", "At what time?"),
    ]  # fmt: skip


def make_rows(conversations: list[list[Message]], length: int = 512, **options: Any) -> Rows:
    tokenizer: Any = folder.tokenizer()
    return Rows(conversations, resolve(tokenizer, None), tokenizer, length, **options)


def test_replies_and_their_ends_are_learned_and_nothing_else() -> None:
    tokenizer: Any = folder.tokenizer()
    row = make_rows([[Message(*turn) for turn in GOOD]])[0]
    learned = [token for token in row["labels"] if token != IGNORE]
    assert tokenizer.decode(learned) == " jumps over</s> the lazy dog</s>" or (
        tokenizer.decode(learned).replace(" ", "") == "jumpsover</s>thelazydog</s>"
    )
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    assert all(label in (token, IGNORE) for token, label in pairs)


def test_rows_made_later_are_those_made_at_once() -> None:
    conversations = [[Message(*turn) for turn in GOOD[: 2 * n]] for n in (1, 2)]
    now, later = make_rows(conversations), make_rows(conversations, lazy=True)
    assert list(map(now.__getitem__, range(2))) == list(map(later.__getitem__, range(2)))
    assert now.tokens == sum(len(now[i]["input_ids"]) for i in range(2))
    assert later.tokens is None


def test_long_rows_are_cut_and_those_without_a_reply_left_out() -> None:
    short, long = [Message(U, "a"), Message(A, "b" * 90)], [Message(U, "a" * 90), Message(A, "b")]
    rows = make_rows([short, long], 40)
    assert (len(rows), rows.left_out) == (1, 1)
    assert len(rows[0]["input_ids"]) == len(rows[0]["labels"]) == 40
    with pytest.raises(UsageError, match="first 40 tokens"):
        make_rows([long], 40)
    assert set(make_rows([long], 40, lazy=True)[0]["labels"]) == {IGNORE}


def test_what_a_template_refuses_is_left_out() -> None:
    def render(turns: Any, generate: bool) -> str:
        if "no" in turns[0]["content"]:
            raise ValueError("not this one")
        return "".join(turn["content"] for turn in turns)

    template, tokenizer = Template("strict", "here", render), folder.tokenizer()
    yes, no = ([Message(U, text), Message(A, "b")] for text in ("yes", "no"))
    assert Rows([yes, no], template, tokenizer, 99).left_out == 1
    with pytest.raises(NfoxError, match="not this one"):
        Rows([no], template, tokenizer, 99)


def test_batches_are_padded_on_the_right_and_padding_is_not_learned() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "labels": [IGNORE, 6, 7]},
        {"input_ids": [8], "labels": [8]},
    ]
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]
