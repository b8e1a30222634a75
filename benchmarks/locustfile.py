r"""Users of a gateway, for locust: time to the first words, whole replies and refusals under load.

    pip install locust==2.47.0     # in an environment of its own
    elysia serve m=FILE.gguf --parallel 4 --queue 48
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:23333 --headless --users 64 \
        --spawn-rate 8 --run-time 3m --model m

Each user has a growing conversation, reads the reply as a stream, pauses for a moment, and waits as long as
a 429 says. Printed beside locust's own table: `first words` and `whole reply`, timed from sending on, and
`a piece`, the time between two events. A stream that ends without [DONE], or with an error, is a failure.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

from locust import HttpUser, between, events, task

SAYINGS = (
    "你好呀，今天想聊点什么？", "Tell me about your garden.", "我今天有点累。", "What is rain made of?",
    "讲一个很短的故事吧。", "Do you remember what I said first?",
)  # fmt: skip
TURNS = 6  # of a conversation, before a new one starts


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    parser.add_argument("--model", default="", help="a name that /v1/models lists; its first")
    parser.add_argument("--key", default="", env_var="ELYSIA_API_KEY", help="an API key")
    parser.add_argument("--max-tokens", type=int, default=48, help="of a reply")


class ChatUser(HttpUser):
    """One user with one conversation."""

    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self.headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
        listed = self.client.get("/v1/models", headers=self.headers).json()["data"]
        self.model = options.model or listed[0]["id"]
        self.talk: list[dict[str, str]] = []

    @task
    def say(self) -> None:
        """One message, and the reply as a stream."""
        if len(self.talk) >= 2 * TURNS:
            self.talk = []
        messages = [*self.talk, {"role": "user", "content": random.choice(SAYINGS)}]
        body = {
            "model": self.model, "messages": messages, "stream": True,
            "max_completion_tokens": self.environment.parsed_options.max_tokens,
        }  # fmt: skip
        began = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions", json=body, headers=self.headers, stream=True,
            catch_response=True, name="/v1/chat/completions",
        ) as answer:  # fmt: skip
            if answer.status_code == 429:
                answer.success()  # the queue is full, as documented; not an error
                self._count("busy (429)", began)
                time.sleep(float(answer.headers["Retry-After"]))
                return
            if answer.status_code != 200:
                answer.failure(f"HTTP {answer.status_code}: {answer.text[:200]}")
                return
            try:
                reply = "".join(self._heard(answer, began))
            except ValueError as error:
                answer.failure(str(error))
                return
            answer.success()
        self._count("whole reply", began, len(reply.encode()))
        self.talk = [*messages, {"role": "assistant", "content": reply}]

    def _heard(self, answer: Any, began: float) -> Iterator[str]:
        """The text of the stream; ValueError where it does not end as it should."""
        last = None
        for line in answer.iter_lines():
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]":
                return
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(event["error"]["message"])
            for choice in event["choices"]:
                if words := choice["delta"].get("content"):
                    self._count("first words" if last is None else "a piece", last or began)
                    last = time.perf_counter()
                    yield words
        raise ValueError("The stream ended without [DONE].")

    def _count(self, name: str, since: float, length: int = 0) -> None:
        events.request.fire(
            request_type="SSE", name=name, response_time=1000 * (time.perf_counter() - since),
            response_length=length, exception=None, context={},
        )  # fmt: skip
