"""`python benchmarks/lint.py [FILE]`: seconds and peak memory of lint on 10 MB and 100 MB of rows.

The rows of FILE (a JSON array; by default the bundled general dialogues, sixteen to a row) are
repeated, with some characters of every text changed, so that no two are duplicates. Each size is
linted by a new process; its start counts in the CPU time, not in the seconds. The load is that of the
whole machine, before and after. Asserts nothing.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import os, resource, sys, time
from pathlib import Path
from elysia.data.lint.lint_run import lint_files
wall, load = time.perf_counter(), os.getloadavg()[0]
(report,) = lint_files([Path(sys.argv[1])])
wall = time.perf_counter() - wall
this, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = [used.ru_utime + used.ru_stime for used in (this, others)]
peak = [used.ru_maxrss / 1024 for used in (this, others)]
print(f"{report.sizes.rows:>9,} rows  {wall:6.1f} s  {sum(cpu):6.1f} s of CPU ({cpu[0]:.1f} in the first "
      f"process)  peak {peak[0]:.0f} MB, of each other process {peak[1]:.0f} MB  "
      f"load {load:.1f} to {os.getloadavg()[0]:.1f}")
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
