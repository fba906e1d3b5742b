"""`nfox generate` and `nfox methods`, run as a person runs them, in this process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cli_model
import folder
import pytest
from typer.testing import CliRunner, Result

from nfox import drafters
from nfox.cli.app import app

SMALL = ("--max-new-tokens", "8", "--dtype", "float32")


def run(*arguments: str, stdin: str | None = None) -> Result:
    model = () if "--model" in arguments else ("--model", str(folder.llama()))
    small = arguments[0] == "generate" and "--max-new-tokens" not in arguments
    command = [*arguments, *model, *(SMALL if small else ())]
    return CliRunner().invoke(app, command, input=stdin)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_prompts_from_arguments_and_from_stdin_are_the_same() -> None:
    given = run("generate", "hello", "and you?")
    assert given.exit_code == 0
    piped = run("generate", stdin="hello\n\nand you?\n")
    assert [row["tokens"] for row in lines(given.stdout)] == [
        row["tokens"] for row in lines(piped.stdout)
    ]
    assert [row["id"] for row in lines(given.stdout)] == ["0", "1"]
    assert all(row["finish_reason"] in ("stop", "length") for row in lines(given.stdout))


def test_a_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    refused = run("generate", "hello", "--out", str(tmp_path / "none" / "answers.jsonl"))
    assert refused.exit_code == 2 and "there is no folder" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_reply_reads_alike_in_every_output(tmp_path: Path) -> None:
    """No output begins with the space that the first token brings along."""
    model = ("--model", str(cli_model.save(tmp_path)), "--max-new-tokens", "8")
    [row] = lines(run("generate", "hello", *model).stdout)
    *deltas, end = lines(run(*model, "--json", "-p", "hello").stdout)[1:]
    streamed = "".join(str(delta["text"]) for delta in deltas)
    plain = run(*model, "-p", "hello").stdout
    assert row["text"] == end["text"] == streamed == plain.removesuffix("\n")
    assert row["text"] == "The quick brown fox 🦊"


def test_a_text_file_has_a_prompt_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffhello\n\n  and you?\r\n".encode() + b"\xff\n{}")
    done = run("generate", "--prompts", str(file))
    told = [(row["id"], row.get("error", "")) for row in lines(done.stdout)]
    assert told == [("0", ""), ("2", ""), ("3", f"{file}, line 4: not UTF-8"), ("4", "")]
    first, second, *_ = lines(done.stdout)
    given = lines(run("generate", "hello", "x", "and you?").stdout)  # the index is in the noise
    assert [first["tokens"], second["tokens"]] == [given[0]["tokens"], given[2]["tokens"]]


def test_a_file_is_answered_once(tmp_path: Path) -> None:
    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"id": name, "prompt": f"hello {name}"} for name in "abc"]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    assert run("generate", "--prompts", str(prompts), "--out", str(out)).exit_code == 0
    whole = lines(out.read_text())
    assert [row["id"] for row in whole] == list("abc")
    out.write_text(json.dumps(whole[0]) + "\n" + json.dumps(whole[1])[:20])  # killed in a line
    assert run("generate", "--prompts", str(prompts), "--out", str(out)).exit_code == 0
    assert [row["tokens"] for row in lines(out.read_text())] == [row["tokens"] for row in whole]
    before = out.read_text()
    assert "already" in run("generate", "--prompts", str(prompts), "--out", str(out)).stderr
    assert out.read_text() == before


def test_files_of_windows_and_broken_lines_do_not_stop_the_others(tmp_path: Path) -> None:
    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"id": name, "prompt": "hello"} for name in "abc"]
    data = "\r\n".join(map(json.dumps, rows)).encode("utf-8-sig")
    prompts.write_bytes(data.replace(b'"b", "prompt": "hello', b'"b", "prompt": "h\xe9llo'))
    command = ("generate", "--prompts", str(prompts), "--out", str(out))
    for _ in range(2):  # when it goes on, too
        done = run(*command)
        assert (done.exit_code, "1 of 3 prompts" in done.stderr) == (1, True)
        a, b, c = lines(out.read_text())
        assert a["tokens"] == c["tokens"] != []
        assert b["error"] == f"{prompts}, line 2: not UTF-8"
    piped = CliRunner().invoke(
        app, ["generate", "--model", str(folder.llama()), *SMALL], input=data
    )
    assert piped.exit_code == 0
    assert "\ufeff" not in piped.stdout
    prompts.write_bytes(data.decode("utf-8-sig").encode("utf-16"))
    refused = run(*command)
    assert (refused.exit_code, "UTF-16" in refused.stderr) == (2, True)


def test_it_goes_on_with_options_that_are_no_utf_8(tmp_path: Path) -> None:
    prompts, out = tmp_path / "in\udcff.jsonl", tmp_path / "out\udcff.jsonl"
    prompts.write_bytes(b'{"prompt": "hello"}\n{"prompt": "caf\xe9"}')
    command = ("generate", "--prompts", str(prompts), "--out", str(out), "--stop", "\udcfe")
    for said in ("2 prompts, 0 of them answered before", "all prompts are answered already"):
        done = run(*command, "--system", "\udcfd")
        assert (done.exit_code, said in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("rows", "codes", "code"),
    [
        ([b"hello", b"x " * 600], [0, 4], 4),
        ([b"x " * 600, b"caf\xe9"], [4, 2], 1),
        ([b"caf\xe9", b"hello"], [2, 0], 1),
    ],
)
def test_the_exit_code_blames_the_context_only_where_nothing_else_failed(
    rows: list[bytes], codes: list[int], code: int, tmp_path: Path
) -> None:
    prompts, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    prompts.write_bytes(b"\n".join(rows))
    command = ("generate", "--prompts", str(prompts))
    done = run(*command)
    assert (done.exit_code, [row.get("code", 0) for row in lines(done.stdout)]) == (code, codes)
    for _ in range(2):  # the second one answers nothing
        assert run(*command, "--out", str(out)).exit_code == code
    assert [row.get("code", 0) for row in lines(out.read_text())] == codes


def test_without_prompts_nothing_is_loaded(tmp_path: Path) -> None:
    done = run("generate", "--model", "./absent", stdin="\n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("nfox: error: there are no prompts in stdin\nhint: ")
    prompts = tmp_path / "empty.jsonl"
    prompts.touch()
    done = run("generate", "--model", "./absent", "--prompts", str(prompts))
    assert (done.exit_code, f"there are no prompts in {prompts}" in done.stderr) == (2, True)


@pytest.mark.slow
def test_every_method_writes_the_same_greedy_text() -> None:
    texts = set()
    for name in drafters.method_names():
        result = run("generate", "hello", "--method", name, "--model", str(folder.equipped()))
        row = lines(result.stdout)[0]
        assert row["spec"]["method"] == name
        texts.add(row["text"])
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--prompts", "absent.jsonl"], 2, "no such file"),
        (["hello", "--prompts", "x"], 2, "give one of them"),
        (["hello", "--out", "/dev/full"], 2, "not a regular file"),
        (["hello", "--method", "magic"], 2, "unknown method"),
        (["hello", "-o", "nonsense"], 2, "nonsense"),
        (["hello", "--model", "./absent"], 3, "no such folder"),
        (["x " * 600], 4, "not answered"),
    ],
)
def test_mistakes_are_one_line_and_a_code(arguments: list[str], code: int, said: str) -> None:
    result = run("generate", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_methods_says_what_is_needed_and_what_was_found() -> None:
    found = json.loads(run("methods", "--json").stdout)["methods"]
    assert [row["name"] for row in found] == drafters.method_names()
    assert all(row["ready"] is not bool(row["needs"]) for row in found)
    given = json.loads(run("methods", "--json", "--model", str(folder.equipped())).stdout)[
        "methods"
    ]
    assert all(row["ready"] for row in given)
    shown = run("methods").stdout
    for row in found:
        assert row["name"] in shown
        assert all(f"-o {option}=" in shown for option in row["options"])
        state = "ready" if row["ready"] else "missing"
        assert re.search(rf"^  {row['name']} +{state} ", shown, re.MULTILINE)
        assert not row["weights"] or f"<model>/nfox/{row['name']}" in shown


def test_a_tree_is_named_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    model = ("--model", str(folder.equipped()))
    for method in drafters.method_names():
        if "tree" not in drafters.method_class(method).options.__dataclass_fields__:
            continue
        wrong = run("generate", "hello", *model, "--method", method, "--tree", "oak")
        assert (wrong.exit_code, "no tree 'oak'" in wrong.stderr) == (2, True)
        right = run("generate", "hello", *model, "--method", method, "--tree", "vicuna_33b_stage2")
        assert right.exit_code == 0
        assert "4 deep" in caplog.text  # and cut where the heads end
        caplog.clear()
