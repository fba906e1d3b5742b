"""What was answered, and how fast, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from nfox.reply import Reply

if TYPE_CHECKING:
    from nfox.serve.worker import Worker

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_COUNTED = {
    "tokens": "Tokens written",
    "prompt_tokens": "Tokens of prompts",
    "cached_tokens": "Tokens of prompts that a cache still held",
    "steps": "Target forwards after prefill; tokens / steps is tau",
    "drafted_tokens": "Tokens drafted",
    "accepted_tokens": "Drafted tokens accepted",
    "seconds": "Seconds of steps; tokens / seconds is the decoding speed",
    "prefill_seconds": "Seconds of reading prompts",
}
_FIELDS = {"drafted_tokens": "drafted", "accepted_tokens": "accepted"}  # of `Stats`


class Metrics:
    """Counters of replies, and gauges of the engine, once there is one."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = own = CollectorRegistry()
        labels = ["method"]
        self._sums = {
            name: Counter(f"nfox_{name}", help, labels, registry=own)
            for name, help in _COUNTED.items()
        }
        self._replies = Counter("nfox_replies", "Replies", [*labels, "finish"], registry=own)
        by_depth = [*labels, "depth"]
        self._tried = Counter(
            "nfox_depth_tried", "Steps that drafted so deep", by_depth, registry=own
        )
        self._reached = Counter(
            "nfox_depth_accepted", "Steps that accepted so deep", by_depth, registry=own
        )
        self._waited = Histogram(
            "nfox_queue_seconds", "Time in the queue", registry=own, buckets=_SECONDS
        )
        self._first = Histogram(
            "nfox_time_to_first_token_seconds",
            "Queue, prefill and the first step",
            labels,
            registry=own,
            buckets=_SECONDS,
        )
        self._refused = Counter(
            "nfox_refused", "Requests answered by an error", ["status"], registry=own
        )
        self._tau = Gauge("nfox_tau", "Tokens a step of the last reply", labels, registry=own)
        self._speed = Gauge(
            "nfox_tokens_per_second", "Decoding speed of the last reply", labels, registry=own
        )

    def refused(self, status: int) -> None:
        """Count a request that was answered by an error."""
        self._refused.labels(status).inc()

    def add(self, reply: Reply, choice: int, waited: float) -> None:
        """Count a reply.

        Args:
            reply: complete.
            choice: which one of its request.
            waited: seconds that its request was in the queue.
        """
        stats, method = reply.stats, reply.method
        for name, counter in self._sums.items():
            counter.labels(method).inc(getattr(stats, _FIELDS.get(name, name)))
        for depth, (tried, reached) in enumerate(zip(stats.tried, stats.reached, strict=True), 1):
            self._tried.labels(method, depth).inc(tried)
            self._reached.labels(method, depth).inc(reached)
        self._replies.labels(method, reply.finish).inc()
        if choice == 0:
            self._waited.observe(waited)
            self._first.labels(method).observe(waited + stats.first_token_seconds)
        if stats.steps:
            self._tau.labels(method).set(stats.tau)
            self._speed.labels(method).set(stats.tokens_per_second)

    def watch(self, worker: Worker) -> None:
        """Tell what an engine is doing whenever somebody looks."""
        gauges = {
            "nfox_waiting": ("Requests in the queue", lambda: worker.waiting),
            "nfox_running": ("Requests being answered", lambda: worker.running),
            "nfox_caches": ("Idle KV caches", lambda: len(worker.caches)),
            "nfox_cache_bytes": ("Bytes of idle KV caches", lambda: worker.caches.nbytes),
        }
        for name, (help, value) in gauges.items():
            Gauge(name, help, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
