"""Serving, measured in CPU-seconds: engines against transformers, the gateway against its engine.

    python benchmarks/serve.py WORK_DIR            # makes the model there once (112 million parameters)
    python benchmarks/serve.py WORK_DIR --streams 1,8,64 --seconds 180

One thread everywhere. Every ratio is of one run on one machine; wall times are given only where they
are the question (time to first token), as medians of turns taken one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from elysia.core.messages import Message
from elysia.core.templates import get_template, render_prompt
from elysia.engines.base import GenerationRequest, Sampling

TOKENS = 96
ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = get_template("internlm2_chat")
TALK = [Message("user", "Hello! 你好呀，今天想聊点什么？")]
RAW_REQUEST = {  # llama.cpp's own, for the same reply
    "prompt": render_prompt(TALK, TEMPLATE), "n_predict": TOKENS, "temperature": 1.0, "top_k": 0,
    "top_p": 1.0, "min_p": 0.0, "cache_prompt": True, "ignore_eos": True,
}  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--streams", default="1,8,64", help="numbers of streams at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of streams")
    parser.add_argument("--pairs", type=int, default=20, help="turns of raw llama.cpp and gateway")
    parser.add_argument("--skip-engines", action="store_true", help="the gateway only")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    model, file = make_model(args.work_dir)
    speeds = {} if args.skip_engines else {"transformers bf16": transformers_speed(model)}
    streams = [int(n) for n in args.streams.split(",") if n]
    with_gateway(file, speeds, streams, args.seconds, args.pairs)


def make_model(folder: Path) -> tuple[Path, Path]:
    """A Llama of 112 million random parameters in bfloat16, and its q4_k_m."""
    from elysia.core.run_card import RunCard
    from elysia.export.gguf_writer import quantize_gguf
    from elysia.models import tiny

    model, file = folder / "m112", folder / "m112.q4_k_m.gguf"
    if not file.is_file():
        tiny.train_tokenizer([ROOT / "data/chat.json"], 4096, folder / "tokenizer", overwrite=True)
        tiny.init_model(
            model, tokenizer=folder / "tokenizer", architecture="llama", hidden_size=768, layers=15,
            heads=12, intermediate_size=2048, vocab_size=4096, dtype="bfloat16", overwrite=True,
        )  # fmt: skip
        RunCard("merged", "random", template=TEMPLATE.to_dict(), stop_words=["<|im_end|>"]).write(
            model
        )
        quantize_gguf(
            model, file, file_type="q4_k_m", max_kl=100.0
        )  # random weights: speed is the question
    return model, file


def request() -> GenerationRequest:
    return GenerationRequest(
        TALK, TEMPLATE, (), Sampling(max_new_tokens=TOKENS, temperature=1.0, top_k=0, top_p=1.0)
    )


def transformers_speed(model: Path) -> float:
    """Tokens per CPU-second of the reference engine in bfloat16, prompt and all."""
    import torch

    from elysia.engines import transformers

    torch.set_num_threads(1)
    engine = transformers.build_engine(model, dtype="bfloat16", device="cpu")
    return speed(lambda: count_tokens(engine), time.process_time)


def count_tokens(engine: Any) -> int:
    *_, last = engine.stream(request())
    return int(last.usage.reply_tokens)


def speed(work: Callable[[], int], clock: Callable[[], float], turns: int = 3) -> float:
    """The best of some turns, after one that warms up, in tokens per second of `clock`."""
    work()
    rates = []
    for _ in range(turns):
        began = clock()
        tokens = work()
        rates.append(tokens / max(clock() - began, 1e-9))
    return max(rates)


def cpu(*pids: int) -> float:
    """CPU-seconds that processes have used."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def in_pairs(
    bare: Callable[[], int],
    through: Callable[[], int],
    bare_cpu: Callable[[], float],
    through_cpu: Callable[[], float],
    pairs: int,
) -> None:
    """What the gateway costs over raw llama.cpp asked for the same: by turns, so that whatever else
    the machine does meets both; the median of the pairs, and their quartiles.
    """
    costs: dict[str, list[float]] = {"CPU": [], "wall": []}
    for turn in range(pairs):
        spent = {}
        sides = [("raw", bare, bare_cpu), ("gateway", through, through_cpu)]
        for name, work, clock in sides if turn % 2 else reversed(sides):
            began = clock(), time.perf_counter()
            tokens = work()
            spent[name] = (clock() - began[0]) / tokens, (time.perf_counter() - began[1]) / tokens
        for place, kind in enumerate(costs):
            costs[kind].append(spent["gateway"][place] / spent["raw"][place] - 1)
    for kind, values in costs.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(
            f"gateway over raw, {kind} a token, {pairs} pairs: {middle:+.1%} "
            f"(quartiles {low:+.1%}, {high:+.1%})",
            flush=True,
        )


def print_speeds(speeds: dict[str, float]) -> None:
    """A line an engine, beside transformers where that was measured."""
    base = speeds.get("transformers bf16")
    for name, value in speeds.items():
        ratio = f"   {value / base:.2f}x" if base else ""
        print(f"{name:30} {value:8.1f} tokens per CPU-second{ratio}", flush=True)


def with_gateway(
    file: Path, speeds: dict[str, float], streams: list[int], seconds: float, pairs: int
) -> None:
    from elysia.engines import llama_cpp

    engine = llama_cpp.build_engine(file, threads=1, context=512, slots=4)
    child = engine.server.pid
    gateway = subprocess.Popen(
        [sys.executable, "-m", "elysia", "serve", f"m={file}", "--port", "23399", "--threads", "1",
         "--context", "512", "--parallel", "4", "--queue", "128"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert gateway.stdout is not None and "Serving" in gateway.stdout.readline()
        client = httpx.Client(base_url="http://127.0.0.1:23399", timeout=300, trust_env=False)
        wait_until_alive(client)
        inner = int(Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()[0])
        body = engine._build_body(request(), engine._fit_prompt(request())[0], TOKENS, None)

        def bare() -> int:
            with engine.server.events("/completion", body) as events:
                *_, last = events
            return int(last["tokens_predicted"])

        def through() -> int:
            return sum(1 for _ in stream(client, TOKENS))

        speeds["raw llama.cpp q4_k_m"] = speed(bare, lambda: cpu(child))
        speeds["engine llama_cpp q4_k_m"] = speed(
            lambda: count_tokens(engine), lambda: cpu(child) + time.process_time()
        )
        speeds["gateway, all its processes"] = speed(through, lambda: cpu(gateway.pid, inner))
        speeds["gateway, llama.cpp's process"] = speed(through, lambda: cpu(inner))
        in_pairs(bare, through, lambda: cpu(child), lambda: cpu(gateway.pid, inner), pairs)
        own, total = cpu(gateway.pid), cpu(gateway.pid, inner)
        for _ in range(pairs):
            through()
        share = (cpu(gateway.pid) - own) / (cpu(gateway.pid, inner) - total)
        print(
            f"the gateway's own share of the CPU-seconds of {pairs} replies: {share:.1%}",
            flush=True,
        )
        print_speeds(speeds)
        first_tokens(engine, client, RAW_REQUEST)
        for count in streams:
            load(client, count, seconds, gateway.pid, inner)
    finally:
        gateway.terminate()
        gateway.wait(60)
        engine.close()


def wait_until_alive(client: httpx.Client) -> None:
    """Until the gateway is ready, for a minute at most."""
    until = time.monotonic() + 60
    while not alive(client) and time.monotonic() < until:
        time.sleep(0.2)


def alive(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.HTTPError:
        return False


def stream(client: httpx.Client, tokens: int) -> Any:
    """The events with words of one streamed reply, as many as tokens."""
    ask = {
        "model": "m", "stream": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
        "messages": [{"role": "user", "content": TALK[0].text}], "max_tokens": tokens,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    with client.stream("POST", "/v1/chat/completions", json=ask) as answer:
        if answer.status_code != 200:
            answer.read()
            raise RuntimeError(f"{answer.status_code} {answer.text}")
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                if event.get("usage"):
                    yield from range(event["usage"]["completion_tokens"])


def first_tokens(engine: Any, client: httpx.Client, raw: dict[str, Any]) -> None:
    """Median milliseconds to the first event, raw and through the gateway, by turns."""
    times: dict[str, list[float]] = {"raw": [], "gateway": []}
    ask = {"model": "m", "stream": True, "messages": [{"role": "user", "content": TALK[0].text}],
           "max_tokens": 2}  # fmt: skip
    for _ in range(40):
        began = time.perf_counter()
        with engine.server.events("/completion", raw | {"n_predict": 2, "stream": True}) as events:
            # The gateway sends words, not half characters, so what it is compared with must do so, too.
            next(event for event in events if event["content"] or event["stop"])
            times["raw"].append(time.perf_counter() - began)
            list(events)
        began = time.perf_counter()
        with client.stream("POST", "/v1/chat/completions", json=ask) as answer:
            lines = answer.iter_lines()
            next(lines)
            times["gateway"].append(time.perf_counter() - began)
            list(lines)
    raw_ms, gateway_ms = (1000 * statistics.median(times[name]) for name in ("raw", "gateway"))
    print(
        f"first token: raw {raw_ms:.1f} ms, gateway {gateway_ms:.1f} ms, added {gateway_ms - raw_ms:.1f} ms"
    )


def load(client: httpx.Client, count: int, seconds: float, *pids: int) -> None:
    """`count` streams at once for a while: failures, tokens, CPU and memory."""
    until = time.monotonic() + seconds
    counts = {"replies": 0, "tokens": 0, "busy": 0}
    faults: list[str] = []
    lock = threading.Lock()

    def talk() -> None:
        with httpx.Client(base_url=client.base_url, timeout=600, trust_env=False) as session:
            while time.monotonic() < until:
                try:
                    tokens = sum(1 for _ in stream(session, 24))
                except Exception as error:
                    with lock:
                        if str(error).startswith("429"):
                            counts["busy"] += 1
                        else:
                            faults.append(f"{type(error).__name__}: {error}"[:120])
                    continue
                with lock:
                    counts["replies"] += 1
                    counts["tokens"] += tokens

    memory, began = rss(*pids), cpu(*pids)
    threads = [threading.Thread(target=talk) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = cpu(*pids) - began
    print(
        f"{count:3} streams: {counts['replies']} replies, {counts['busy']} asked to wait, {len(faults)} "
        f"failures, {counts['tokens'] / spent:.0f} tokens per CPU-second, memory "
        f"{memory / 1e6:.0f} -> {rss(*pids) / 1e6:.0f} MB {faults[:2]}",
        flush=True,
    )


def rss(*pids: int) -> int:
    """Bytes of memory that processes hold."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


if __name__ == "__main__":
    main()
