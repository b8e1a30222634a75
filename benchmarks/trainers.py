"""Whole epochs of the same dialogues: this project's trainer beside TRL's SFTTrainer, run by turns.

    python benchmarks/trainers.py --data ROWS.json --tokenizer tokenizer.json --peer-python PYTHON

PYTHON has trl and what it needs (`pip install trl==1.16.0`). Both train the same LoRA on the same ids and
labels from the same random base; each run is a process of its own. Held-out loss is computed by one
function. Cases:

- ours: packs, attention by sample, loss at labelled positions; through the runner that `train` uses.
- fast: TRL at its fastest on a CPU, one dialogue a micro-batch, four accumulated, nothing recomputed.
- patched: fast, with TRL's chunked loss told to score labelled positions only.
- lean: fast with gradient checkpointing, its least memory.

The figures are ratios within this run; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

RATE, LONGEST = 1e-3, 1024
BODY = {"hidden_size": 256, "layers": 8, "heads": 8, "kv_heads": 4, "intermediate_size": 768}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Result = dict[str, float]
Run = tuple[Callable[[], Any], Callable[[], Any]]  # train; the trained model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="dialogues in XTuner's format")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dialogues", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=30, help="dialogues that are only judged")
    parser.add_argument(
        "--vocabulary", type=int, default=0, help="of the model; 0: the tokenizer's"
    )
    parser.add_argument("--cases", nargs="+", default=["ours", "fast", "patched", "lean"])
    parser.add_argument("--child", help=argparse.SUPPRESS)  # case, folder and seed of one run
    args = parser.parse_args()
    if args.child:
        case, folder, seed = args.child.split(",")
        print("RESULT", json.dumps(run_case(case, Path(folder), int(seed))))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(args, Path(folder))
        found: dict[str, list[Result]] = {case: [] for case in args.cases}
        for seed in range(args.seeds):
            for case in args.cases:
                python = sys.executable if case == "ours" else args.peer_python
                found[case].append(child(python, case, Path(folder), seed))
                print(case, seed, found[case][-1], file=sys.stderr, flush=True)
        report(found, args)


def child(python: str, case: str, folder: Path, seed: int) -> Result:
    """The figures of one run, in a process of its own."""
    command = [
        python,
        __file__,
        "--data",
        ".",
        "--tokenizer",
        ".",
        "--child",
        f"{case},{folder},{seed}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{case} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: Result = json.loads(lines[0].removeprefix("RESULT "))
    return result


def report(found: dict[str, list[Result]], args: argparse.Namespace) -> None:
    """A table: medians over the seeds, and ratios to ours taken seed by seed. Processor seconds (user and
    system) are the ones to compare on a machine that others use, too."""
    threads = torch.get_num_threads()
    print(f"{threads} threads, {args.dialogues} dialogues, {args.seeds} seeds, an epoch each")
    print(
        "| | labelled tokens / s | / CPU s | ours over it, by CPU s | peak MB | ours to it | held-out loss |"
    )
    print("|---|---|---|---|---|---|---|")
    for case, runs in found.items():
        ours = found.get("ours", runs)
        speed = statistics.median(run["labelled_per_s"] for run in runs)
        peak = statistics.median(run["peak_mb"] for run in runs)
        pairs = list(zip(ours, runs, strict=True))
        own = statistics.median(run["labelled_per_cpu_s"] for run in runs)
        faster = statistics.median(
            a["labelled_per_cpu_s"] / b["labelled_per_cpu_s"] for a, b in pairs
        )
        larger = statistics.median(a["peak_mb"] / b["peak_mb"] for a, b in pairs)
        losses = ", ".join(f"{run['heldout']:.3f}" for run in runs)
        row = (
            case,
            f"{speed:,.0f}",
            f"{own:,.0f}",
            f"{faster:.2f}",
            f"{peak:,.0f}",
            f"{larger:.2f}",
        )
        print(f"| {' | '.join(row)} | {losses} |")


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """A base with random weights, the dialogues, and their ids and labels for the peer."""
    from transformers import PreTrainedTokenizerFast

    from elysia.models import tiny
    from elysia.train.dataset import PackedDialogues

    words = PreTrainedTokenizerFast(
        tokenizer_file=str(args.tokenizer), bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )  # fmt: skip
    words.save_pretrained(folder / "tokenizer")
    tiny.init_model(
        folder / "base", tokenizer=folder / "tokenizer", architecture="llama",
        vocab_size=args.vocabulary or len(words), **BODY,
    )  # fmt: skip
    rows = json.loads(args.data.read_text(encoding="utf-8"))[: args.dialogues + args.held_out]
    for name, part in (("train", rows[args.held_out :]), ("heldout", rows[: args.held_out])):
        (folder / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
        data = PackedDialogues(
            [{"path": str(folder / f"{name}.json"), "format": "xtuner"}], str(folder / "base"), "qwen_chat",
            max_length=LONGEST, overlong="truncate", pack=False,
        )  # fmt: skip
        samples = [
            {"input_ids": pack["ids"].tolist(), "labels": pack["labels"].tolist()} for pack in data
        ]
        (folder / f"{name}_ids.json").write_text(json.dumps(samples))


def run_case(case: str, folder: Path, seed: int) -> Result:
    """Train one epoch, and measure it."""
    samples = json.loads((folder / "train_ids.json").read_text())
    make = ours if case == "ours" else peer
    train, model = make(case, folder, seed, samples)
    begun, own = time.perf_counter(), time.process_time()
    train()
    seconds, own = time.perf_counter() - begun, time.process_time() - own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the evaluation
    labelled = sum(label != -100 for sample in samples for label in sample["labels"][1:])
    return {
        "labelled_per_s": labelled / seconds,
        "labelled_per_cpu_s": labelled / own,
        "seconds": seconds,
        "peak_mb": peak,
        "heldout": heldout(model(), json.loads((folder / "heldout_ids.json").read_text())),
    }


def ours(case: str, folder: Path, seed: int, samples: list[Any]) -> Run:
    """The runner of `elysia train`."""
    from elysia.train.launch import runner_of
    from elysia.train.settings import settings_from

    values = {
        "pretrained_model_name_or_path": str(folder / "base"), "data_path": str(folder / "train.json"),
        "prompt_template": "qwen_chat", "overlong": "truncate", "max_length": LONGEST,
        "method": "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0,
        "lora_target_modules": TARGETS, "gradient_checkpointing": False,
        # Packs hold 1.8 dialogues: two are as near as may be to the peer's four.
        "batch_size": 1, "accumulative_counts": 2, "max_epochs": 1, "lr": RATE, "lr_schedule": "constant",
        "warmup_ratio": 0.0, "save_steps": 0, "seed": seed,
    }  # fmt: skip
    runner = runner_of(settings_from(values, "ours"), "ours", folder / f"ours{seed}")
    return runner.train, lambda: runner.strategy.bare.llm


def peer(case: str, folder: Path, seed: int, samples: list[Any]) -> Run:
    """TRL's trainer on ids and labels that are ready."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    if case == "patched":  # the switch by which its loss leaves unlabelled positions out
        from trl.trainer import utils

        utils._use_triton = lambda device: True
    config = SFTConfig(
        output_dir=str(folder / f"{case}{seed}"), per_device_train_batch_size=1,
        gradient_accumulation_steps=4, num_train_epochs=1, learning_rate=RATE, weight_decay=0.0,
        lr_scheduler_type="constant", warmup_steps=0, bf16=False, max_length=LONGEST, seed=seed,
        gradient_checkpointing=case == "lean", use_cpu=True, report_to="none", save_strategy="no",
        logging_steps=10_000, disable_tqdm=True, optim="adamw_torch", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(samples),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGETS
        ),
    )
    return trainer.train, lambda: trainer.model


@torch.no_grad()
def heldout(model: Any, samples: list[Any]) -> float:
    """Mean loss of labelled tokens in float32, a dialogue at a time."""
    model.float().eval()
    summed, count = 0.0, 0
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample["input_ids"]]), use_cache=False).logits[
            0, :-1
        ]
        labels = torch.tensor(sample["labels"][1:])
        summed += float(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return summed / count


if __name__ == "__main__":
    main()
