"""`elysia demo`: every stage from a tokenizer to a persona that answers, through the commands a user types.

Each stage is a child process of this interpreter; a stage that fails ends the demo with its exit code.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysia.cli.options import add_cfg_options
from elysia.cli.output import build_parser, paint, say
from elysia.core.errors import ElysiaError, ExportError, UsageError
from elysia.core.i18n import Text
from elysia.core.paths import get_root

TRAINING_TEXTS = ("data/chat.json", "data/elysia.json", "configs/personas/elysia.json")
MARK = ".elysia-demo"  # marks a folder that a demo created; no other is ever emptied


@dataclass(frozen=True)
class DemoStage:
    """One command of the demo."""

    name: str
    about: str
    words: tuple[str, ...]


def demo_parser() -> ArgumentParser:
    """The parser of `elysia demo`."""
    parser = build_parser(
        "demo",
        "[options]",
        "Every stage on a CPU, in minutes: train a tokenizer, create a tiny model, teach it to speak, "
        "train the persona with QLoRA, convert, merge, verify, and ask who it is. Always starts anew.",
        demo,
    )
    add = parser.add_argument
    add("--work-dir", default="work_dirs/demo", metavar="DIR", help="default: work_dirs/demo")
    add("--seed", type=int, default=0, help="of the weights and of both trainings (default: 0)")
    add("--base-config", default="demo_base", metavar="CONFIG", help="default: demo_base")
    add("--persona-config", default="demo_qlora", metavar="CONFIG", help="default: demo_qlora")
    add("--vocab-size", type=int, default=3584, metavar="N", help="default: 3584")
    add_cfg_options(parser)
    return parser


def demo(args: Namespace) -> int:
    """Run the stages, write report.json, and compare the result with the thresholds."""
    work = Path(args.work_dir)
    clear_work_dir(work)
    seconds: dict[str, float] = {}
    steps = list_stages(args, work)
    began = time.monotonic()
    for number, stage in enumerate(steps, 1):
        say(paint(f"[{number}/{len(steps)}] {stage.about}", "bold"))
        say(paint(f"$ elysia {shlex.join(stage.words)}", "dim"))
        start = time.monotonic()
        code = run_verb(stage.words)
        seconds[stage.name] = round(time.monotonic() - start, 1)
        if code:
            say(f"The stage '{stage.name}' failed with exit code {code}.", file=sys.stderr)
            return code
        say(paint(f"    {seconds[stage.name]:.0f} s", "dim"))
    report = build_report(work, args.seed, seconds)
    report["seconds_total"] = round(time.monotonic() - began, 1)
    target = work / "report.json"
    target.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    say(f"\n{json.dumps(report, ensure_ascii=False, indent=2)}\nWrote {target}")
    check_thresholds(report)
    say(f"Talk to it:  elysia chat {work / 'merged'}")
    return 0


def clear_work_dir(work: Path) -> None:
    """Create or empty the work dir. Raises UsageError for a folder with files that no demo wrote."""
    if work.exists():
        if not work.is_dir():
            raise UsageError("core.target_is_file", path=work)
        if any(work.iterdir()) and not (work / MARK).exists():
            raise UsageError("cli.demo_folder_foreign", path=work)
        shutil.rmtree(work)
    work.mkdir(parents=True)
    (work / MARK).touch()


def list_stages(args: Namespace, work: Path) -> list[DemoStage]:
    """The commands, in order: first those of the base, then those of the persona."""
    seed, root = ("--seed", str(args.seed)), get_root()
    base = str(work / "base")
    return [
        *_list_base_stages(args, work, base, seed, root),
        *_list_persona_stages(args, work, base, seed, root),
    ]


def _list_base_stages(
    args: Namespace, work: Path, base: str, seed: tuple[str, str], root: Path
) -> list[DemoStage]:
    tokenizer, start, run = str(work / "tokenizer"), str(work / "init"), str(work / "train_base")
    texts = [str(root / text) for text in TRAINING_TEXTS]
    # A conversion must see the options that the training saw.
    options = ("--cfg-options", f"pretrained_model_name_or_path={start}", *args.cfg_options)
    return [
        DemoStage(
            "tokenizer", "A tokenizer from the bundled text",
            ("train-tokenizer", *texts, "--output", tokenizer, "--vocab-size", str(args.vocab_size)),
        ),
        DemoStage(
            "init", "A tiny InternLM2 with random weights",
            ("init-model", start, "--tokenizer", tokenizer, *seed),
        ),
        DemoStage(
            "train_base", "Teach it to speak (full training)",
            ("train", args.base_config, "--work-dir", run, *seed, *options),
        ),
        DemoStage(
            "convert_base", "Checkpoint to model folder",
            ("convert", "pth_to_hf", args.base_config, run, base, *options),
        ),
    ]  # fmt: skip


def _list_persona_stages(
    args: Namespace, work: Path, base: str, seed: tuple[str, str], root: Path
) -> list[DemoStage]:
    adapter, merged, run = str(work / "adapter"), str(work / "merged"), str(work / "train_persona")
    options = ("--cfg-options", f"pretrained_model_name_or_path={base}", *args.cfg_options)
    return [
        DemoStage(
            "train_persona", "Teach it who it is (QLoRA)",
            ("train", args.persona_config, "--work-dir", run, *seed, *options),
        ),
        DemoStage(
            "convert_persona", "Checkpoint to adapter folder",
            ("convert", "pth_to_hf", args.persona_config, run, adapter, *options),
        ),
        DemoStage(
            "merge", "Base and adapter become one model",
            ("convert", "merge", base, adapter, merged, "--dtype", "fp32"),
        ),
        DemoStage(
            "prove", "Is the adapter in the merged model?",
            ("verify-merge", base, adapter, merged, "--output", str(work / "proof.json")),
        ),
        DemoStage(
            "probe", "Who is it? And does it stay out of ordinary answers?",
            (
                "probe", merged, "--output", str(work / "probe.json"),
                "--questions", str(root / "data/probes.json"),
                "--ordinary", str(root / "data/probes_ordinary.json"),
                "--persona", str(root / "configs/personas/elysia.json"),
            ),
        ),
    ]  # fmt: skip


def run_verb(words: Sequence[str]) -> int:
    """Run one command in a child process with our own stdout and stderr; returns its exit code."""
    # On Ctrl-C the child gets the signal as well; subprocess.call waits for it to end.
    code = subprocess.call([sys.executable, "-m", "elysia", *words])
    return code if code >= 0 else 128 - code  # killed by a signal: the code that shells give


def build_report(work: Path, seed: int, seconds: dict[str, float]) -> dict[str, Any]:
    """The report, from what the stages left in `work`."""
    probe, proof = read_json(work / "probe.json"), read_json(work / "proof.json")
    return {
        "identity_rate": probe["identity_rate"],
        "leak_rate": probe["leak_rate"],
        "identity_questions": probe["identity_questions"],
        "ordinary_questions": probe["ordinary_questions"],
        "merge_max_diff": proof["max_diff"],
        "losses": {
            "base": read_losses(work / "train_base"),
            "persona": read_losses(work / "train_persona"),
        },
        "seconds": seconds,
        "seed": seed,
    }


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file that a stage should have written."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ElysiaError("cli.stage_left_no_file", path=path, reason=str(error)) from error
    return content


def read_losses(run: Path) -> dict[str, float]:
    """The first and last training loss, from MMEngine's scalars (a JSON object per line)."""
    losses: list[float] = []
    for file in sorted(run.glob("*/vis_data/scalars.json")):
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "loss" in entry:
                losses.append(float(entry["loss"]))
    if not losses:
        raise ElysiaError("cli.no_loss_logged", path=run)
    return {"first": losses[0], "last": losses[-1]}


def check_thresholds(report: dict[str, Any]) -> None:
    """Raise ExportError, naming every threshold that the report does not meet."""
    checks = (
        ("identity_rate", report["identity_rate"] >= 0.9, "cli.below_threshold", "0.9"),
        ("leak_rate", report["leak_rate"] <= 0.1, "cli.above_threshold", "0.1"),
        ("merge_max_diff", report["merge_max_diff"] <= 1e-3, "cli.above_threshold", "1e-3"),
    )
    missed = [
        Text(code, {"name": name, "value": f"{report[name]:.3g}", "limit": limit})
        for name, passed, code, limit in checks
        if not passed
    ]
    if missed:
        raise ExportError("cli.demo_below_thresholds", problems=missed)
