"""What the server counts, in Prometheus' text format at /metrics: queue, slots, tokens, time to first token, latency.

curl --silent http://127.0.0.1:5001/metrics | grep phikit_
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from serving.service import Service

#: Upper bounds in seconds: from a cached word on a GPU to a long answer on a CPU that is overloaded.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # memory and open files of the process: a leak shows here
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "phikit_requests", "HTTP requests by route and status", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "phikit_request_seconds",
            "Seconds from a request's arrival to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "phikit_time_to_first_token_seconds",
            "Seconds from a prompt's arrival to its first token, the queue included",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.prompt = Counter("phikit_prompt_tokens", "Tokens of the prompts taken in", registry=self.registry)
        self.generated = Counter("phikit_generated_tokens", "Tokens generated", registry=self.registry)
        self.finished = Counter(
            "phikit_generations", "Prompts by how their answer ended", ["finish"], registry=self.registry
        )
        self.refused = Counter(
            "phikit_refused", "Requests turned away before anything was generated", ["reason"], registry=self.registry
        )

    def watch(self, service: Service) -> None:
        """Read gauges off the service whenever somebody asks."""
        for name, text, read in (
            ("phikit_queue_prompts", "Prompts waiting for a slot", lambda: service.waiting),
            ("phikit_slots_busy", "Sequences being generated", lambda: service.running),
            ("phikit_slots", "Sequences that are generated together at most", lambda: service.engine.slots),
            ("phikit_kv_tokens_reserved", "Tokens the running sequences may grow to", lambda: service.reserved),
            ("phikit_kv_tokens", "Tokens that the KV cache has room for", lambda: service.engine.capacity),
            ("phikit_engine_alive", "1 while the engine generates", lambda: float(service.engine.alive)),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
