"""How fast rows become tokens on disk, and in how much memory. Asserts nothing.

The file's rows are repeated until there are so many megabytes of JSON. `new text` is the file itself,
whose texts occur for the first time: the tokenizer's speed limits it. `repeated` is a file of repeats
(`--mb`, several sizes), including the start of the processes: nearly every text was encoded before, and
what remains is reading, checking, rendering and writing.

Each line is measured in a new process. CPU seconds include its children; they are given beside wall
seconds since other programs may use the machine. Memory is the most that it and its children held at
once, without the system's cache of file pages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TEMPLATE = "internlm2_chat"


def grow(file: Path, folder: Path, megabytes: float) -> Path:
    """Write a JSON array that repeats the file's rows."""
    rows = json.dumps(json.loads(file.read_text(encoding="utf-8")), ensure_ascii=False)[1:-1]
    path = folder / f"grown{megabytes:g}.json"
    with path.open("w", encoding="utf-8") as out:
        out.write("[")
        for number in range(max(1, round(megabytes * 1e6 / len(rows.encode())))):
            out.write(("," if number else "") + rows)
        out.write("]")
    return path


def prepare(path: Path, tokenizer: Path, format: str, processes: int, folder: Path) -> None:
    """Tokenize a file into a cache and print seconds and memory as JSON."""
    from elysia.core.templates import get_template
    from elysia.data.tokenize.sample_tokenizer import TokenizeOptions
    from elysia.data.tokenize.source_tokenizer import tokenize_source
    from elysia.models import loading

    os.environ["ELYSIA_CACHE"] = str(folder / "cache")
    words = loading.load_tokenizer(tokenizer)
    words(["warm"])
    most = [0.0]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            most[0] = max(most[0], measure_memory(os.getpid()))

    watcher = threading.Thread(target=look)
    watcher.start()
    wall, cpu = time.perf_counter(), measure_cpu()
    tokens = tokenize_source(
        {"path": str(path), "format": format},
        TokenizeOptions(get_template(TEMPLATE), 1 << 20),
        words,
        cache=1000,
        processes=processes,
    )
    wall, cpu = time.perf_counter() - wall, measure_cpu() - cpu
    done.set()
    watcher.join()
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": most[0], "count": len(tokens.ids)}))


def measure_cpu() -> float:
    """CPU seconds of this process and of its children that ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure_memory(process: int) -> float:
    """MB of memory that a process and its children use."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        own = sum(
            int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))
        )
        tasks = Path(f"/proc/{process}/task").iterdir()
        children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
    except (OSError, ValueError):
        return 0.0  # ended meanwhile
    return own / 1024 + sum(map(measure_memory, children))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a JSON array of rows")
    parser.add_argument("tokenizer", type=Path, help="a tokenizer's folder")
    parser.add_argument("--format", default="xtuner")
    parser.add_argument("--mb", type=float, nargs="+", default=[40, 100], help="of JSON")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="that make tokens")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # processes, folder
    args = parser.parse_args()
    if args.one:
        prepare(args.file, args.tokenizer, args.format, int(args.one[0]), Path(args.one[1]))
        return
    print("| | processes | JSON, MB | MB a wall second | MB a CPU second | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for number, megabytes in enumerate([0, *args.mb]):
        with tempfile.TemporaryDirectory() as name:
            path = grow(args.file, Path(name), megabytes)
            for processes in args.processes:
                show("repeated" if number else "new text", path, processes, args)


def show(label: str, path: Path, processes: int, args: argparse.Namespace) -> None:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            str(path),
            str(args.tokenizer),
            "--format",
            args.format,
        ]
        child = ["--one", str(processes), folder]
        done = subprocess.run([*command, *child], stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    size = path.stat().st_size / 1e6
    print(
        f"| {label} | {processes} | {size:.1f} | {size / result['wall']:.2f} "
        f"| {size / result['cpu']:.2f} | {result['peak']:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
