"""An OpenAI-compatible server that answers a dataset's questions, and what it does instead."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
from typing_extensions import override

from nfox.errors import NfoxError, UsageError
from nfox.text.messages import Message
from nfox.train.data.local_answers import EMPTY, Answerer, Answers

_RETRIES = 3
_LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


@dataclass(frozen=True)
class Server(Answerer):
    """An OpenAI-compatible server.

    Args:
        url: of its chat completions, http://localhost:8080/v1/chat/completions, or of the API
            before them, http://localhost:8080/v1.
        model: its name there.
        max_new_tokens: of a reply.
        temperature: 0 takes the likeliest token.
        concurrency: requests at once.
        key: for its Authorization header.
        wait: seconds before a busy server is asked again, doubled each time.
    """

    url: str
    model: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    concurrency: int = 64
    key: str | None = None
    wait: float = 1.0

    @override
    def answer(self, asked: Sequence[Sequence[Message]]) -> Answers:
        """Raises:
        NfoxError: if there is nobody at the address, or somebody who answers nobody.
        """
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        with (
            httpx.Client(headers=headers, timeout=600) as client,
            ThreadPoolExecutor(self.concurrency) as threads,
        ):
            return list(threads.map(lambda messages: self._one(client, messages), asked))

    @property
    def endpoint(self) -> str:
        """Where questions are sent."""
        api = self.url.rstrip("/")
        return f"{api}/chat/completions" if api.endswith("/v1") else self.url

    def _one(self, client: httpx.Client, messages: Sequence[Message]) -> Message | str:
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }
        try:
            reply = self._post(client, body).raise_for_status().json()
            text = str(reply["choices"][0]["message"]["content"] or "").strip()
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            said = f"--url {self.url}: {error}"
            raise UsageError(said, "expected http://HOST/v1/...") from error
        except httpx.ConnectError as error:
            said = f"{self.url}: nobody answers there: {error}"
            raise NfoxError(said, "check --url") from error
        except httpx.HTTPStatusError as error:
            return self._status(error)
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        except (ValueError, LookupError, TypeError):
            return "the server's answer is no chat completion"
        return Message("assistant", text) if text else EMPTY

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
        """Ask, and ask again a few times where the server is busy or broken."""
        for attempt in range(_RETRIES):
            reply = client.post(self.endpoint, json=body)
            if reply.status_code != httpx.codes.TOO_MANY_REQUESTS and not reply.is_server_error:
                return reply
            asked = reply.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdecimal() else self.wait * 2**attempt
            time.sleep(min(wait, _LONGEST_WAIT))
        return client.post(self.endpoint, json=body)

    def _status(self, error: httpx.HTTPStatusError) -> str:
        """Return what a server says instead of a reply; some of it holds for all questions."""
        reply = error.response
        text = textwrap.shorten(reply.text, 200, placeholder=" ...")
        said = f"HTTP {reply.status_code} {reply.reason_phrase}: {text}".rstrip(": ")
        if reply.status_code in (401, 403, 404):
            hint = "check --url, --model and --api-key"
            raise NfoxError(f"{self.url}: {said}", hint) from error
        return said
