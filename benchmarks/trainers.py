"""Whole epochs of the same dialogues: this project's trainer against TRL's SFTTrainer, alternating.

    make bench-train ARGS="--data ROWS.json --tokenizer tokenizer.json"

which is `python benchmarks/trainers.py --peer-python PYTHON --xtuner-python PYTHON` with environments of
TRL and of XTuner 0.2.0 (requirements/trl.lock, xtuner.lock) on top of this one.

All train the same LoRA on the same ids and labels from the same random base, each run in its own
process. Held-out loss is computed by one function. Cases:

- ours: packs, attention by sample, loss at labelled positions; through the runner that `train` uses.
- fast: TRL at its fastest on a CPU, one dialogue per micro-batch, four accumulated, nothing recomputed.
- patched: fast, with TRL's chunked loss set to score labelled positions only.
- packed: TRL's own packing, two rows accumulated.
- lean: fast with gradient checkpointing, its least memory.
- xtuner: XTuner 0.2.0's model and loop on MMEngine's runner, packed (its packing does not isolate dialogues).

What each prepares before its first step (model, tokens) is not timed. The figures are ratios within this
run; asserts nothing.
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

RATE = 1e-3
BODY = {"hidden_size": 256, "layers": 8, "heads": 8, "kv_heads": 4, "intermediate_size": 768}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Result = dict[str, float]
Runs = dict[str, Any]  # case, folder, seed, dtype, nf4, longest
Trained = tuple[Callable[[], Any], Callable[[], Any]]  # train; the trained model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    bundled = Path(__file__).parents[1] / "data" / "elysia.json"
    parser.add_argument(
        "--data", type=Path, default=bundled, help="dialogues in XTuner's format; else the bundled"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a tokenizer.json; else one of 6,400 pieces of the data"
    )
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--xtuner-python", default=sys.executable)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dialogues", type=int, default=300)
    parser.add_argument(
        "--held-out", type=int, default=30, help="dialogues for the held-out loss alone"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=0, help="of the model; 0: the tokenizer's"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--nf4", action="store_true", help="a base of 4-bit weights: QLoRA")
    parser.add_argument("--cases", nargs="+", default=["ours", "fast", "patched", "lean"])
    parser.add_argument("--longest", type=int, default=1024, help="tokens of a row or pack")
    parser.add_argument("--profile", action="store_true", help="only: where ours spends its time")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # one run, as JSON
    args = parser.parse_args()
    if args.child:
        print("RESULT", json.dumps(run_case(json.loads(args.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(args, Path(folder))
        if args.profile:
            profile(build_run(args, "ours", folder, 0))
            return
        results: dict[str, list[Result]] = {case: [] for case in args.cases}
        pythons = {"ours": sys.executable, "xtuner": args.xtuner_python}
        for seed in range(args.seeds):
            for case in args.cases:
                python = pythons.get(case, args.peer_python)
                run = build_run(args, case, folder, seed)
                results[case].append(child(python, run))
                print(case, seed, results[case][-1], file=sys.stderr, flush=True)
        report(results, args)


def build_run(args: argparse.Namespace, case: str, folder: str, seed: int) -> Runs:
    """The arguments of one run, for its process."""
    options = {name: getattr(args, name) for name in ("dtype", "nf4", "longest")}
    return {"case": case, "folder": folder, "seed": seed, **options}


def profile(run: Runs) -> None:
    """Torch's own table of an epoch of ours; profiling makes it slower."""
    train, _ = ours(run, Path(run["folder"]), [])
    with torch.profiler.profile() as profiler:
        train()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


def child(python: str, run: Runs) -> Result:
    """The figures of one run, in a process of its own."""
    command = [python, __file__, "--child", json.dumps(run)]
    process = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{run['case']} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    result: Result = json.loads(lines[0].removeprefix("RESULT "))
    return result


def report(results: dict[str, list[Result]], args: argparse.Namespace) -> None:
    """A table: medians over the seeds, and ratios to ours taken seed by seed. Processor seconds (user and
    system) are the ones to compare on a machine that others use, too."""
    threads = torch.get_num_threads()
    print(f"{threads} threads, {args.dialogues} dialogues, {args.seeds} seeds, an epoch each")
    print(
        "| | labelled tokens / s | / CPU s | ours over it, by CPU s | peak MB | ours to it | held-out loss |"
    )
    print("|---|---|---|---|---|---|---|")
    for case, runs in results.items():
        ours = results.get("ours", runs)
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
    from elysia.train.data.dataset import PackedDataset

    if args.tokenizer is None:
        tiny.train_tokenizer([args.data], 6400, folder / "trained")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(args.tokenizer or folder / "trained" / "tokenizer.json"),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    tiny.init_model(
        folder / "base", tokenizer=folder / "tokenizer", architecture="llama",
        vocab_size=args.vocabulary or len(tokenizer), **BODY,
    )  # fmt: skip
    rows = json.loads(args.data.read_text(encoding="utf-8"))[: args.dialogues + args.held_out]
    for name, part in (("train", rows[args.held_out :]), ("heldout", rows[: args.held_out])):
        (folder / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
        data = PackedDataset(
            [{"path": str(folder / f"{name}.json"), "format": "xtuner"}], str(folder / "base"), "qwen_chat",
            max_length=args.longest, overlong="truncate", pack=False,
        )  # fmt: skip
        samples = [
            {"input_ids": pack["ids"].tolist(), "labels": pack["labels"].tolist()} for pack in data
        ]
        (folder / f"{name}_ids.json").write_text(json.dumps(samples))


def run_case(run: Runs) -> Result:
    """Train one epoch, and measure it."""
    folder = Path(run["folder"])
    samples = json.loads((folder / "train_ids.json").read_text())
    labelled = sum(label != -100 for sample in samples for label in sample["labels"][1:])
    trainers = {"ours": ours, "xtuner": xtuner}
    train, model = trainers.get(run["case"], peer)(run, folder, samples)
    del samples
    start, own = time.perf_counter(), time.process_time()
    train()
    seconds, own = time.perf_counter() - start, time.process_time() - own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the evaluation
    return {
        "labelled_per_s": labelled / seconds,
        "labelled_per_cpu_s": labelled / own,
        "seconds": seconds,
        "peak_mb": peak,
        "heldout": heldout(model(), json.loads((folder / "heldout_ids.json").read_text()), run),
    }


def ours(run: Runs, folder: Path, samples: list[Any]) -> Trained:
    """The runner of `elysia train`."""
    from elysia.train.config.settings import build_settings
    from elysia.train.launch import build_runner

    values = {
        "pretrained_model_name_or_path": str(folder / "base"), "data_path": str(folder / "train.json"),
        "prompt_template": "qwen_chat", "overlong": "truncate", "max_length": run["longest"],
        "method": "qlora" if run["nf4"] else "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0,
        "lora_target_modules": TARGETS, "gradient_checkpointing": False, "dtype": run["dtype"],
        # Packs hold 1.8 dialogues: two are as near as may be to the peer's four.
        "batch_size": 1, "accumulative_counts": 2, "max_epochs": 1, "lr": RATE, "lr_schedule": "constant",
        "warmup_ratio": 0.0, "save_steps": 0, "seed": run["seed"],
    }  # fmt: skip
    runner = build_runner(build_settings(values, "ours"), "ours", folder / f"ours{run['seed']}")
    runner.build()
    return runner.train, lambda: runner.strategy.unwrapped_model.llm


def peer(run: Runs, folder: Path, samples: list[Any]) -> Trained:
    """TRL's trainer on ids and labels that are ready. In bfloat16 its adapters are, too: the fastest."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    case, dtype = run["case"], getattr(torch, run["dtype"])
    if case == "patched":  # the switch by which its loss leaves unlabelled positions out
        from trl.trainer import utils

        utils._use_triton = lambda device: True
    config = SFTConfig(
        output_dir=str(folder / f"{case}{run['seed']}"), per_device_train_batch_size=1,
        gradient_accumulation_steps=2 if case == "packed" else 4, packing=case == "packed",
        num_train_epochs=1, learning_rate=RATE, weight_decay=0.0, lr_scheduler_type="constant",
        warmup_steps=0, bf16=run["nf4"], max_length=run["longest"], seed=run["seed"],
        gradient_checkpointing=case == "lean", use_cpu=True, report_to="none", save_strategy="no",
        logging_steps=10_000, disable_tqdm=True, optim="adamw_torch", dataloader_pin_memory=False,
    )  # fmt: skip
    extra: dict[str, Any] = {}
    if run["nf4"]:
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )  # fmt: skip
        extra["device_map"] = {"": "cpu"}
    lora = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGETS
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype, **extra)
    own = dtype == torch.bfloat16 and not run["nf4"]
    trainer = SFTTrainer(
        model=get_peft_model(model, lora, autocast_adapter_dtype=False) if own else model,
        args=config,
        train_dataset=Dataset.from_list(samples),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        peft_config=None if own else lora,
    )
    return trainer.train, lambda: trainer.model


def _stand_in_for_image_packages() -> None:
    """XTuner imports packages for images together with its code for texts; no image is used here."""
    from unittest.mock import MagicMock

    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = MagicMock(__version__="none")
    sys.modules["skimage"] = sys.modules["skimage.io"] = MagicMock()


def xtuner(run: Runs, folder: Path, samples: list[Any]) -> Trained:
    """XTuner's own classes, on ids and labels that are ready; on a CPU without its AMP wrapper."""
    _stand_in_for_image_packages()
    from datasets import Dataset
    from mmengine.config import ConfigDict
    from mmengine.optim import OptimWrapper
    from mmengine.runner import Runner
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from xtuner.dataset.collate_fns import default_collate_fn
    from xtuner.dataset.huggingface import pack_dataset
    from xtuner.engine.runner import TrainLoop
    from xtuner.model import SupervisedFinetune

    torch.cpu.is_bf16_supported = lambda: True  # it asks the device's module, which has no answer
    rows = Dataset.from_list(samples)
    packs = pack_dataset(
        rows, max_length=run["longest"], use_varlen_attn=False, shuffle_before_pack=True, map_num_proc=1
    )  # fmt: skip
    lora = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": TARGETS}
    model = {
        "type": SupervisedFinetune, "use_varlen_attn": False, "use_activation_checkpointing": False,
        "llm": {
            "type": AutoModelForCausalLM.from_pretrained,
            "pretrained_model_name_or_path": str(folder / "base"),
            "torch_dtype": getattr(torch, run["dtype"]),
        },
        "lora": {"type": LoraConfig, "task_type": "CAUSAL_LM", **lora},
    }  # fmt: skip
    runner = Runner(
        model=ConfigDict(model),
        work_dir=str(folder / f"xtuner{run['seed']}"),
        train_dataloader={
            "batch_size": 1, "num_workers": 0, "dataset": packs,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "collate_fn": {"type": default_collate_fn, "use_varlen_attn": False},
        },
        train_cfg={"type": TrainLoop, "max_epochs": 1},
        optim_wrapper={
            "type": OptimWrapper, "accumulative_counts": 2, "clip_grad": {"max_norm": 1.0},
            "optimizer": {"type": "AdamW", "lr": RATE, "weight_decay": 0.0},
        },
        default_hooks={"checkpoint": None},
        randomness={"seed": run["seed"]},
        log_level="WARNING",
    )  # fmt: skip
    return runner.train, lambda: runner.model.llm


@torch.no_grad()
def heldout(model: Any, samples: list[Any], run: Runs) -> float:
    """Mean loss of labelled tokens, a dialogue at a time: in float32, over 4 bits as trained."""
    model.eval()
    if not run["nf4"]:
        model.float()
    summed, count = 0.0, 0
    for sample in samples:
        ids = torch.tensor([sample["input_ids"]])
        with torch.autocast("cpu", torch.bfloat16, enabled=run["nf4"]):
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        labels = torch.tensor(sample["labels"][1:])
        summed += float(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return summed / count


if __name__ == "__main__":
    main()
