"""A headless Chromium, where one is installed, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
_OPTIONS = (
    *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"),
    "--hide-scrollbars",
)
_PATIENCE = 60.0
_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "ArrowUp": (38, "")}


class Page:
    """One page of a browser.

    Attributes:
        complaints: what the browser said of the page: exceptions, and what its policy forbade.
    """

    def __init__(self, send: int, receive: int) -> None:
        self.complaints: list[str] = []
        self._send = send
        self._receive = receive
        self._count = 0
        self._rest = b""
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def show(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Open an address in a window of a size, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return what an expression gives on the page."""
        done = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, script: str) -> Any:
        """Run an expression until it is true; return what it gives."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if found := self.run(script):
                return found
            time.sleep(0.05)
        raise AssertionError(f"not within {_PATIENCE:.0f} s: {script}\n{self.complaints}")

    def type(self, text: str) -> None:
        """Write a text where the cursor is."""
        self._call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        code, text = _KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self._call("Input.dispatchKeyEvent", type="keyUp", **event)

    def picture(self, path: Path) -> None:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._count:
                assert "error" not in told, told["error"]
                return told["result"]
            is_verbose = told.get("params", {}).get("entry", {}).get("level") == "verbose"
            if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints += [] if is_verbose else [json.dumps(told["params"])]

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            data = os.read(self._receive, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Start a browser that keeps its files in a folder; end it behind the block."""
    assert PROGRAM is not None
    commands, send = os.pipe()
    receive, answers = os.pipe()

    # It reads from 3 and writes to 4, which a shell gives it: forking with threads is not safe.
    where = f'exec "$0" "$@" 3</dev/fd/{commands} 4>/dev/fd/{answers}'
    process = subprocess.Popen(
        ["sh", "-c", where, PROGRAM, *_OPTIONS, f"--user-data-dir={folder}"],
        env=os.environ | {"HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(commands, answers),
    )
    try:
        os.close(commands)
        os.close(answers)
        yield Page(send, receive)
    finally:
        process.kill()
        process.wait()
        os.close(send)
        os.close(receive)
