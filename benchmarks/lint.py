"""`python benchmarks/lint.py [FILE]`: seconds and peak memory of lint on 10 MB and 100 MB of rows.

The rows are those of FILE (a JSON array; without one, the bundled general dialogues, sixteen to a
row) over and over, each text with marks of its own, so that no two are duplicates. Each size is
linted in a process of its own. Asserts nothing.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import resource, sys, time
from pathlib import Path
from elysia.data.lint.run import lint
wall, cpu = time.perf_counter(), time.process_time()
(report,) = lint([Path(sys.argv[1])])
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{report.shape.rows:>9,} rows  {wall:6.1f} s  {cpu:6.1f} s of CPU  peak {peak:.0f} MB")
"""


def varied(value: object, rng: random.Random) -> object:
    """`value` with a few characters of every text changed."""
    if isinstance(value, dict):
        return {key: varied(inner, rng) for key, inner in value.items()}
    if isinstance(value, list):
        return [varied(inner, rng) for inner in value]
    if not isinstance(value, str):
        return value
    letters = list(value)
    for place in range(0, len(letters), 6):
        letters[place] = chr(rng.randrange(0x4E00, 0x9000))
    return "".join(letters)


def bundled() -> list[object]:
    """Talks as long as those of published sets, of the bundled dialogues."""
    path = Path(__file__).resolve().parents[1] / "data" / "chat.json"
    talks = [row["conversation"] for row in json.loads(path.read_text(encoding="utf-8"))]
    rows = [talks[n : n + 16] for n in range(0, len(talks), 16)]
    return [{"conversation": [turn for talk in row for turn in talk]} for row in rows]


def main() -> None:
    """Make both files, lint both."""
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")) if sys.argv[1:] else bundled()
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in (10, 100):
            path, rng = Path(folder) / f"{megabytes}.jsonl", random.Random(0)
            with path.open("w", encoding="utf-8") as file:
                while file.tell() < megabytes * 1_000_000:
                    file.write(json.dumps(varied(rng.choice(rows), rng), ensure_ascii=False) + "\n")
            print(f"{megabytes:>4} MB", end="  ", flush=True)
            subprocess.run([sys.executable, "-c", CHILD, str(path)], check=True)


if __name__ == "__main__":
    main()
