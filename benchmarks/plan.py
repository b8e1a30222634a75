"""How far off `elysia plan` is: it plans small trainings, runs them, and prints both side by side.

    python benchmarks/plan.py --data persona.json --small S --large L

S and L are model folders with a small vocabulary and a large one (docs/plan.md says how they are made).
Seconds are of processor time where the machine is shared: `--threads 1` makes both comparable. Asserts
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIG = """pretrained_model_name_or_path = {model!r}
data_path = {data!r}
method = {method!r}
lora_r, lora_alpha = 16, 32
max_length, overlong = {tokens}, 'drop'
accumulative_counts = {micro}
max_steps = {steps}
gradient_checkpointing = {recompute}
save_steps = 0
"""


def run(verb: str, config: Path, folder: Path, threads: int, *flags: str) -> str:
    """The output of one verb, in a process of its own."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive",
        "ELYSIA_CACHE": str(folder),
    }  # fmt: skip
    words = [sys.executable, "-m", "elysia", verb, str(config), "--work-dir", str(folder), *flags]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def compare(args: argparse.Namespace, model: str, method: str, recompute: bool) -> dict[str, Any]:
    """Planned and measured seconds of a step and MB at the peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "case.py"
        config.write_text(
            CONFIG.format(
                model=str(Path(model).resolve()), data=str(Path(args.data).resolve()),
                method=method, tokens=args.tokens, micro=args.micro, steps=args.steps,
                recompute=recompute,
            )
        )  # fmt: skip
        # A roofline of this minute: on a shared machine an hour's difference is large.
        run("plan", config, folder, args.threads)
        run("train", config, folder, args.threads)
        found: dict[str, Any] = json.loads((folder / "run_card.json").read_text())["metrics"]
        return found


def off(planned: float, measured: float) -> str:
    return f"{100 * (planned / measured - 1):+.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--small", required=True, help="a model folder")
    parser.add_argument("--large", required=True, help="a model folder")
    parser.add_argument("--methods", default="full,lora,qlora")
    parser.add_argument("--tokens", type=int, default=1024, help="of a pack")
    parser.add_argument("--micro", type=int, default=2, help="micro-batches of a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    args = parser.parse_args()
    print(
        f"{args.threads} thread(s), steps of {args.micro} packs of {args.tokens} tokens, {args.steps} "
        "steps, the first three left out"
    )
    print(
        "| vocabulary | method | step planned, s | processor s | off | wall s | peak planned, MB "
        "| measured | off |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for model in (args.small, args.large):
        words = json.loads((Path(model) / "config.json").read_text())["vocab_size"]
        for method in args.methods.split(","):
            m = compare(args, model, method, args.recompute)
            own = m["step_cpu_seconds"] / args.threads
            planned, peak = m["planned_step_seconds"], m["planned_peak_mb"]
            print(
                f"| {words:,} | {method} | {planned:.2f} | {own:.2f} | {off(planned, own)} "
                f"| {m['step_seconds']:.2f} | {peak:.0f} | {m['peak_mb']:.0f} "
                f"| {off(peak, m['peak_mb'])} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
