"""An engine whose replies a test decides, and a gateway on a real port over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from elysia.app import ChatFormat
from elysia.core.templates import get_template
from elysia.engines.base import Delta, GenerationRequest, TokenUsage
from elysia.engines.scripted import ScriptedEngine
from elysia.gateway import server
from elysia.models.streaming_text import ReplyFilter

MANNER = ChatFormat(get_template("internlm2_chat"), "你是爱莉希雅。", ("<|im_end|>",))
KEY = "a-key-for-the-tests-of-the-gateway"


class ParrotEngine(ScriptedEngine):
    """Says the last message back, a character a delta; counts who is inside.

    A message of `wait` is not answered before `gate` is set; `fail` fails in mid-reply, `forever`
    never ends.
    """

    capabilities = frozenset({"text", "penalties"})

    def __init__(self, slots: int = 2) -> None:
        super().__init__([], slots=slots, context_length=512)
        self.gate = threading.Event()
        self.inside = 0
        self.most = 0
        self.cancelled = 0
        self.closed = False
        self._lock = threading.Lock()

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        self.requests.append(request)
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            yield from self._iter_reply(request, cancel or threading.Event())
        finally:
            with self._lock:
                self.inside -= 1

    def _iter_reply(self, request: GenerationRequest, cancel: threading.Event) -> Iterator[Delta]:
        text = request.text or request.messages[-1].text
        if text == "wait":
            self.gate.wait(120)
        stops, count, thought = ReplyFilter(request.stop, raw=request.text is not None), 0, 0
        while count < request.sampling.max_new_tokens and not stops.stopped:
            if cancel.is_set():
                self.cancelled += 1
                yield Delta("", "cancelled", TokenUsage(1, count))
                return
            if text == "fail" and count == 2:
                from elysia.core.errors import EngineError

                raise EngineError("The engine broke.")
            if text != "forever" and count >= len(text):
                break
            if text == "forever":
                time.sleep(0.005)
            if any(piece := stops.push(text[count % len(text)])):
                yield Delta(piece.text, reasoning=piece.reasoning)
            count += 1
            thought += stops.thinking
        over = stops.stopped or count >= len(text)
        usage = TokenUsage(len(text), count, thought)
        rest = stops.rest()
        yield Delta(rest.text, "stop" if over else "length", usage, reasoning=rest.reasoning)

    def close(self) -> None:
        self.closed = True


@contextmanager
def running(models: list[Any], voices: Any = None, **settings: Any) -> Iterator[Any]:
    """A gateway in a thread: an httpx client of it, with `.app` beside."""
    settings = server.GatewaySettings(port=0, drain_seconds=2, **settings)
    sock = server.bind_socket(settings)
    app = server.build_app(models, settings, voices)
    import uvicorn

    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    uvicorn_server = uvicorn.Server(config)
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not uvicorn_server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            client.app = app
            yield client
    finally:
        uvicorn_server.should_exit = True
        thread.join(10)
        sock.close()
