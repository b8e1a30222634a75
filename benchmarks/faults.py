"""What must hold under stress: many streams at once, clients that leave, an engine that is killed.

    python benchmarks/faults.py FILE.gguf                # minutes: a small model will do
    python benchmarks/faults.py FILE.gguf --seconds 20 --leavers 20 --kills 2

Starts a gateway for each: over an engine that repeats the user's message, which shows any mix-up between
streams, then over llama.cpp. Ends with an error when anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from elysia.core.sse import iter_lines
from elysia.engines.base import Delta, GenerationRequest, TokenUsage
from elysia.engines.scripted import ScriptedEngine

MAX_GROWTH = 0.05  # of memory
MAX_RECOVERY = 10.0  # seconds until a request after a kill is served


class EchoEngine(ScriptedEngine):
    """Repeats the last message, a word at a time, with a pause after each."""

    def __init__(self, slots: int, pause: float) -> None:
        super().__init__([], slots=slots, context_length=4096)
        self._pause = pause

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        words = re.findall(r"\S+\s*", request.messages[-1].text)
        for word in words:
            if cancel is not None and cancel.is_set():
                break
            time.sleep(self._pause)
            yield Delta(word)
        yield Delta("", "stop", TokenUsage(1, len(words)))


@dataclass
class StreamCounts:
    """How the streams of a run ended."""

    whole: int = 0
    busy: int = 0
    faults: list[str] = field(default_factory=list)
    mixed: int = 0


def ask(text: str, tokens: int = 64) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"model": "m", "stream": True, "messages": [message], "max_tokens": tokens}


def reply(client: httpx.Client, text: str, tokens: int = 64) -> str:
    """One streamed reply; RuntimeError for any status but 200, for an error event, and for a stream
    without its end.
    """
    with client.stream("POST", "/v1/chat/completions", json=ask(text, tokens)) as answer:
        if answer.status_code != 200:
            answer.read()
            raise RuntimeError(f"{answer.status_code} {answer.text[:200]}")
        pieces = []
        for line in iter_lines(answer.iter_bytes()):
            if line == "data: [DONE]":
                return "".join(pieces)
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                pieces += [c["delta"].get("content", "") for c in event["choices"]]
        raise RuntimeError("the stream ended without [DONE]")


def soak(
    url: str, streams: int, seconds: float, pids: Sequence[int] = (), *, echoes: bool = True
) -> tuple[StreamCounts, float]:
    """`streams` at once for a while; how they ended, and by what share memory grew.

    Memory is compared from a quarter of the time on, when caches and threads exist.
    """
    counts, lock, until = StreamCounts(), threading.Lock(), time.monotonic() + seconds
    sizes: list[int] = []

    def talk(number: int) -> None:
        turn = 0
        with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
            while time.monotonic() < until:
                turn += 1
                text = " ".join(f"{number}-{turn}-{word}" for word in range(24))
                try:
                    text_back = reply(client, text)
                except (RuntimeError, httpx.HTTPError) as error:
                    with lock:
                        if str(error).startswith("429"):
                            counts.busy += 1
                        else:
                            counts.faults.append(f"{type(error).__name__}: {error}"[:200])
                    time.sleep(0.05 if str(error).startswith("429") else 0)
                    continue
                with lock:
                    counts.whole += 1
                    counts.mixed += echoes and text_back != text

    with ThreadPoolExecutor(streams) as pool:
        streams_running = [pool.submit(talk, number) for number in range(streams)]
        time.sleep(seconds / 4)
        sizes.append(rss(pids))
        for stream in streams_running:
            stream.result()
    sizes.append(rss(pids))
    return counts, sizes[1] / sizes[0] - 1 if pids else 0.0


def leave(url: str, count: int, seed: int = 0) -> None:
    """Abandons streams at random moments; RuntimeError unless every slot is free afterwards."""
    rng = random.Random(seed)

    def go(pause: float) -> None:
        patience = httpx.Timeout(30, read=pause)
        with httpx.Client(base_url=url, timeout=patience, trust_env=False) as client:
            until = time.monotonic() + pause
            try:
                with client.stream(
                    "POST", "/v1/chat/completions", json=ask("la " * 200, 400)
                ) as answer:
                    for _ in answer.iter_raw():
                        if time.monotonic() > until:
                            return
            except httpx.ReadTimeout:
                return  # left before the first word

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(go, [rng.uniform(0.01, 0.6) for _ in range(count)]))
    until = time.monotonic() + MAX_RECOVERY
    while (occupied := count_replies(url)) != (0, 0):
        if time.monotonic() > until:
            raise RuntimeError(f"(running, waiting) is {occupied} after every client has left")
        time.sleep(0.05)


def count_replies(url: str) -> tuple[int, int]:
    """Replies that run and that wait, from /metrics."""
    page = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).text
    matches = (
        re.search(rf'^elysia_{name}{{model="m"}} (\S+)$', page, re.M)
        for name in ("running", "waiting")
    )
    running, waiting = (int(float(match[1])) if match else 0 for match in matches)
    return running, waiting


def kill(url: str, gateway: int) -> tuple[str, float]:
    """Kill the gateway's llama.cpp in the middle of a stream; returns how that stream ended, and the
    seconds until the next request was served.
    """
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        ending = "whole"
        with client.stream("POST", "/v1/chat/completions", json=ask("la", 400)) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            for child in children(gateway):
                os.kill(child, signal.SIGKILL)
            rest = b"".join(chunks).decode()
            if '"error"' in rest:
                ending = "error" if "[DONE]" not in rest else "both an error and an end"
        began = time.monotonic()
        reply(client, "la", 4)
        return ending, time.monotonic() - began


def children(pid: int) -> list[int]:
    """Processes that `pid` started, whichever of its threads did."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text().split()]


def rss(pids: Sequence[int]) -> int:
    """Bytes of memory that processes hold."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def stand_in() -> None:
    """A gateway over EchoEngine, until it is ended."""
    from elysia.app import ChatFormat
    from elysia.core.templates import get_template
    from elysia.gateway import server

    settings = server.GatewaySettings(port=0, max_waiting=48)
    with server.bind_socket(settings) as sock:
        manner = ChatFormat(get_template("internlm2_chat"), "", ())
        app = server.build_app([("m", EchoEngine(8, 0.01), manner)], settings)
        print(f"Serving m on http://127.0.0.1:{sock.getsockname()[1]}/v1", flush=True)
        server.serve(app, settings, sock)


@contextmanager
def gateway(*command: str) -> Iterator[tuple[str, int]]:
    """(URL, process id) of a gateway started by `command`, which says where it listens."""
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        match = re.search(r"http://\S+(?=/v1)", child.stdout.readline())
        assert match, "the gateway did not start"
        url, until = match[0], time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{url}/ready", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < until, "the gateway does not answer"
            time.sleep(0.2)
        yield url, child.pid
    finally:
        child.terminate()
        child.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", nargs="?", help="a GGUF; a few million parameters will do")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180.0, help="for each of the two gateways")
    parser.add_argument("--leavers", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stand_in:
        return stand_in()
    if not args.file:
        parser.error("name a GGUF")
    with gateway(__file__, "--stand-in") as (url, pid):
        report("stand-in", soak(url, args.streams, args.seconds, [pid]))
    serve = (
        "-m", "elysia", "serve", f"m={args.file}", "--port", "0", "--threads", "1", "--context",
        "512", "--parallel", "4", "--queue", "48", "--temperature", "1",
    )  # fmt: skip
    with gateway(*serve) as (url, pid):
        pids = [pid, *children(pid)]
        report("llama.cpp", soak(url, args.streams, args.seconds, pids, echoes=False))
        leave(url, args.leavers)
        print(f"{args.leavers} clients left at random: no slot is taken", flush=True)
        ends = [kill(url, pid) for _ in range(args.kills)]
        endings = {word: sum(end == word for end, _ in ends) for word, _ in ends}
        slowest = max((seconds for _, seconds in ends), default=0.0)
        print(f"{args.kills} kills: streams ended with {endings}; the next request took at most "
              f"{slowest:.1f} s", flush=True)  # fmt: skip
        if slowest > MAX_RECOVERY:
            raise SystemExit("a request after a kill took too long")


def report(name: str, result: tuple[StreamCounts, float]) -> None:
    """Print one line; SystemExit when something did not hold."""
    counts, growth = result
    print(
        f"{name}: {counts.whole} replies, {counts.busy} asked to wait, {len(counts.faults)} failures, "
        f"{counts.mixed} with another's text, memory {growth:+.1%} {counts.faults[:2]}",
        flush=True,
    )
    if counts.faults or counts.mixed or growth > MAX_GROWTH:
        raise SystemExit("that does not hold")


if __name__ == "__main__":
    main()
