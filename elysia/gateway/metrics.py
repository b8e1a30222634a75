"""The metrics that Prometheus scrapes: counts and times only, no texts, no keys, no addresses."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class GatewayMetrics:
    """One registry per application, so that several in one process do not clash."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["model"], registry=self.registry)

        self.requests = counter("elysia_requests", "Requests answered.", "path", "status")
        self.prompt_tokens = counter("elysia_prompt_tokens", "Tokens of prompts.", "model")
        self.reply_tokens = counter("elysia_reply_tokens", "Tokens of replies.", "model")
        self.cancelled = counter("elysia_cancelled", "Replies whose reader went away.", "model")
        self.spoken = counter("elysia_spoken_seconds", "Seconds of speech made.", "voice")
        self.silenced = counter(
            "elysia_silenced", "Speech that failed or whose listener went away.", "voice"
        )
        self.first_token = Histogram(
            "elysia_first_token_seconds", "From admission to the first words.", ["model"],
            buckets=LATENCY_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.running = gauge("elysia_running", "Replies being generated.")
        self.waiting = gauge("elysia_waiting", "Requests waiting for a slot.")

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
