"""A hub on this machine: serves folders as repositories, as far as downloads ask for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


@contextmanager
def hub(**folders: Path) -> Iterator[str]:
    """Serve folders as the repositories someone/NAME; give the endpoint for HF_ENDPOINT.

    Args:
        folders: each under its repository's name.
    """
    served = {
        f"someone/{name}": {file.name: file.read_bytes() for file in place.iterdir()}
        for name, place in folders.items()
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            place = self.path.partition("?")[0]
            name = next((name for name in served if f"/{name}/" in f"{place}/"), "")
            files = served.get(name, {})
            if not name:
                self._send(None, "")
            elif place.startswith(f"/{name}/resolve/"):
                self._send(files.get(place.rpartition("/")[2]), "application/octet-stream")
            elif place.startswith(f"/api/models/{name}/tree/"):
                rows = [
                    {"type": "file", "path": file, "size": len(data), "oid": _etag(data)}
                    for file, data in files.items()
                ]
                self._send(json.dumps(rows).encode(), "application/json")
            elif place.startswith(f"/api/models/{name}"):
                about = {"id": name, "sha": COMMIT, "siblings": []}
                self._send(json.dumps(about).encode(), "application/json")
            else:
                self._send(None, "")

        def _send(self, data: bytes | None, kind: str) -> None:
            self.send_response(404 if data is None else 200)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("ETag", f'"{_etag(data)}"')
                self.send_header("Content-Type", kind)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if data and self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
