"""Commands that no person would type, in a chat in a pseudo-terminal: it never ends by itself, no
conversation is lost, and nothing that was typed or read steers the terminal.

    python benchmarks/commands.py --count 3000

Names that no file can have, files that are broken, folders that are locked, numbers beyond all
limits, escape sequences, Ctrl-C at any moment, other models; for a while the disk keeps nothing.
`/prove`, among them, finds every reply that is not what plain decoding gives.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typist import Typist

_FORGETTING = (*("/reset", "/clear", "!!reset", "/undo", "!!remove", "/load", "!!load", "/resume"),)
_COMMANDS = (
    *("/help", "/?", "/save", "!!save", "/system", "/regen", "/continue", "/set", "/method"),
    *("/adapter", "/template", "/fold", "/legend", "/stats", "/steps", "/compare", "/prove"),
    *("/copy", "/copy code", "/edit", "/export", "/log", "/title", "/resume 1", "/resume 2"),
    *("/file", "/history", "/tokens", "/params", "/think", "/retry", "/retry 2"),
    *("/retry pick 0", "/retry pick 1", "/step", "/step 1", "/heat", "/race", "/race none lookup"),
    *("/why", "/view raw", "/view tokens", "/nowhere", "/prove", "/prove"),
    *_FORGETTING,
)
_COPIED = re.compile(rb"\x1b\]52;c;(?!QUJD\x07)[\w+/]*=*\x07")
_OSC = "\x1b]52;c;QUJD\x07"
_ARGUMENTS = (
    *("", " ", "x", "talk.json", "talk.md", "kept.json", "probe.json", "broken.json", "bytes.json"),
    *("deep.json", "list.json", "fastchat.json", "huge.json", "pipe", "locked/talk.json"),
    *("x" * 300, "x" * 5000, "~nosuchuser/x", "~", "~/", "/", ".", "..", "/dev/full", "/dev/null"),
    *("/proc/self/mem", "/proc/1/environ", "nul\0here", "\0", _OSC, f"{_OSC}.json", "a\x1b[2Jb"),
    *("two\nlines", "\r", "\t", "\u202ereversed", "\ud800", "\x9b31m", "你好 🦊", "e\u0301" * 50),
    *("temperature=nan", "temperature=1e999", "temperature=-1", "temperature=1", "top_p=2"),
    *("max_new_tokens=-1", f"max_new_tokens={'9' * 5000}", "max_new_tokens=0x9", "seed=-1"),
    *("stop='", "stop=\\n", "stop=' '", "stop", "=", "a=b", "top_k=1 top_k=2", "accept=typical"),
    *("none", "auto", "lookup", "spec", "jacobi", "lookup ngram=0", "lookup ngram=x", "none a=b"),
    *("on", "off", "explain", "tokenizer", "vicuna", "{{ 7*7 }}", "{% x %}", "%s %d {x}", "'", '"'),
    *("@reply@0;", "@reply1;", "</s>", "[red]not red[/red]", "--help", "-1", "!!exit x", "💥" * 99),
)
_MESSAGES = (
    *("hello", "//etc/hosts", "the quick brown", "\x1b[31mred", "\ud83d", "你好", "a\nb"),
    *("@talk.json say", "@pipe", "@bytes.json @huge.json", '@"locked" @@x @nul\0 @~nosuchuser'),
)
_SETTINGS = "/set max_new_tokens=9 temperature=0 top_k=0 top_p=1 seed=0 stop="


def prepare(folder: Path) -> None:
    """Make the files that commands name."""
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    contents: dict[str, str | bytes] = {
        "talk.json": json.dumps({"messages": said}),
        "list.json": json.dumps(said),
        "broken.json": "[1, 2",
        "bytes.json": b"\xff\xfe\x00[",
        "deep.json": "[" * 100_000,
        "huge.json": json.dumps([{"role": "user", "content": "x" * 100_000}]),
        "fastchat.json": json.dumps({"roles": ["A", "B"], "messages": [["A", "hi"], ["C", 1]]}),
        "locked": "a file, where a folder is named",
        f"{_OSC}.json": json.dumps([{"role": "user", "content": _OSC}]),
    }
    for name, content in contents.items():
        with suppress(OSError):
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(folder / "pipe")


@dataclass
class Outcome:
    """How a chat took odd commands.

    Args:
        counts: how often each command was typed.
        wrong: a line for each that it did not take as it must.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fuzzer:
    """Types odd commands, and looks after each what has become of the conversation.

    Args:
        typist: types them.
        folder: the folder that the chat runs in.
        state: the folder that it keeps its state in, which is taken from it for a while.
        seed: of the commands.
        models: folders of models to change to now and then.

    Attributes:
        outcome: what came of it so far.
        last: the line that was typed last.
    """

    def __init__(
        self, typist: Typist, folder: Path, state: Path, seed: int, models: Sequence[str] = ()
    ) -> None:
        self._typist = typist
        self._folder = folder
        self._state = state
        self._numbers = random.Random(seed)
        self._models = models
        self.last = ""
        self.outcome = Outcome()

    def run(self, count: int, look_every: int = 1) -> None:
        """Type so many lines; the conversation is looked at after those that may change it."""
        self._typist.until_prompt()
        before = self._messages()
        for number in range(count):
            if number % 100 == 60:
                self._take_state(taken=True)
            elif number % 100 == 90:
                self._take_state(taken=False)
            line, interrupt = self._line()
            self.last = line
            self.outcome.counts[line.split(" ")[0] if line[:1] in "/!" else "a message"] += 1
            keys = b"\t" if self._numbers.random() < 0.05 else b""  # completes, or shows how to
            written = self._typist.type(line, interrupt, keys)
            self._check(line, written)
            again = (b"makes room", b"before anything", b"too large", b"a text file")
            told = b" ".join(written.split())  # a narrow window breaks lines anywhere
            if line.startswith(("/edit", "/file")) or any(words in told for words in again):
                self._typist.clear_line()  # the line stands there again
            if line.startswith(("/set", "/template", "/system")):
                self._restore(line)
            if number % look_every == 0 or line.startswith(_FORGETTING):
                before = self._look(line, before)
        self._take_state(taken=False)

    def _line(self) -> tuple[str, float | None]:
        """Return a line, and after how many seconds Ctrl-C is pressed."""
        numbers = self._numbers
        if numbers.random() < 0.05:
            self._typist.resize(numbers.choice((1, 5, 20, 79, 80, 200)))
        interrupt = numbers.choice((0.0, 0.01, 0.1)) if numbers.random() < 0.05 else None
        if numbers.random() < 0.25:
            return numbers.choice(_MESSAGES), interrupt
        if self._models and numbers.random() < 0.02:
            return f"/model {numbers.choice(self._models)}", interrupt
        command = numbers.choice(_COMMANDS)
        if command in ("/method", "/adapter", "/compare") and interrupt is not None:
            interrupt = numbers.choice((0.0, 0.3))
        return f"{command} {numbers.choice(_ARGUMENTS)}", interrupt

    def _restore(self, line: str) -> None:
        """Undo what would make all that follows slow, or no conversation at all."""
        if line.startswith("/template"):
            self._typist.type("/template tokenizer")
        self._typist.type(_SETTINGS)

    def _take_state(self, *, taken: bool) -> None:
        """Put a file where the chat keeps its state, or take it away again."""
        aside = self._state.with_name("aside")
        if taken and self._state.is_dir():
            self._state.rename(aside)
            self._state.touch()
        elif not taken and self._state.is_file():
            self._state.unlink()
            aside.rename(self._state)

    def _check(self, line: str, written: bytes) -> None:
        """Note what must not be written to a terminal."""
        if b"Traceback" in written:
            self.outcome.wrong.append(f"a traceback after {line!r:.200}: {written[-600:]!r}")
        if line.startswith("/prove") and b"a bug" in b" ".join(written.split()):
            self.outcome.wrong.append(f"not what plain decoding gives: {written!r:.900}")
        # A reply that is copied goes to the terminal in one, as base64.
        written = _COPIED.sub(b"", written) if line.startswith("/copy") else written
        if b"\x1b]" in written or b"\x9b" in written.replace(b"\xc2\x9b", b""):
            self.outcome.wrong.append(f"an escape sequence after {line!r:.200}: {written!r:.600}")

    def _messages(self) -> list[dict[str, Any]]:
        """Return the messages of the conversation, as /save writes them."""
        file = self._folder / "probe.json"
        file.unlink(missing_ok=True)
        told = self._typist.type("/save probe.json")
        if not file.is_file():
            self.outcome.wrong.append(f"the conversation was not saved: {told!r:.900}")
            return []
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return [message for message in data["messages"] if message["role"] != "system"]

    def _look(self, line: str, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Compare the conversation with the one before a line; return the new one."""
        messages = self._messages()
        contents = [message["content"] for message in messages]
        known = [message["content"] for message in before]
        if known and known[-1:] != contents[len(known) - 1 : len(known)]:
            known = known[:-1]  # the last reply: given anew, or gone on with
        if contents[: len(known)] != known and not line.startswith(_FORGETTING):
            self.outcome.wrong.append(f"{line!r:.200} cost {known!r:.300}: {contents!r:.300}")
        return messages


def fuzz(
    typist: Typist,
    folder: Path,
    state: Path,
    count: int,
    seed: int = 0,
    look_every: int = 1,
    models: Sequence[str] = (),
) -> Outcome:
    """Type odd commands at a chat, up to the end of it if it ends.

    Args:
        typist: types at a chat whose first prompt is not read yet.
        folder: that the chat runs in.
        state: the folder of its state, `$XDG_STATE_HOME/nfox`.
        count: of lines.
        seed: of the lines.
        look_every: after how many lines the conversation is looked at, at the latest.
        models: folders of models to change to now and then.
    """
    prepare(folder)
    fuzzer = Fuzzer(typist, folder, state, seed, models)
    try:
        fuzzer.run(count, look_every)
    except (EOFError, TimeoutError) as error:
        last = sum(fuzzer.outcome.counts.values())
        name = type(error).__name__
        fuzzer.outcome.wrong.append(f"{name} after {last} lines, {fuzzer.last!r:.99}: {error}")
    return fuzzer.outcome


def main() -> None:
    """Start a chat, type odd commands, and print how it took them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a folder; the embedded model by default")
    parser.add_argument("--other", action="append", default=[], help="a model to change to")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder, state = Path(name, "work"), Path(name, "state")
        folder.mkdir()
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        words = ["-m", arguments.model] if arguments.model else []
        process = subprocess.Popen(
            [sys.executable, "-m", "nfox.cli", *words, "--max-new-tokens", "9"],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            cwd=folder,
            env={**os.environ, "XDG_STATE_HOME": str(state), "TERM": "xterm-256color"}
            | {"PROMPT_TOOLKIT_NO_CPR": "1", "HF_HUB_OFFLINE": "1", "VISUAL": "true"}
            | dict.fromkeys(("TMUX", "DISPLAY", "WAYLAND_DISPLAY"), ""),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        typist = Typist(ours, lambda: process.poll() is not None)
        models = [arguments.model, *arguments.other] if arguments.other else []
        place, count, seed = state / "nfox", arguments.count, arguments.seed
        outcome = fuzz(typist, folder, place, count, seed, models=models)
        process.send_signal(signal.SIGHUP)
        process.wait()
    print(json.dumps({"lines": dict(outcome.counts.most_common())}))
    print("\n".join(outcome.wrong[:50]), file=sys.stderr)
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
