"""`make bench`: our training step against the loop that most people write, in one run.

Both train the same LoRA on the same batches of data/elysia.json: ours as one flat row of whole samples,
the other padded and with full logits, as transformers does by default. The figure to read is the ratio;
absolute speeds depend on the machine. Asserts nothing.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from elysia.models import loading, tiny
from elysia.train.data.dataset import PackedDataset, collate_flat, collate_padded
from elysia.train.methods.sft import SupervisedFinetune

ROOT = Path(__file__).resolve().parents[1]
# What this processor multiplies fast: bfloat16 where it has instructions for it.
DTYPE = str(loading.pick_dtype(loading.pick_device("cpu"))).removeprefix("torch.")
LORA = {"r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}


def make_model(folder: Path, vocabulary: int) -> Path:
    """A random InternLM2 of a few million parameters, its vocabulary padded to `vocabulary`."""
    tokenizer = tiny.train_tokenizer(
        [ROOT / "data/chat.json", ROOT / "data/elysia.json"],
        4096,
        folder / f"tokenizer{vocabulary}",
    )
    return tiny.init_model(
        folder / f"model{vocabulary}", tokenizer=tokenizer, vocab_size=vocabulary,
        hidden_size=256, layers=8, heads=8, kv_heads=4, intermediate_size=768,
    )  # fmt: skip


def run_flat(model: SupervisedFinetune, batch: dict[str, Any]) -> torch.Tensor:
    """Attention per sample, logits of labelled positions alone."""
    return model(batch) / (batch["labels"] != -100).sum()


def run_padded(model: SupervisedFinetune, batch: dict[str, Any]) -> torch.Tensor:
    """What `model(input_ids, attention_mask, labels).loss` does."""
    with torch.autocast("cpu", model.dtype, enabled=model.dtype != torch.float32):
        loss: torch.Tensor = model.causal(**batch, use_cache=False).loss
    return loss


def step(run: Any, model: SupervisedFinetune, optimizer: Any, batch: dict[str, Any]) -> float:
    """Seconds of one optimizer step."""
    begun = time.perf_counter()
    run(model, batch).backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - begun


def measure(base: Path, steps: int, tokens: int) -> dict[str, list[float]]:
    """Labelled tokens per second of each method; the two take turns on the same samples."""
    data = PackedDataset(
        [{"path": str(ROOT / "data/elysia.json"), "format": "xtuner"}],
        str(base), "internlm2_chat", max_length=tokens,
    )  # fmt: skip
    methods = {
        "ours": ("segments", run_flat, collate_flat),
        "usual": ("sdpa", run_padded, collate_padded),
    }
    built = {}
    for name, (attention, run, collate) in methods.items():
        torch.manual_seed(0)
        model = SupervisedFinetune({"path": str(base)}, LORA, DTYPE, attention).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        built[name] = (run, collate, model, torch.optim.AdamW(trained, lr=1e-4, fused=True))
    speeds: dict[str, list[float]] = {name: [] for name in methods}
    for index in range(steps + 3):
        for name, (run, collate, model, optimizer) in built.items():
            batch = collate([data[index % len(data)]])
            seconds = step(run, model, optimizer, batch)
            if index >= 3:  # kernels are compiled in the first steps
                speeds[name].append(int((batch["labels"] != -100).sum()) / seconds)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=1024, help="of a pack")
    args = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads, {DTYPE}, packs of {args.tokens} tokens, {args.steps} steps each"
    )
    print("| vocabulary | ours, labelled tokens/s | usual | ratio (median of steps) |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for vocabulary in (4096, 92544):
            speeds = measure(make_model(Path(folder), vocabulary), args.steps, args.tokens)
            our_speed, usual_speed = (statistics.median(speeds[name]) for name in ("ours", "usual"))
            pairs = zip(speeds["ours"], speeds["usual"], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            print(
                f"| {vocabulary:,} | {our_speed:,.0f} | {usual_speed:,.0f} | {ratio:.2f} |",
                flush=True,
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"Peak memory of the whole run: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
