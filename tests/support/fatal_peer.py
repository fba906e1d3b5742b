"""A peer that answers twice and then ends as it is told to: what happens in its process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nfox.eval.peers.base import Peer


class FatalPeer(Peer):
    """Says 7, 8, 9 token by token, and in the third conversation its last words.

    Args:
        end: "signal 4" dies of it, "exit 3" ends so, any other text is an error; "" never.
        early: whether it ends before it is made.
    """

    name = "hf"  # a name that can be asked for

    def __init__(self, end: str, early: bool = False) -> None:
        self.end = end
        self.begun = 0
        print("this is no answer")
        if early:
            self._end()

    @classmethod
    def recipe(cls, engine: Any, folder: Path) -> dict[str, Any]:
        return {"end": "signal 9"}

    def begin(self) -> None:
        self.begun += 1

    def answer(self, prompt: Any, settings: Any, limits: Any, on_tokens: Any) -> None:
        if self.begun == 3:
            self._end()
        for token in (7, 8, 9):
            on_tokens([token])
            time.sleep(0.01)

    def describe(self) -> str:
        return f"process {os.getpid()}"

    def _end(self) -> None:
        kind, _, number = self.end.partition(" ")
        if kind == "signal":
            print("an assertion failed", file=sys.stderr, flush=True)
            os.kill(os.getpid(), int(number))
            signal.pause()
        elif kind == "exit":
            os._exit(int(number))
        elif kind:
            raise ValueError(f"{self.end}\nand more of it")
