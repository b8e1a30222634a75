"""How far off `elysia plan` is: it plans small trainings, runs them, and prints both side by side.

    python benchmarks/plan.py --data persona.json --models S L

A method is words with + between them: full, lora, qlora; dora; dpo, orpo, reward (of the pairs of --pairs);
shared (two processes have half of a row each). Without one of the first three it is lora.
The models are folders (docs/plan.md says how those of its table are made). Each plan and each training is a
process of its own. Where other programs share the machine, compare processor time (with `--threads 1`);
the machine's speed still changes by the minute, so each training is planned before and after, and the mean
of both is shown.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

OBJECTIVES = ("dpo", "orpo", "reward")


def write_plan(values: dict[str, Any], folder: Path, name: str) -> None:
    """Write what `elysia plan` leaves in a work dir."""
    from elysia.train.config.settings import build_settings
    from elysia.train.planner import build_plan, resolve_target

    logging.disable(logging.WARNING)
    os.environ["ELYSIA_CACHE"] = str(folder / name)
    settings = build_settings(values, "the case")
    plan = build_plan(settings, resolve_target(settings))
    (folder / name).with_suffix(".json").write_text(json.dumps(plan.to_dict()))


def train(values: dict[str, Any], folder: Path) -> None:
    """Train the case without a word; its run card has the measurements."""
    from elysia.train.config.settings import build_settings
    from elysia.train.launch import run_training, train_subprocess

    os.environ["ELYSIA_CACHE"] = str(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    processes = values.get("sequence_parallel_size", 1)
    if processes == 1:
        run_training(build_settings(values, "the case"), "case", folder)
        return
    config = folder / "case.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    train_subprocess(config, folder, processes=processes)


def run_alone(function: Callable[..., None], *args: Any) -> None:
    """`function` in a new process: a fork would not show what is mapped of the libraries' files."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed with {process.exitcode}.")


def build_method_settings(words: set[str], args: argparse.Namespace) -> dict[str, Any]:
    """Settings that a method's words mean."""
    unknown = words - {"full", "lora", "qlora", "dora", "shared", *OBJECTIVES}
    if unknown:
        raise SystemExit(f"--methods: {', '.join(sorted(unknown))} is no part of a method.")
    objective = next((word for word in OBJECTIVES if word in words), "sft")
    file = args.data if objective == "sft" else args.pairs
    if file is None:
        raise SystemExit(f"--methods: {objective} needs --pairs, a file of preference pairs.")
    return {
        "data_path": [{"path": str(Path(file).resolve()), "limit": args.rows}],
        "dataset_format": "xtuner" if objective == "sft" else "preference_sharegpt",
        "objective": objective,
        "method": next((word for word in ("full", "qlora") if word in words), "lora"),
        "use_dora": "dora" in words,
        "sequence_parallel_size": 2 if "shared" in words else 1,
    }


def compare(args: argparse.Namespace, model: str, method: str) -> dict[str, Any]:
    """Planned and measured seconds of a step and MB at the peak."""
    values = build_method_settings(set(method.split("+")), args) | {
        "pretrained_model_name_or_path": str(Path(model).resolve()),
        "lora_r": 16, "lora_alpha": 32, "max_length": args.tokens,
        "prompt_template": "internlm2_chat", "overlong": "drop",
        "accumulative_counts": args.micro, "max_steps": args.steps,
        "max_epochs": 1, "gradient_checkpointing": args.recompute, "save_steps": 0,
    }  # fmt: skip
    os.environ["NPROC_PER_NODE"] = str(values["sequence_parallel_size"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_alone(write_plan, values, folder, "plan")
        run_alone(train, values, folder)
        run_alone(write_plan, values, folder, "again")
        metrics: dict[str, Any] = json.loads((folder / "run_card.json").read_text())["metrics"]
        after = json.loads((folder / "again.json").read_text())["step_seconds"]
        plans = (metrics["planned_step_seconds"], after)
        return metrics | {"plans": plans, "planned_step_seconds": sum(plans) / 2}


def format_deviation(planned: float, measured: float) -> str:
    return f"{100 * (planned / measured - 1):+.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", help="preference pairs as LLaMA-Factory writes them")
    parser.add_argument("--models", required=True, nargs="+", help="model folders")
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
    print(
        f"{args.threads} thread(s), steps of {args.micro} packs of {args.tokens} tokens, {args.steps} "
        f"steps, the first three left out{', recomputation' if args.recompute else ''}"
    )
    print(
        "| width x layers | vocabulary | tokens | method | step planned, s | processor s | off | wall s "
        "| peak planned, MB | measured | off |"
    )
    print("|---" * 11 + "|")
    for model in args.models:
        config = json.loads((Path(model) / "config.json").read_text())
        shape = f"{config['hidden_size']} x {config['num_hidden_layers']}"
        for method in args.methods.split(","):
            m = compare(args, model, method)
            cpu = m["step_cpu_seconds"] / args.threads
            planned, peak = m["planned_step_seconds"], m["planned_peak_mb"]
            time_off = format_deviation(planned, cpu)
            print(
                f"| {shape} | {config['vocab_size']:,} | {args.tokens} | {method} "
                f"| {planned:.2f} ({m['plans'][0]:.2f}, {m['plans'][1]:.2f}) | {cpu:.2f} "
                f"| {time_off} | {m['step_seconds']:.2f} | {peak:.0f} | {m['peak_mb']:.0f} "
                f"| {format_deviation(peak, m['peak_mb'])} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
