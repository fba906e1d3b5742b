"""Counters and gauges of the replies, for Prometheus."""

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

_SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_COUNTER_HELP = {
    "tokens": "Tokens written",
    "prompt_tokens": "Tokens of prompts",
    "cached_tokens": "Tokens of prompts that a cache still held",
    "steps": "Target forwards after prefill; tokens / steps is tau",
    "drafted_tokens": "Tokens drafted",
    "accepted_tokens": "Drafted tokens accepted",
    "seconds": "Seconds of steps; tokens / seconds is the decoding speed",
    "prefill_seconds": "Seconds of reading prompts",
}
_STATS_FIELDS = {"drafted_tokens": "drafted", "accepted_tokens": "accepted"}  # where they differ


class Metrics:
    """Counters of replies and errors, by method, and gauges of the worker once it is observed.

    Attributes:
        registry: where Prometheus' client keeps them.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._sums = {
            name: self._counter(name, help_text, "method")
            for name, help_text in _COUNTER_HELP.items()
        }
        self._replies = self._counter("replies", "Replies", "method", "finish")
        self._tried = self._counter("depth_tried", "Steps that drafted so deep", "method", "depth")
        self._reached = self._counter(
            "depth_accepted", "Steps that accepted so deep", "method", "depth"
        )
        self._errors = self._counter("refused", "Requests answered by an error", "status")
        self._queue_seconds = self._histogram("queue_seconds", "Time in the queue")
        self._first_token_seconds = self._histogram(
            "time_to_first_token_seconds", "Queue, prefill and the first step", "method"
        )
        self._tau = self._gauge("tau", "Tokens a step of the last reply", "method")
        self._speed = self._gauge("tokens_per_second", "Decoding speed of the last reply", "method")

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"nfox_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"nfox_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(
            f"nfox_{name}", help_text, labels, registry=self.registry, buckets=_SECONDS_BUCKETS
        )

    def count_error(self, status: int) -> None:
        """Count a request that was answered by an error.

        Args:
            status: the HTTP status code of the answer.
        """
        self._errors.labels(status).inc()

    def count_reply(self, reply: Reply, choice: int, queue_seconds: float) -> None:
        """Count a complete reply.

        Args:
            reply: the reply, with its statistics.
            choice: the index of the reply among those of its request. Only the first one's request
                counts for the time in the queue and the time to the first token.
            queue_seconds: the time that its request waited in the queue.
        """
        stats, method = reply.stats, reply.method
        for name, counter in self._sums.items():
            counter.labels(method).inc(getattr(stats, _STATS_FIELDS.get(name, name)))
        for depth, (tried, reached) in enumerate(zip(stats.tried, stats.reached, strict=True), 1):
            self._tried.labels(method, depth).inc(tried)
            self._reached.labels(method, depth).inc(reached)
        self._replies.labels(method, reply.finish).inc()
        if choice == 0:
            self._queue_seconds.observe(queue_seconds)
            first_token_seconds = queue_seconds + stats.first_token_seconds
            self._first_token_seconds.labels(method).observe(first_token_seconds)
        if stats.steps:
            self._tau.labels(method).set(stats.tau)
            self._speed.labels(method).set(stats.tokens_per_second)

    def observe(self, worker: Worker) -> None:
        """Add gauges of what a worker is doing, which are read when Prometheus asks."""
        gauges = {
            "waiting": ("Requests in the queue", lambda: worker.waiting),
            "running": ("Requests being answered", lambda: worker.running),
            "caches": ("Idle KV caches", lambda: len(worker.caches)),
            "cache_bytes": ("Bytes of idle KV caches", lambda: worker.caches.nbytes),
        }
        for name, (help_text, value) in gauges.items():
            self._gauge(name, help_text).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
