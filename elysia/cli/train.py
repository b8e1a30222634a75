"""`elysia train` and `elysia plan`: run a training, or estimate before it starts what it takes.

The environment of launchers (NPROC_PER_NODE, NNODES, ...) is read in `train.launch`.
"""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser, paint, say
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.train.planner import TrainingPlan

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def train_parser() -> ArgumentParser:
    """The parser of `elysia train`."""
    parser = build_parser(
        "train",
        "CONFIG [options]",
        "Fine-tune as a config says: full, LoRA or QLoRA, on a CPU or on GPUs. "
        "NPROC_PER_NODE, NNODES, NODE_RANK, ADDR and PORT start more processes.",
        train,
    )
    parser.add_argument("config", help="a config file, or the name of a bundled one (list-cfg)")
    parser.add_argument("--work-dir", metavar="DIR", help="default: work_dirs/<config>")
    parser.add_argument(
        "--deepspeed",
        metavar="PRESET",
        help="deepspeed_zero1, _zero2, _zero2_offload, _zero3, _zero3_offload, or a .json file",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CKPT",
        help="continue from a checkpoint; without a value, from the work dir's last",
    )
    parser.add_argument("--seed", type=int, help="default: the config's")
    add_cfg_options(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="who started this process among others (default: none)",
    )
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by launchers (default: 0)"
    )
    return parser


def train(args: Namespace) -> int:
    """Run the training; returns its exit code, which may be that of a child process."""
    options = parse_cfg_options(args.cfg_options)
    from elysia.train.launch import train as run

    if args.launcher != "none":
        # Torch's old launcher passes the rank as a flag; torchrun's environment wins.
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return run(
        args.config,
        work_dir=args.work_dir,
        deepspeed=args.deepspeed,
        resume=args.resume,
        seed=args.seed,
        cfg_options=options,
        launcher=args.launcher,
    )


def plan_parser() -> ArgumentParser:
    """The parser of `elysia plan`."""
    parser = build_parser(
        "plan",
        "CONFIG [options]",
        "Estimate before a training starts what it takes: memory by part, speed and time, and what of "
        "the data is learned, cut or padding. Where the weights are here, one micro-batch is measured; "
        "without them config.json is enough. Fails when it does not fit, and names the setting to "
        "change.",
        plan,
    )
    parser.add_argument("config", help="a config file, or the name of a bundled one (list-cfg)")
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="where plan.json goes, for the training to compare (default: work_dirs/<config>)",
    )
    parser.add_argument(
        "--deepspeed", metavar="PRESET", help="as of train; NPROC_PER_NODE and NNODES count, too"
    )
    parser.add_argument(
        "--gpu", default="", metavar="NAME", help="a GPU that is not here: H100, 'RTX 4090'"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="of the device: 24GB (default: what is here)"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    add_cfg_options(parser)
    return parser


def plan(args: Namespace) -> int:
    """Print the plan; 1 when it does not fit."""
    options = parse_cfg_options(args.cfg_options)
    memory = parse_size(args.memory) if args.memory else 0
    from elysia.core.files import write_atomic
    from elysia.train.config.settings import load_settings
    from elysia.train.planner import PLAN_FILE, build_plan, resolve_target

    settings = load_settings(args.config, options)
    target = resolve_target(settings, args.gpu, memory, args.deepspeed or "")
    estimate = build_plan(settings, target)
    text = json.dumps(estimate.to_dict(), indent=2, ensure_ascii=False) + "\n"
    if not args.gpu:
        folder = Path(args.work_dir or Path("work_dirs") / Path(args.config).stem)
        write_atomic(folder / PLAN_FILE, text)
    if args.json:
        say(text, end="")
    else:
        show_plan(estimate)
    return 0 if estimate.fits else 1


def show_plan(plan: TrainingPlan) -> None:
    """Print the plan as text."""
    say(paint(f"memory on {plan.device}, {plan.dtype}", "bold"))
    for part, count in plan.memory.items():
        if count:
            say(f"  {part:14}{count / 2**20:>10,.0f} MB")
    say(f"  {'peak':14}{plan.peak / 2**20:>10,.0f} MB of {plan.available / 2**20:,.0f} MB")
    say(paint("speed", "bold"))
    say(f"  {plan.tokens_per_s:,.0f} tokens a second, {plan.labelled_per_s:,.0f} of them learned")
    whole = f": {format_duration(plan.seconds)} in all" if plan.steps else ""
    say(f"  {plan.steps or 'an unknown number of'} steps of {plan.step_seconds:.3g} s{whole}")
    total = sum(plan.spent.values())
    kinds = sorted(plan.spent.items(), key=lambda item: -item[1])
    shares = [f"{kind} {100 * seconds / total:.0f} %" for kind, seconds in kinds]
    say(f"  of them {', '.join(share for share in shares if not share.endswith(' 0 %'))}")
    data = plan.data
    if data:
        say(paint("data", "bold"))
        say(
            f"  {data['rows']} rows: {100 * data['dropped']:.1f} % left out, "
            f"{100 * data['truncated']:.1f} % shortened; the longest kept has {data['longest']} tokens"
        )
        say(
            f"  {data['tokens']:,} tokens, {100 * data['labelled']:.1f} % learned, "
            f"{100 * data['padding']:.1f} % of positions padding"
        )
        say(f"  {data['packs']} packs, {100 * data['filled']:.1f} % full")
    for note in plan.notes:
        say(note)
    say("It fits." if plan.fits else f"It does not fit. {plan.advice}")


def parse_size(text: str) -> int:
    """The bytes of '24GB', '800 MiB' or a plain number. Raises UsageError for anything else.

    >>> parse_size("24GB") == 24 * 2**30
    True
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    count = float(match[1]) * UNITS[match[2].upper()] if match else 0
    if count < 1:
        raise UsageError("cli.not_a_size", value=text)
    return int(count)


def format_duration(seconds: float) -> str:
    """Seconds in words, in the largest unit in which the number is at least one.

    >>> format_duration(5400)
    '1.5 hours'
    """
    for name, unit in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} seconds"
