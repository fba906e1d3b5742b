"""Self-distillation data: replayed turns, resumed files, servers that fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import folder
import pytest
from full_disk import room

from nfox import load
from nfox.errors import NfoxError, UsageError
from nfox.files.jsonl import WorkShare, append_lines, finished_ids
from nfox.models.options import ModelOptions
from nfox.reply import Settings
from nfox.text.messages import Message
from nfox.text.template import Template
from nfox.train.data.answerer import Answerer, Answers
from nfox.train.data.api_answerer import ApiAnswerer
from nfox.train.data.conversations import ConversationDataset, parse_records, read_conversations
from nfox.train.data.local_answerer import LocalAnswerer
from nfox.train.data.self_distillation import self_distill


def conversation(*questions: str, system: str | None = None) -> list[Message]:
    turns = [Message("system", system)] if system else []
    for question in questions:
        turns += [Message("user", question), Message("assistant", "not this")]
    return turns


DATASET = ConversationDataset(
    [conversation("the fox", "and the dog?"), conversation("quick", system="Be brief."),
     conversation("brown fox jumps")]
)  # fmt: skip


class Echo(Answerer):
    """Answers with the question in capitals; refuses what has "refuse" in it."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def answer(self, conversations: Sequence[Sequence[Message]]) -> Answers:
        self.seen.append(len(conversations))
        last = [messages[-1].content for messages in conversations]
        return ["no" if "refuse" in q else Message("assistant", q.upper()) for q in last]


def lines(path: Path) -> dict[str, list[dict[str, str]]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["id"]: row["messages"] for row in rows}


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_batch_gives_what_the_chat_gives(family: str, tmp_path: Path) -> None:
    loading = ModelOptions(dtype="float32")
    chat = load(
        str(getattr(folder, family)()),
        method="none",
        loading=loading,
        settings=Settings(max_new_tokens=12),
    )
    done = self_distill(
        DATASET, LocalAnswerer(chat.model, chat.template, 12), tmp_path / "own.jsonl", batch=3
    )
    assert done.counts["kept"] == 3
    for number, messages in lines(tmp_path / "own.jsonl").items():
        expected: list[Message] = []
        for turn in DATASET.conversations[int(number)]:
            if turn.role == "assistant":
                reply = chat.answer(expected)
                turn = Message("assistant", reply.text.strip(), tuple(reply.ids))
            expected.append(turn)
        assert [m["content"] for m in messages] == [m.content for m in expected]


def test_what_was_written_can_be_trained_on(tmp_path: Path) -> None:
    self_distill(DATASET, Echo(), tmp_path / "own.jsonl")
    again = read_conversations(str(tmp_path / "own.jsonl"))
    assert len(again.conversations) == 3
    assert again.cut == again.malformed == 0


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    self_distill(ConversationDataset(DATASET.conversations[:2]), Echo(), out)
    before, echo = out.read_text(), Echo()
    counts = self_distill(DATASET, echo, out).counts
    assert (counts["kept"], counts["before"]) == (1, 2)
    assert echo.seen == [1]
    assert out.read_text().startswith(before)
    assert finished_ids(out) == {"0", "1", "2"}


def test_several_processes_share_the_work(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    for rank in range(2):
        self_distill(DATASET, Echo(), out, share=WorkShare(rank, 2))
    assert sorted(lines(out)) == ["0", "1", "2"]
    assert len(out.read_text().splitlines()) == 3


def test_what_fails_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    dataset = ConversationDataset(
        [conversation("refuse"), conversation("fine", "refuse", "never asked"), conversation("ok")]
    )
    counts = self_distill(dataset, Echo(), tmp_path / "own.jsonl", batch=2).counts
    assert (counts["kept"], counts["cut"], counts["failed"]) == (1, 1, 1)
    assert lines(tmp_path / "own.jsonl")["1"] == [
        {"role": "user", "content": "fine"},
        {"role": "assistant", "content": "FINE"},
    ]


def test_what_does_not_fit_is_cut(tmp_path: Path) -> None:
    chat = load(str(folder.llama(context=64)), method="none")
    dataset = ConversationDataset([conversation("fox", "dog " * 60), conversation("fox " * 60)])
    done = self_distill(
        dataset, LocalAnswerer(chat.model, chat.template, 12), tmp_path / "own.jsonl"
    )
    assert (done.counts["cut"], done.counts["failed"]) == (1, 1)
    assert "64 is the context" in done.last_error


def test_a_reply_that_can_never_fit_is_refused_before_any_is_made() -> None:
    chat = load(str(folder.llama(context=64)), method="none")
    with pytest.raises(UsageError, match="context of 64 tokens"):
        LocalAnswerer(chat.model, chat.template, 64)


def test_what_the_template_refuses_costs_that_conversation_only(tmp_path: Path) -> None:
    def render(turns: Any, generate: bool) -> str:
        if "bad" in turns[-1]["content"]:
            raise ValueError("no bad words")
        return "".join(turn["content"] for turn in turns)

    chat, out = load(str(folder.llama()), method="none"), tmp_path / "own.jsonl"
    template = Template("strict", "here", render).with_end(chat.model.tokenizer)
    dataset = ConversationDataset(
        [conversation("bad fox"), conversation("fox"), conversation("a", "bad")]
    )
    done = self_distill(dataset, LocalAnswerer(chat.model, template, 4), out)
    assert (done.counts["kept"], done.counts["cut"], done.counts["failed"]) == (1, 1, 1)
    assert "no bad words" in done.last_error
    assert sorted(lines(out)) == ["1", "2"]


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "diary.txt"
    out.write_text("dear diary\n")
    with pytest.raises(UsageError, match="line 1"):
        self_distill(DATASET, Echo(), out)
    assert out.read_text() == "dear diary\n"


def test_a_line_that_was_not_finished_is_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    self_distill(DATASET, Echo(), out)
    complete = lines(out)
    out.write_text(out.read_text()[:-20])
    assert self_distill(DATASET, Echo(), out).counts["kept"] == 1
    assert lines(out) == complete


def test_a_file_without_a_line_break_is_not_emptied(tmp_path: Path) -> None:
    out = tmp_path / "diary.txt"
    out.write_text("dear diary")
    with pytest.raises(UsageError, match="line 1"):
        finished_ids(out)
    assert out.read_text() == "dear diary"


@pytest.fixture
def server() -> Iterator[str]:
    """An OpenAI-compatible server that fails now and then."""
    busy = [429, 503]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            assert body["max_tokens"] == 9
            answer = {"parts": [{"type": "text", "text": "PARTS"}], "image": [{"type": "image"}]}
            said = answer.get(text, text.upper())
            if text == "secret":
                said = f"not with {self.headers['Authorization']}"
            reply = {"choices": [{"message": {"content": said}}]}
            status = {"refuse": 500, "secret": 401, "long": 400}.get(text, 200)
            self.send_response(busy.pop() if text == "busy" and busy else status)
            self.end_headers()
            self.wfile.write(b"[]" if "odd" in text else json.dumps(reply).encode())

        def log_message(self, *args: object) -> None: ...

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_port}/v1/chat/completions"
    http_server.shutdown()
    http_server.server_close()


def test_a_server_can_answer_too(tmp_path: Path, server: str) -> None:
    dataset = parse_records(
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}]}
        for text in ("fine", "refuse", "odd", "good")
    )
    answerer = ApiAnswerer(server, "m", 9, concurrency=3, wait=0)
    counts = self_distill(dataset, answerer, tmp_path / "own.jsonl", batch=4).counts
    assert (counts["kept"], counts["failed"]) == (2, 2)


def test_the_parts_of_a_servers_reply_are_its_text(server: str) -> None:
    questions = [conversation(text)[:1] for text in ("parts", "image", "cut \ud83d")]
    parts, image, cut = ApiAnswerer(server, "m", 9).answer(questions)
    assert (parts, cut) == (Message("assistant", "PARTS"), Message("assistant", "CUT \ufffd"))
    assert image == "the server's answer is no chat completion"


def test_a_busy_server_is_asked_again(server: str) -> None:
    assert ApiAnswerer(server, "m", 9, wait=0).answer([conversation("busy")[:1]]) == [
        Message("assistant", "BUSY")
    ]


def test_what_a_server_says_against_a_question_is_the_reason(server: str) -> None:
    answers = ApiAnswerer(server, "m", 9, wait=0).answer(
        [conversation(q)[:1] for q in ("refuse", "long")]
    )
    assert [str(reason)[:8] for reason in answers] == ["HTTP 500", "HTTP 400"]


def test_a_server_that_wants_another_key_ends_it(server: str) -> None:
    for key in ("k-17", 'k"1/7'):
        with pytest.raises(NfoxError, match=r"HTTP 401.*not with Bearer \*\*\*") as error:
            ApiAnswerer(server, "m", 9, key=key).answer([conversation("secret")[:1]])
        assert "17" not in f"{error.value}" and "1/7" not in f"{error.value}"


@pytest.mark.parametrize("key", ["sk\n", "sk-\u00e9"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str, server: str) -> None:
    with pytest.raises(UsageError, match="--api-key has characters") as error:
        ApiAnswerer(server, "m", 9, key=key).answer([conversation("good")[:1]])
    assert "sk" not in f"{error.value}"


@pytest.mark.parametrize("url", ["localhost:8080/v1", "ftp://here/v1"])
def test_what_is_no_address_is_one_line(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        ApiAnswerer(url, "m").answer([conversation("a")[:1]])


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """Another process goes on behind them."""
    out = tmp_path / "own.jsonl"
    self_distill(ConversationDataset(DATASET.conversations[:1]), Echo(), out)
    before = out.read_bytes()
    with room(len(before) + 9), pytest.raises(OSError, match="too large"):
        self_distill(DATASET, Echo(), out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("torn", ['{"id": "1", "mess', '{"id": "' + "x" * (1 << 18), ""])
def test_lines_stay_whole_behind_one_that_a_killed_process_left(torn: str, tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    self_distill(ConversationDataset(DATASET.conversations[:1]), Echo(), out)
    before = out.read_text()
    for start in (before, ""):
        out.write_text(start + torn)
        append_lines(out, '{"id": "2"}\n')
        append_lines(out, '{"id": "3"}\n')
        assert out.read_text() == start + '{"id": "2"}\n{"id": "3"}\n'


def test_nobody_at_the_address_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NfoxError, match="nobody answers"):
        self_distill(DATASET, ApiAnswerer("http://127.0.0.1:9/v1", "m"), tmp_path / "own.jsonl")
