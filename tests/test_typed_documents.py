"""Documents are typed, line after line, by somebody who has the files that they name."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import folder
import programs
import pytest
import stand_ins
from documents import ROOT, code
from serving import QUESTION, load_tiny

from nfox import Conversation
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.writer import LogWriter

pytestmark = pytest.mark.slow

DOCUMENTS = ("chat.md", "models.md", "quality.md")
"""Those whose lines take no training and no measurement, which other tests do."""
NOT_RUN = {
    r"nfox --resume|nfox --model|nfox get": "the README's test does the like",
    r"nfox race|nfox bench": "it measures",
    r"accelerate": "it starts processes",
}
TABLE = {"db_id": "pets", "table_names_original": ["pet"], "column_names_original": [[0, "name"]]}
FILES = {
    "in.jsonl": [{"prompt": "the fox"}, {"prompt": "a dog"}],
    "test.jsonl": [{"question": "What is 1 + 1?", "answer": "2\n#### 2"}],
    "HumanEval.jsonl": [{"task_id": "0", "entry_point": "f", "prompt": "def f():\n"}],
    "dev.json": [{"db_id": "pets", "question": "Who?", "query": "SELECT name FROM pet"}],
    "tables.json": [TABLE | {"column_types": ["text"], "primary_keys": [], "foreign_keys": []}],
    "test.json": [{"messages": [*QUESTION, {"role": "assistant", "content": "the lazy dog"}]}],
}
"""What stands in the files that are named, each record in a line; a list in those of .json."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with all that the documents name: files, models, twelve conversations."""
    place = tmp_path / "work"
    for name in ("my-model", "coder", "sql"):
        shutil.copytree(folder.equipped(), place / name)
    for name, records in FILES.items():
        lines = [json.dumps(record) for record in records]
        text = "\n".join(lines) if name.endswith("l") else f"[{', '.join(lines)}]"
        (place / name).write_text(text)
    (place / "in.txt").write_text("the fox\na dog\n")
    return place


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return variables under which the models of the hub and a log are found."""
    own = stand_ins.lay_out(tmp_path / "home")
    stand_ins.keep(tmp_path / "home" / "hub", "cllm/consistency-llm-7b-math", folder.llama())
    monkeypatch.setenv("XDG_STATE_HOME", own["XDG_STATE_HOME"])
    log, engine = ConversationLog(), load_tiny()
    for number in range(12):
        conversation, writer = Conversation(engine), LogWriter(log)
        reply = conversation.send(f"a fox at river {number}")
        writer.keep_question(conversation)
        writer.keep(conversation, reply.read_to_end())
    return {**programs.ENVIRONMENT, **own}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_line_of_a_document_works(name: str, work: Path, environment: dict[str, str]) -> None:
    lines = [line for line in code(ROOT / "docs" / name) if re.match("(nfox|echo) ", line)]
    typed = [line for line in lines if not any(re.match(other, line) for other in NOT_RUN)]
    assert len(typed) > 3
    for line in typed:
        words, text, file = shlex.split(line, comments=True), "", None
        if words[0] == "echo":
            _, text, _, *words = words
        if ">" in words:
            *words, _, file = words
        if words[1:3] == ["log", "delete"]:
            words.append("--yes")  # without a terminal nobody is asked
        options = {"env": environment, "prepare": "stand_ins:find"}
        done = programs.run(*words[1:], input=text, cwd=work, **options)
        assert done.returncode == 0, (line, done.stderr)
        if file:
            (work / file).write_text(done.stdout)
