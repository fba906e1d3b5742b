"""FastChat's controller, as a worker knows it: it registers there and sends heartbeats."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import httpx

from nfox.serve.errors import Json
from nfox.serve.served_model import ServedModel

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5.0  # for the controller's answer
_RETRY_SECONDS = 1.0  # between attempts to reach a controller that does not answer


class ControllerClient:
    """Keeps a worker registered with FastChat's controller.

    Args:
        controller_url: the controller's URL.
        worker_url: this worker's URL, as the controller and the API server reach it.
        served: the model that the worker answers with.
        heartbeat_seconds: the time between two heartbeats.
    """

    def __init__(
        self, controller_url: str, worker_url: str, served: ServedModel, heartbeat_seconds: float
    ) -> None:
        self._controller_url = controller_url.rstrip("/")
        self._worker_url = worker_url.rstrip("/")
        self._served = served
        self._heartbeat_seconds = heartbeat_seconds
        self._queue_changed = asyncio.Event()

    def status(self) -> Json:
        """Return what the controller chooses a worker by: its models, speed and queue length."""
        worker = self._served.worker
        queue_length = worker.running + worker.waiting
        return {"model_names": self._served.names, "speed": 1, "queue_length": queue_length}

    def report_queue(self) -> None:
        """Send a heartbeat at once, with the length of the queue: between heartbeats the controller
        adds the requests that it passes on, and takes none away.
        """
        self._queue_changed.set()

    async def run(self) -> None:
        """Register, and send heartbeats until cancelled. Register again with a controller that has
        forgotten this worker, and wait for one that does not answer.
        """
        async with httpx.AsyncClient(
            base_url=self._controller_url, timeout=_TIMEOUT_SECONDS
        ) as http:
            registered, reachable = False, True
            while True:
                try:
                    registered = await (
                        self._send_heartbeat(http) if registered else self._register(http)
                    )
                    reachable = True
                except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                    if reachable:
                        log.warning(
                            "waiting for the controller at %s: %s", self._controller_url, error
                        )
                    reachable = False
                calm = registered and reachable
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._queue_changed.wait(),
                        self._heartbeat_seconds if calm else _RETRY_SECONDS,
                    )
                    self._queue_changed.clear()

    async def _register(self, http: httpx.AsyncClient) -> bool:
        registration = {
            "worker_name": self._worker_url,
            "check_heart_beat": True,
            "worker_status": self.status(),
            "multimodal": False,
        }
        (await http.post("/register_worker", json=registration)).raise_for_status()
        log.info("registered with the controller at %s", self._controller_url)
        return True

    async def _send_heartbeat(self, http: httpx.AsyncClient) -> bool:
        """Return whether the controller still knows this worker."""
        heartbeat = {
            "worker_name": self._worker_url,
            "queue_length": self.status()["queue_length"],
        }
        response = await http.post("/receive_heart_beat", json=heartbeat)
        return bool(response.raise_for_status().json()["exist"])
