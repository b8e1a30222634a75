"""How far off `elysia plan` is: it plans small trainings, runs them, and prints both side by side.

    python benchmarks/plan.py --data persona.json --small S --large L

S and L are model folders with a small vocabulary and a large one (docs/plan.md says how they are made).
Each plan and each training is a process of its own. Where other programs share the machine, processor time
is what to compare (with `--threads 1`). Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any


def plan_it(values: dict[str, Any], folder: Path) -> None:
    """What `elysia plan` leaves, with rates measured this minute: an hour ago others used the machine."""
    from elysia.train.plan import plan, target_of
    from elysia.train.settings import settings_from

    os.environ["ELYSIA_CACHE"] = str(folder)
    settings = settings_from(values, "the case")
    found = plan(settings, target_of(settings))
    (folder / "plan.json").write_text(json.dumps(found.to_dict()))


def train_it(values: dict[str, Any], folder: Path) -> None:
    from elysia.train.launch import run
    from elysia.train.settings import settings_from

    os.environ["ELYSIA_CACHE"] = str(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    run(settings_from(values, "the case"), "case", folder)


def alone(work: Any, *args: Any) -> None:
    """`work` in a process of its own, which has the imports already."""
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed with {process.exitcode}.")


def compare(args: argparse.Namespace, model: str, method: str) -> dict[str, Any]:
    """Planned and measured seconds of a step and MB at the peak."""
    values = {
        "pretrained_model_name_or_path": str(Path(model).resolve()),
        "data_path": [{"path": str(Path(args.data).resolve()), "limit": args.rows}],
        "method": method, "lora_r": 16, "lora_alpha": 32, "max_length": args.tokens,
        "overlong": "drop", "accumulative_counts": args.micro, "max_steps": args.steps,
        "max_epochs": 1, "gradient_checkpointing": args.recompute, "save_steps": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        alone(plan_it, values, Path(name))
        alone(train_it, values, Path(name))
        card = json.loads((Path(name) / "run_card.json").read_text())
        found: dict[str, Any] = card["metrics"]
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
    parser.add_argument("--rows", type=int, default=None, help="of the data (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "passive"}
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import bitsandbytes  # noqa: F401

    import elysia.train.plan
    import elysia.train.runner
    import elysia.train.sft  # noqa: F401

    logging.disable(logging.WARNING)
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
            m = compare(args, model, method)
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
