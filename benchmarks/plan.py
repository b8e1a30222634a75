"""How far off `elysia plan` is: it plans small trainings, runs them, and prints both side by side.

    python benchmarks/plan.py --data persona.json --models S L

A method is words with + between them: full, lora, qlora; dora; dpo, orpo, reward (of the pairs of --pairs);
shared (two processes have half of a row each). Without one of the first three it is lora.
The models are folders (docs/plan.md says how those of its table are made). Each plan and each training is a
process of its own. Where other programs share the machine, processor time is what to compare (with
`--threads 1`), and what the device can do changes by the minute: so each training is planned before and
after, with rates measured anew, and the mean of both is shown. Asserts nothing.
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

OBJECTIVES = ("dpo", "orpo", "reward")


def plan_it(values: dict[str, Any], folder: Path, name: str) -> None:
    """What `elysia plan` leaves, with rates measured this minute: an hour ago others used the machine."""
    from elysia.train.config.settings import build_settings
    from elysia.train.planner import build_plan, resolve_target

    os.environ["ELYSIA_CACHE"] = str(folder / name)
    settings = build_settings(values, "the case")
    found = build_plan(settings, resolve_target(settings))
    (folder / name).with_suffix(".json").write_text(json.dumps(found.to_dict()))


def train_it(values: dict[str, Any], folder: Path) -> None:
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


def alone(work: Any, *args: Any, kind: str = "fork") -> None:
    """`work` in a process of its own, which has the imports already, or (kind "spawn") makes them."""
    process = multiprocessing.get_context(kind).Process(target=work, args=args)  # type: ignore
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed with {process.exitcode}.")


def of_method(words: set[str], args: argparse.Namespace) -> dict[str, Any]:
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
    values = of_method(set(method.split("+")), args) | {
        "pretrained_model_name_or_path": str(Path(model).resolve()),
        "lora_r": 16, "lora_alpha": 32, "max_length": args.tokens,
        "overlong": "drop", "accumulative_counts": args.micro, "max_steps": args.steps,
        "max_epochs": 1, "gradient_checkpointing": args.recompute, "save_steps": 0,
    }  # fmt: skip
    os.environ["NPROC_PER_NODE"] = str(values["sequence_parallel_size"])
    # A fork does not show what is mapped of the libraries' files; torchrun's processes do.
    kind = "fork" if values["sequence_parallel_size"] == 1 else "spawn"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone(plan_it, values, folder, "plan", kind=kind)
        alone(train_it, values, folder)
        alone(plan_it, values, folder, "again", kind=kind)
        found: dict[str, Any] = json.loads((folder / "run_card.json").read_text())["metrics"]
        after = json.loads((folder / "again.json").read_text())["step_seconds"]
        both = (found["planned_step_seconds"], after)
        return found | {"both": both, "planned_step_seconds": sum(both) / 2}


def off(planned: float, measured: float) -> str:
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
    import bitsandbytes  # noqa: F401

    import elysia.train.engine.runner
    import elysia.train.methods.sft  # noqa: F401

    logging.disable(logging.WARNING)
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
            own = m["step_cpu_seconds"] / args.threads
            planned, peak = m["planned_step_seconds"], m["planned_peak_mb"]
            print(
                f"| {shape} | {config['vocab_size']:,} | {args.tokens} | {method} "
                f"| {planned:.2f} ({m['both'][0]:.2f}, {m['both'][1]:.2f}) | {own:.2f} "
                f"| {off(planned, own)} | {m['step_seconds']:.2f} | {peak:.0f} | {m['peak_mb']:.0f} "
                f"| {off(peak, m['peak_mb'])} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
