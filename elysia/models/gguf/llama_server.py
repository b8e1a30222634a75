"""A llama.cpp server in a child process on loopback: start it, send requests, restart it when it dies.

It is a process of its own because llama.cpp aborts where Python would raise, and because its threads
never yield to ours.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

from elysia.core.errors import EngineError, ModelError, RequestError
from elysia.core.i18n import Text
from elysia.core.sse import iter_lines

log = logging.getLogger(__name__)

SERVER_TIMEOUT = 600.0  # seconds for a large model to be read
GGUF_MAGIC = b"GGUF"  # the first bytes of every such file
CONNECTION_ERRORS = (HTTPException, OSError)  # of a connection to the child


def count_default_threads() -> int:
    """One fewer than the cores that this process may use, and at least one.

    llama.cpp's threads wait for each other in a busy loop, so that on a busy machine one thread that
    is held up holds up all.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return max(1, (len(allowed(0)) if allowed else os.cpu_count() or 1) - 1)


class LlamaServer:
    """One model served by llama.cpp. Threads may share it; `close` ends the child.

    Args:
        context: tokens that a prompt and its reply may take together, in each of the `slots`.
        slots: replies that are generated side by side.
        gpu_layers: layers to put on a GPU, where this build of llama.cpp sees one.
        cache: the type in which keys and values are stored, f16 or f32.
    """

    def __init__(
        self,
        model: Path,
        *,
        context: int,
        slots: int = 1,
        threads: int | None = None,
        embedding: bool = False,
        gpu_layers: int = 0,
        cache: str = "f16",
    ) -> None:
        check_gguf_file(model)
        self.model = model
        self._settings = {
            "model": str(model),
            "context": context,
            "slots": slots,
            "threads": threads or count_default_threads(),
            "embedding": embedding,
            "gpu_layers": gpu_layers,
            "cache": cache,
        }
        self.slots = slots
        self.restarts = 0
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._url, self._key = "", ""
        self._closed = False
        self._start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self._child is not None
        return self._child.pid

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to a POST; EngineError when the child refuses or dies."""
        with self._send(path, body) as answer:
            return json.loads(answer.read())

    @contextmanager
    def events(self, path: str, body: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a streamed POST. Leaving the block early ends the generation."""
        with self._send(path, body) as answer:
            yield _iter_events(answer)

    @contextmanager
    def _send(self, path: str, body: dict[str, Any]) -> Iterator[HTTPResponse]:
        """The answer to a POST, its body still to be read; on a connection of its own.

        If the child turns out to have died before it answered, the request is sent to the next one:
        nothing has been generated yet. The standard library's client reads a token's event in half of
        httpx's time. Connections are not kept: the child may close idle ones at any time, and each open
        one occupies one of its threads.
        """
        text = json.dumps(body).encode()
        connection = self._connect()
        try:
            with self._explain_faults():
                try:
                    answer = self._post(connection, path, text)
                except CONNECTION_ERRORS:
                    if not self._died():
                        raise
                    connection.close()
                    connection = self._connect()
                    answer = self._post(connection, path, text)
                if answer.status != 200:
                    raise_for_status(answer.status, answer.read())
                yield answer
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        """A connection to the running child; a dead child is restarted first."""
        with self._lock:
            if self._closed:
                raise EngineError("models.engine_closed", model=self.model.name)
            assert self._child is not None
            if self._child.poll() is not None:
                self._restart(self._child.returncode)
            parts = urlsplit(self._url)
            return HTTPConnection(str(parts.hostname), parts.port, timeout=SERVER_TIMEOUT)

    def _restart(self, code: int) -> None:
        log.warning(
            "The llama.cpp process of %s died (%s) and is restarted.%s",
            self.model.name, code, self._read_last_error(),
        )  # fmt: skip
        self._stop()
        try:
            self._start()
        except ModelError as error:
            # It could be served before, so this is not the fault of whoever asks.
            raise EngineError(error.code, **error.params) from error
        self.restarts += 1

    def _post(self, connection: HTTPConnection, path: str, body: bytes) -> HTTPResponse:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection.request("POST", path, body, headers)
        return connection.getresponse()

    def _died(self) -> bool:
        """Whether the child is dead, or dies within a moment."""
        child = self._child
        if child is None:
            return False
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            return False
        return True

    @contextmanager
    def _explain_faults(self) -> Iterator[None]:
        """Turn faults of the connection into an EngineError: the child died, or hangs."""
        try:
            yield
        except CONNECTION_ERRORS as error:
            raise EngineError(
                "models.llama_died", model=self.model.name, reason=type(error).__name__
            ) from error

    def close(self) -> None:
        """End the child; harmless when repeated."""
        with self._lock:
            self._closed = True
            self._stop()

    def _start(self) -> None:
        self._key = secrets.token_hex(16)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", "elysia.models.gguf.llama_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        try:
            self._url = self._wait_for_url(self._child, {**self._settings, "key": self._key})
        except BaseException:
            self._stop()
            raise

    def _wait_for_url(self, child: subprocess.Popen[str], settings: dict[str, Any]) -> str:
        assert child.stdin is not None and child.stdout is not None
        timer = threading.Timer(SERVER_TIMEOUT, child.kill)
        timer.start()
        try:
            child.stdin.write(json.dumps(settings) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        answer: dict[str, str] = json.loads(line) if line else {}
        if "url" not in answer:
            child.wait()
            reason = answer.get("error") or Text("models.exit_code", {"code": child.returncode})
            raise ModelError(
                "models.llama_cannot_serve",
                model=self.model,
                reason=reason,
                log=self._read_last_error(),
            )
        return answer["url"]

    def _stop(self) -> None:
        child = self._child
        if child is not None:
            assert child.stdin is not None and child.stdout is not None
            for pipe in (child.stdin, child.stdout):
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _read_last_error(self) -> str:
        """The last error line of the child's log in brackets, to append to a sentence; "" for none."""
        if self._log is None:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 20_000))
        lines = self._log.read().decode(errors="replace").splitlines()
        errors = [line.strip() for line in lines if "error" in line.lower() or "what()" in line]
        return f" ({errors[-1][:300]})" if errors else ""


def check_gguf_file(model: Path) -> None:
    """ModelError for a file that is missing or is no GGUF."""
    try:
        with open(model, "rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise ModelError("models.file_unreadable", path=model, reason=error.strerror) from error
    if magic != GGUF_MAGIC:
        raise ModelError("models.not_gguf", path=model)


def raise_for_status(status: int, body: bytes) -> NoReturn:
    """Raise an error with the child's own words; `status` is not 200.

    RequestError for a fault of the request (400), EngineError otherwise.
    """
    try:
        reason = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        reason = body.decode(errors="replace")[:300]
    kind = RequestError if status == 400 else EngineError
    raise kind("models.llama_refused", reason=reason)


def _iter_chunks(answer: HTTPResponse) -> Iterator[bytes]:
    while chunk := answer.read1(65536):
        yield chunk


def _iter_events(answer: HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in iter_lines(_iter_chunks(answer)):
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])
        elif line.startswith("error: "):
            reason = json.loads(line[7:]).get("message", line)
            raise EngineError("models.llama_gave_up", reason=reason)
