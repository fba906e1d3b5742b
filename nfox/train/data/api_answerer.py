"""Answers to the questions of a dataset from an OpenAI-compatible server."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
from typing_extensions import override

from nfox.errors import NfoxError, UsageError
from nfox.secrets import MASK, masked_url
from nfox.text.messages import Message, content_text
from nfox.train.data.answerer import EMPTY_REPLY, Answerer, Answers

_RETRIES = 3
_LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


@dataclass(frozen=True)
class ApiAnswerer(Answerer):
    """Answers by requests to an OpenAI-compatible server.

    Args:
        url: the URL of the server's chat completions, http://localhost:8080/v1/chat/completions,
            or of its API, http://localhost:8080/v1.
        model: the name of the model on the server.
        max_new_tokens: the maximum number of tokens of a reply.
        temperature: the sampling temperature; 0 takes the likeliest token.
        concurrency: the number of requests that are sent at once.
        key: the API key for the Authorization header.
        wait: the seconds before a busy server is asked again, doubled after each attempt.
    """

    url: str
    model: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    concurrency: int = 64
    key: str | None = None
    wait: float = 1.0

    @override
    def answer(self, conversations: Sequence[Sequence[Message]]) -> Answers:
        """Return the reply to each conversation, or a line that says why there is none.

        Args:
            conversations: conversations that end with a user's message.

        Raises:
            UsageError: if the URL is none, or the key none that can be sent.
            NfoxError: if nothing listens at the URL, or every request would be refused.
        """
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise UsageError("--api-key has characters that a header cannot hold", "copy it again")
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        with (
            httpx.Client(headers=headers, timeout=600) as client,
            ThreadPoolExecutor(self.concurrency) as threads,
        ):
            return list(threads.map(lambda messages: self._reply(client, messages), conversations))

    @property
    def endpoint(self) -> str:
        """The URL that requests are sent to."""
        api = self.url.rstrip("/")
        return f"{api}/chat/completions" if api.endswith("/v1") else self.url

    def _reply(self, client: httpx.Client, messages: Sequence[Message]) -> Message | str:
        """Return the reply to one conversation, or a line that says why there is none."""
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
        }
        try:
            completion = self._post(client, body).raise_for_status().json()
            text = content_text(completion["choices"][0]["message"]["content"] or "").strip()
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            message = f"--url {masked_url(self.url)}: {error}"
            raise UsageError(message, "expected http://HOST/v1/...") from error
        except httpx.ConnectError as error:
            message = f"{masked_url(self.url)}: nobody answers there: {error}"
            raise NfoxError(message, "check --url") from error
        except httpx.HTTPStatusError as error:
            return self._status_line(error)
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        except (ValueError, LookupError, TypeError):
            return "the server's answer is no chat completion"
        return Message("assistant", text) if text else EMPTY_REPLY

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
        """Send a request, and send it again a few times while the server is busy or fails."""
        for attempt in range(_RETRIES):
            response = client.post(self.endpoint, json=body)
            busy = response.status_code == httpx.codes.TOO_MANY_REQUESTS
            if not busy and not response.is_server_error:
                return response
            retry_after = response.headers.get("Retry-After", "")
            wait = float(retry_after) if retry_after.isdecimal() else self.wait * 2**attempt
            time.sleep(min(wait, _LONGEST_WAIT))
        return client.post(self.endpoint, json=body)

    def _status_line(self, error: httpx.HTTPStatusError) -> str:
        """Return the status and text of an error response as one line.

        Raises:
            NfoxError: if the status would be the same for every question.
        """
        response = error.response
        said = response.text
        in_json = json.dumps(self.key or "")[1:-1]
        for form in filter(None, (self.key, in_json, in_json.replace("/", "\\/"))):
            said = said.replace(form, MASK)
        text = textwrap.shorten(said, 200, placeholder=" ...")
        line = f"HTTP {response.status_code} {response.reason_phrase}: {text}".rstrip(": ")
        if response.status_code in (401, 403, 404):
            hint = "check --url, --model and --api-key"
            raise NfoxError(f"{masked_url(self.url)}: {line}", hint) from error
        return line
