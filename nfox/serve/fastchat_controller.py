"""FastChat's controller, as a worker knows it: it registers there and gives signs of life."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import httpx

from nfox.serve.requests import Served
from nfox.serve.responses import Json

log = logging.getLogger(__name__)

_SECONDS = 5.0  # the controller may take to answer


class Controller:
    """FastChat's controller, as a worker knows it.

    Args:
        url: of the controller.
        own: this worker's, as the others reach it.
        served: what it answers with.
        seconds: between two signs of life.
    """

    def __init__(self, url: str, own: str, served: Served, seconds: float) -> None:
        self._url = url.rstrip("/")
        self._own = own.rstrip("/")
        self._served = served
        self._seconds = seconds
        self._changed = asyncio.Event()

    def status(self) -> Json:
        """Return what the controller chooses a worker by."""
        worker = self._served.worker
        waiting = worker.running + worker.waiting
        return {"model_names": self._served.names, "speed": 1, "queue_length": waiting}

    def tell(self) -> None:
        """Say at once how long the queue is now, or the controller would go on counting alone."""
        self._changed.set()

    async def live(self) -> None:
        """Register, then give signs of life for good; register again with a controller that has
        forgotten, and wait for one that is gone.
        """
        async with httpx.AsyncClient(base_url=self._url, timeout=_SECONDS) as http:
            known, there = False, True
            while True:
                try:
                    known = await (self._beat(http) if known else self._register(http))
                    there = True
                except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                    if there:
                        log.warning("waiting for the controller at %s: %s", self._url, error)
                    there = False
                with suppress(TimeoutError):
                    calm = self._seconds if known and there else 1.0
                    await asyncio.wait_for(self._changed.wait(), calm)
                    self._changed.clear()

    async def _register(self, http: httpx.AsyncClient) -> bool:
        asked = {
            "worker_name": self._own,
            "check_heart_beat": True,
            "worker_status": self.status(),
            "multimodal": False,
        }
        (await http.post("/register_worker", json=asked)).raise_for_status()
        log.info("registered with the controller at %s", self._url)
        return True

    async def _beat(self, http: httpx.AsyncClient) -> bool:
        said = {"worker_name": self._own, "queue_length": self.status()["queue_length"]}
        answer = await http.post("/receive_heart_beat", json=said)
        return bool(answer.raise_for_status().json()["exist"])
