"""`elysia verify-resume`, `verify-packing` and `verify-merge` (also `prove`): checks on the user's own data
that resuming, packing and merging change nothing.
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

from elysia.cli.options import (
    add_cfg_options,
    add_hub,
    parse_cfg_options,
    require_at_least,
    resolve_hub,
)
from elysia.cli.output import build_parser, say
from elysia.core.errors import DataError, UsageError
from elysia.core.files import write_atomic
from elysia.core.messages import Message
from elysia.core.paths import resolve_bundled
from elysia.core.run_card import RunCard
from elysia.core.templates import render_prompt
from elysia.models.chat_format import load_template

if TYPE_CHECKING:
    from elysia.train.verify.packing_proof import PackingProof
    from elysia.train.verify.resume_proof import ResumeProof

MAX_SHOWN = 10  # differences that are printed


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
        "--work-dir", metavar="DIR", help="keep the files of the runs (default: they are removed)"
    )
    add_cfg_options(parser)


def verify_resume(args: Namespace) -> int:
    """Print the comparison; 1 when a bit differs."""
    require_at_least(args, 1, "--rows", "--nproc")
    options = parse_cfg_options(args.cfg_options)
    from elysia.train.config.settings import load_settings
    from elysia.train.launch import train_subprocess
    from elysia.train.verify import resume_proof

    steps = resume_proof.parse_steps(args.steps)
    settings = load_settings(args.config, options)
    train = partial(train_subprocess, deepspeed=args.deepspeed, processes=args.nproc)
    with _open_work_dir(args.work_dir) as folder:
        proof = resume_proof.verify_resume(
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
        say("What differs, in order of steps:")
        for text in proof.differences[:MAX_SHOWN]:
            say(f"  {text}.")
        if len(proof.differences) > MAX_SHOWN:
            say(f"  and {len(proof.differences) - MAX_SHOWN} more.")
        say("Resuming is NOT exact.")
    elif proof.holds:
        say(f"{steps[0]} steps and {steps[1]} after resuming are {sum(steps)} steps, to the bit.")
    else:
        say("Seeking read more than its step needs: it does NOT take constant time.")


def verify_packing(args: Namespace) -> int:
    """Print the comparison in each number format; 1 when one exceeds its tolerance."""
    require_at_least(args, 1, "--rows", "--nproc", "--packs")
    with _open_work_dir(args.work_dir, shared=args.launcher != "none") as folder:
        if args.nproc > 1 and args.launcher == "none":
            proofs = _verify_in_processes(args, folder)
        else:
            proofs = _verify_here(args, folder)
    if args.launcher == "none":
        _show_packing(proofs)
    return 0 if args.launcher != "none" or all(proof.holds for proof in proofs) else 1


def _verify_here(args: Namespace, folder: Path) -> list[PackingProof]:
    from elysia.train.config.settings import load_settings
    from elysia.train.distributed import comm
    from elysia.train.verify import packing_proof

    settings = load_settings(args.config, parse_cfg_options(args.cfg_options))
    try:
        proofs = [
            packing_proof.verify_packing(
                settings, dtype, folder / dtype, packs=args.packs, rows=args.rows,
                deepspeed=args.deepspeed, launcher=args.launcher,
            )
            for dtype in packing_proof.get_checked_dtypes(settings)
        ]  # fmt: skip
    finally:
        comm.destroy_process_group()
    if args.report and os.environ.get("RANK", "0") == "0":
        write_atomic(args.report, json.dumps([asdict(proof) for proof in proofs], indent=2) + "\n")
    return proofs


def _verify_in_processes(args: Namespace, folder: Path) -> list[PackingProof]:
    """The comparison by `--nproc` processes under torchrun, of which the first writes the report."""
    from elysia.train.launch import run_subprocess
    from elysia.train.verify.packing_proof import PackingProof

    report = Path(args.report) if args.report else folder / "report.json"
    words = ["verify-packing", args.config, "--rows", str(args.rows), "--packs", str(args.packs),
             "--work-dir", str(folder / "runs"), "--report", str(report)]  # fmt: skip
    words += ["--deepspeed", args.deepspeed] if args.deepspeed else []
    words += ["--cfg-options", *args.cfg_options] if args.cfg_options else []
    run_subprocess(words, folder / "log.txt", args.nproc)
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


@contextmanager
def _open_work_dir(path: str | None, shared: bool = False) -> Iterator[Path]:
    """An empty folder for the runs: `path`, or a temporary one that is removed afterwards.

    Raises UsageError when `path` is not empty, unless it is `shared` with other processes, which may have
    begun to fill it.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="elysia-verify-") as temporary:
            yield Path(temporary)
        return
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if not shared and any(folder.iterdir()):
        raise UsageError("cli.work_dir_not_empty", path=path)
    yield folder


def verify_merge_parser() -> ArgumentParser:
    """The parser of `elysia verify-merge`, also `elysia prove`."""
    parser = build_parser(
        "verify-merge",
        "BASE ADAPTER MERGED [options]",
        "Compare the logits of MERGED with those of BASE under ADAPTER, on prompts of the "
        "training; fail when the adapter is not in MERGED.",
        verify_merge,
    )
    parser.add_argument("base", help="the base model")
    parser.add_argument("adapter", help="the adapter folder")
    parser.add_argument("merged", help="the folder that convert merge wrote")
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="TEXT",
        help="default: from the data that the run card names",
    )
    parser.add_argument("--count", type=int, default=8, metavar="N", help="prompts (default: 8)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32",
        help="to compute in (default: float32)",
    )  # fmt: skip
    add_hub(parser, "where names lead (default: where the base was trained from)")
    parser.add_argument("--output", metavar="FILE", help="write the numbers there as JSON, too")
    return parser


def verify_merge(args: Namespace) -> int:
    """Print the comparison. A merged model without the adapter is an error."""
    from elysia.export import verify_merge as merge_check
    from elysia.models.loading import resolve_model

    adapter = resolve_model(args.adapter, args.hub or "huggingface")
    proof = merge_check.verify_merge(
        resolve_model(args.base, resolve_hub(args, adapter)),
        adapter,
        Path(args.merged),
        args.prompts or get_training_prompts(adapter, args.count),
        dtype=args.dtype,
    )
    say(f"largest difference of the logits  {proof.max_diff:.3g}")
    say(f"KL(base + adapter, merged)        {proof.kl:.3g}")
    say(f"largest effect of the adapter     {proof.effect:.3g}")
    say("The adapter is in the merged model.")
    if args.output:
        output = Path(args.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(asdict(proof), indent=2) + "\n", encoding="utf-8")
    return 0


def get_training_prompts(adapter: Path, count: int) -> list[str]:
    """Prompts from `count` rows, spread over the data that the run card of `adapter` names.

    Each is the first user message of a row, rendered with the card's template and system text. Where the
    data is missing, a few greetings take its place.
    """
    from elysia.data.formats.conversion import load_chosen_conversations

    card = RunCard.read(adapter)
    texts: list[str] = []
    for source in card.datasets if card else []:
        try:
            samples = load_chosen_conversations(resolve_bundled(source["path"]), source["format"])
        except DataError:
            continue  # the file was moved or changed after the training
        users = [m.text for s in samples for m in s.messages[:2] if m.role == "user"]
        texts += users[:: max(1, len(users) // count)][:count]
    texts = texts[:: max(1, len(texts) // count)][:count] or ["你好!", "你是谁?", "Hello!"]
    if not (card and card.template):
        return texts
    template = load_template(card.template)
    system = [Message("system", card.system)] if card.system else []
    return [render_prompt([*system, Message("user", text)], template) for text in texts]
