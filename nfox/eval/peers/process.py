"""A process for a peer: what kills it there costs its own row, and nothing of the run.

    python -m nfox.eval.peers.process

Pickled messages go over the standard streams: the peer's class and recipe first, then the names of
its methods with arguments. What its libraries print goes to a file, for its last words.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from nfox.controls import one_line
from nfox.decoding import clock
from nfox.errors import NfoxError
from nfox.eval.peers.base import Block, Peer, PeerError

if TYPE_CHECKING:
    from nfox.decoding.generate import Limits, Prompt
    from nfox.reply import Settings

_RESULT, _FAILURE = "result", "failure"
_CAUSES = {
    "SIGILL": "it was built for instructions that this processor does not have",
    "SIGKILL": "as when memory runs out",
}
"""What a signal that ends a process says of the cause."""


class PeerProcess:
    """A peer in a process of its own.

    Args:
        peer: its class.
        recipe: the keyword arguments that it is made of.

    Attributes:
        name: of the peer.

    Raises:
        PeerError: if it cannot be made.
    """

    def __init__(self, peer: type[Peer], recipe: Mapping[str, Any]) -> None:
        self.name = peer.name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        self._description = str(self._exchange((peer, dict(recipe))))

    def blocks(self, prompt: Prompt, settings: Settings, limits: Limits) -> list[Block]:
        """Return the tokens of an answer with their times: see `Peer.blocks`.

        Raises:
            PeerError: if it does not answer.
        """
        blocks: list[Block] = self._exchange(("blocks", prompt, settings, limits))
        return blocks

    def begin(self) -> None:
        """Begin another conversation, with nothing read.

        Raises:
            PeerError: if its process has died.
        """
        self._exchange(("begin",))

    def memory(self) -> int:
        """Return the bytes of memory that the process uses.

        Raises:
            PeerError: if it has died.
        """
        return int(self._exchange(("memory",)))

    def describe(self) -> str:
        """Return in a few words what it runs with."""
        return self._description

    def close(self) -> None:
        """End the process, which frees its memory."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            with suppress(OSError):  # what was not sent yet
                stream.close()

    def _exchange(self, message: tuple[Any, ...]) -> Any:
        """Send a message, and return what the process answers.

        Raises:
            PeerError: with what the peer said, or what its process died of.
        """
        channel, answers = self._process.stdin, self._process.stdout
        assert channel is not None
        assert answers is not None
        try:
            _send(channel, message)
            kind, *content = pickle.load(answers)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            raise self._closed(f"its process died: {self._cause(code)}") from error
        except BaseException:
            self.close()
            raise
        if kind == _FAILURE:
            raise self._closed(*content)
        return content[0]

    def _closed(self, message: str, hint: str = "") -> PeerError:
        """End the process; return the error to raise."""
        self.close()
        return PeerError(message, hint)

    def _cause(self, code: int) -> str:
        """Return what the process died of, with the last words that it printed.

        Args:
            code: its exit code, the negative number of a signal that ended it.
        """
        names = {-number: number.name for number in signal.Signals}
        cause = names.get(code, f"exit code {code}")
        cause = ", ".join(filter(None, (cause, _CAUSES.get(cause))))
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(words) if line.strip()), "")
        return f"{cause}: {one_line(last)[:200]}" if last else cause


def _send(channel: IO[bytes], message: tuple[Any, ...]) -> None:
    pickle.dump(message, channel)
    channel.flush()


def main() -> None:
    """Make the peer that standard input names, and answer until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    if hasattr(signal, "SIGTSTP"):  # and stops it, for as long as its clock stands, too
        signal.signal(signal.SIGTSTP, lambda number, frame: clock.stop_process())
    messages, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that what libraries print is no answer
    try:
        peer_class, recipe = pickle.load(messages)
        peer = peer_class(**recipe)
        _send(answers, (_RESULT, peer.describe()))
        while True:
            name, *arguments = pickle.load(messages)
            _send(answers, (_RESULT, getattr(peer, name)(*arguments)))
    except EOFError:
        return
    except NfoxError as error:
        _send(answers, (_FAILURE, error.message, error.hint))
    except Exception as error:  # nobody knows all that other programs raise
        line = (str(error).splitlines() or [""])[0]
        _send(answers, (_FAILURE, f"{type(error).__name__}: {line}".rstrip(": ")))


if __name__ == "__main__":
    main()
