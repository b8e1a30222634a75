"""`elysia train`: flags of XTuner's, handed to elysia.train.launch.

Knows nothing of launchers: the environment (NPROC_PER_NODE, NNODES, ...) is read where processes
are started.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser


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
        help="go on from a checkpoint; without a value, from the work dir's last",
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
    """Run the training; its exit code, a child's included, is ours."""
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
