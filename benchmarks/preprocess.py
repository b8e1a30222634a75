"""How fast rows become tokens on disk, and in how much memory. Asserts nothing.

The file is repeated until it has `--mb` megabytes of JSON. `new text` reads the file's own rows, none
of which was seen before: the tokenizer's speed bounds it. `repeated` reads the repeats after that,
where every text was encoded before: what remains is reading, checking, rendering and laying down.
CPU seconds stand beside wall seconds, since others may compute on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elysia.core.templates import get_template
from elysia.data import cache
from elysia.data.encode import Encoder
from elysia.data.read import conversations
from elysia.data.tokenize import AT_ONCE, Way, encode_units
from elysia.data.tokens import Tokens
from elysia.models import load


def grown(file: Path, folder: Path, megabytes: float) -> tuple[Path, int]:
    """A JSON array of the file's rows again and again, and how often they are in it."""
    rows = json.dumps(json.loads(file.read_text(encoding="utf-8")), ensure_ascii=False)[1:-1]
    times = max(1, round(megabytes * 1e6 / len(rows.encode())))
    path = folder / "grown.json"
    with path.open("w", encoding="utf-8") as out:
        out.write("[")
        for number in range(times):
            out.write(("," if number else "") + rows)
        out.write("]")
    return path, times


def parts(path: Path, encoder: Encoder, format: str) -> Iterator[Tokens]:
    way = Way(get_template("internlm2_chat"), 1 << 20)
    units = ((sample,) for sample in conversations(path, format))
    while some := list(itertools.islice(units, AT_ONCE)):
        yield encode_units(some, way, encoder, (str(path),))


def measured(path: Path, encoder: Encoder, format: str, folder: Path) -> dict[str, Any]:
    """Megabytes a second of JSON, by wall and by CPU, and the peak of memory so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    folder.mkdir()
    cache.write(parts(path, encoder, format), folder, "")
    size = path.stat().st_size / 1e6
    return {
        "mb": size,
        "wall": size / (time.perf_counter() - wall),
        "cpu": size / (time.process_time() - cpu),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a JSON array of rows")
    parser.add_argument("tokenizer", type=Path, help="a tokenizer's folder")
    parser.add_argument("--format", default="xtuner")
    parser.add_argument("--mb", type=float, default=100, help="of JSON (default: 100)")
    args = parser.parse_args()
    encoder = Encoder(load.load_tokenizer(args.tokenizer))
    encoder.encode_many([])  # what is built on first use
    print("| | JSON, MB | MB a wall second | MB a CPU second | peak memory so far, MB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        once, _ = grown(args.file, folder, 0)
        found = measured(once, encoder, args.format, folder / "new")
        show("new text", found)
        for megabytes in (args.mb / 4, args.mb):
            path, times = grown(args.file, folder, megabytes)
            found = measured(path, encoder, args.format, folder / f"times{times}")
            show(f"repeated, {times} times", found)


def show(name: str, row: dict[str, Any]) -> None:
    figures = [f"{row['mb']:.1f}", f"{row['wall']:.2f}", f"{row['cpu']:.2f}", f"{row['peak']:.0f}"]
    print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
