"""What Prometheus reads. Counts and times only: no texts, no keys, no addresses."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """One registry an application, so that several in one process do not meet."""

    def __init__(self) -> None:
        self.registry = all_here = CollectorRegistry()
        self.requests = Counter(
            "elysia_requests", "Requests answered.", ["path", "status"], registry=all_here
        )
        self.prompt_tokens = Counter(
            "elysia_prompt_tokens", "Tokens of prompts.", ["model"], registry=all_here
        )
        self.reply_tokens = Counter(
            "elysia_reply_tokens", "Tokens of replies.", ["model"], registry=all_here
        )
        self.cancelled = Counter(
            "elysia_cancelled", "Replies whose reader went away.", ["model"], registry=all_here
        )
        self.spoken = Counter(
            "elysia_spoken_seconds", "Seconds of speech made.", ["voice"], registry=all_here
        )
        self.silenced = Counter(
            "elysia_silenced", "Speech that failed or whose listener went away.", ["voice"],
            registry=all_here,
        )  # fmt: skip
        self.first_token = Histogram(
            "elysia_first_token_seconds", "From admission to the first words.", ["model"],
            buckets=LATENCY_BUCKETS, registry=all_here,
        )  # fmt: skip
        self.running = Gauge(
            "elysia_running", "Replies being generated.", ["model"], registry=all_here
        )
        self.waiting = Gauge(
            "elysia_waiting", "Requests waiting for a slot.", ["model"], registry=all_here
        )

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
