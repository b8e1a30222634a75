"""`elysia verify-resume` and `elysia verify-packing`: a config proved on its own data. Knows nothing
of steps or tensors.
"""

from __future__ import annotations

import json
import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser, say
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.train.verify import ResumeProof
    from elysia.train.verify_packing import PackingProof

_SHOWN = 10  # differences


def verify_resume_parser() -> ArgumentParser:
    """The parser of `elysia verify-resume`."""
    parser = build_parser(
        "verify-resume",
        "CONFIG [options]",
        "Train N+M steps, then N and from their checkpoint M more, each in a process of its own, and "
        "compare losses, weights, optimizer and randomness bit by bit; fail when any differs.",
        verify_resume,
    )
    _add_common(parser)
    parser.add_argument(
        "--steps", default="4+4", metavar="N+M", help="before and after (default: 4+4)"
    )
    return parser


def verify_packing_parser() -> ArgumentParser:
    """The parser of `elysia verify-packing`."""
    parser = build_parser(
        "verify-packing",
        "CONFIG [options]",
        "Compare losses and gradients of packed samples with those of each alone, in float32 and in "
        "the config's own dtype; fail when they differ by more than rounding can.",
        verify_packing,
    )
    _add_common(parser)
    parser.add_argument("--packs", type=int, default=4, metavar="P", help="to compare (default: 4)")
    parser.add_argument(
        "--launcher", choices=["none", "pytorch"], default="none", help="set by --nproc"
    )
    parser.add_argument("--report", metavar="FILE", help="write the numbers there as JSON, too")
    return parser


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("config", help="a config file, or the name of a bundled one (list-cfg)")
    parser.add_argument("--rows", type=int, default=256, help="of each source (default: 256)")
    parser.add_argument("--deepspeed", metavar="PRESET", help="as of train")
    parser.add_argument("--nproc", type=int, default=1, metavar="K", help="processes (default: 1)")
    parser.add_argument(
        "--work-dir", metavar="DIR", help="keep what the runs leave (default: it is removed)"
    )
    add_cfg_options(parser)


def verify_resume(args: Namespace) -> int:
    """Print the proof; 1 when a bit differs."""
    _check(args)
    options = parse_cfg_options(args.cfg_options)
    from elysia.train import verify
    from elysia.train.launch import train_apart
    from elysia.train.settings import load_settings

    steps = verify.parse_steps(args.steps)
    settings = load_settings(args.config, options)
    train = partial(train_apart, deepspeed=args.deepspeed, processes=args.nproc)
    with _folder(args.work_dir) as folder:
        proof = verify.verify_resume(
            settings, folder, train, steps=steps, rows=args.rows, world=args.nproc
        )
    _show_resume(proof, steps)
    return 0 if proof.holds else 1


def _show_resume(proof: ResumeProof, steps: tuple[int, int]) -> None:
    for seek in proof.seeks:
        say(
            f"step {seek.step + 1:>9,} reached in {1000 * seek.seconds:.1f} ms, reading {seek.packs} "
            f"packs; its micro-batches hold {seek.needed}"
        )
    say(f"{proof.losses} traced steps and {proof.numbers:,} numbers in tensors compared")
    if proof.differences:
        say("What differs, the first first:")
        for text in proof.differences[:_SHOWN]:
            say(f"  {text}.")
        if len(proof.differences) > _SHOWN:
            say(f"  and {len(proof.differences) - _SHOWN} more.")
        say("Resuming is NOT exact.")
    elif proof.holds:
        say(f"{steps[0]} steps and {steps[1]} after resuming are {sum(steps)} steps, to the bit.")
    else:
        say("Seeking read more than its step needs: it does NOT take constant time.")


def verify_packing(args: Namespace) -> int:
    """Print the proof of each number format; 1 when one is beyond its tolerance."""
    _check(args)
    with _folder(args.work_dir, shared=args.launcher != "none") as folder:
        if args.nproc > 1 and args.launcher == "none":
            proofs = _in_processes(args, folder)
        else:
            proofs = _here(args, folder)
    if args.launcher == "none":
        _show_packing(proofs)
    return 0 if args.launcher != "none" or all(proof.holds for proof in proofs) else 1


def _here(args: Namespace, folder: Path) -> list[PackingProof]:
    from elysia.train import distributed
    from elysia.train.settings import load_settings
    from elysia.train.verify_packing import dtypes
    from elysia.train.verify_packing import verify_packing as verified

    settings = load_settings(args.config, parse_cfg_options(args.cfg_options))
    try:
        proofs = [
            verified(
                settings, dtype, folder / dtype, packs=args.packs, rows=args.rows,
                deepspeed=args.deepspeed, launcher=args.launcher,
            )
            for dtype in dtypes(settings)
        ]  # fmt: skip
    finally:
        distributed.leave()
    if args.report and os.environ.get("RANK", "0") == "0":
        from elysia.core.files import write_atomic

        write_atomic(args.report, json.dumps([asdict(proof) for proof in proofs], indent=2) + "\n")
    return proofs


def _in_processes(args: Namespace, folder: Path) -> list[PackingProof]:
    """What torchrun's processes find: they all find the same."""
    from elysia.train.launch import apart
    from elysia.train.verify_packing import PackingProof

    report = Path(args.report) if args.report else folder / "report.json"
    words = ["verify-packing", args.config, "--rows", str(args.rows), "--packs", str(args.packs),
             "--work-dir", str(folder / "runs"), "--report", str(report)]  # fmt: skip
    words += ["--deepspeed", args.deepspeed] if args.deepspeed else []
    words += ["--cfg-options", *args.cfg_options] if args.cfg_options else []
    apart(words, folder / "log.txt", args.nproc)
    return [PackingProof(**values) for values in json.loads(report.read_text(encoding="utf-8"))]


def _show_packing(proofs: list[PackingProof]) -> None:
    for proof in proofs:
        loss, gradient = proof.tolerance
        say(f"{proof.dtype}: {proof.samples} samples, in {proof.packs} packs and alone")
        say(f"  loss      differs by {proof.loss:.3g} nats a unit (at most {loss:g})")
        say(
            f"  gradient  differs by {proof.gradient:.3g} of its norm (at most {gradient:g}), most "
            f"of {proof.tensors} tensors in {proof.worst}"
        )
    if all(proof.holds for proof in proofs):
        say("Samples in a pack do not touch each other.")
    else:
        say("Packing CHANGES what is learned.")


def _check(args: Namespace) -> None:
    for name in ("rows", "nproc", "packs"):
        if getattr(args, name, 1) < 1:
            raise UsageError(f"--{name} is {getattr(args, name)}; it must be 1 or more.")


@contextmanager
def _folder(wanted: str | None, shared: bool = False) -> Iterator[Path]:
    """An empty folder for the runs, removed afterwards unless it was asked for; `shared` with other
    processes, which may have begun to fill it."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="elysia-verify-") as made:
            yield Path(made)
        return
    folder = Path(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    if not shared and any(folder.iterdir()):
        raise UsageError(f"--work-dir {wanted} is not empty: name a new folder.")
    yield folder
