"""The proof that a merged model is base + adapter: their logits on prompts of the training.

The reference comes from another road than the merge: transformers loads the base (quantizing it as
the training did, where the merge was made so), PEFT puts the adapter on. Knows nothing of how the
merge was done beyond what merge.json says.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.run_card import RunCard
from elysia.export.lora_deltas import check_base_fingerprint, read_reward_head
from elysia.export.merge import REPORT_FILE
from elysia.export.shards import ShardReader
from elysia.models import loading
from elysia.models.quantization import dequantize_model

log = logging.getLogger(__name__)

MAX_PROMPTS, MAX_TOKENS, MAX_POSITIONS = (
    32,
    512,
    16,
)  # of the prompts, of each prompt, compared in each
MIN_EFFECT = 1e-5  # of an adapter on float32 logits; below it is rounding
MAX_FLOAT32_DIFF = 1e-3  # largest difference of logits between float32 weights, computed in float32


@dataclass(frozen=True)
class MergeVerification:
    """Differences of next-token logits, over all prompts and compared positions.

    `max_diff` is the largest |merged - (base + adapter)|, `kl` the mean KL(base + adapter ||
    merged) in nats, `effect` the largest |(base + adapter) - base|, and `follow` how much of the
    adapter's effect the merged model shows: 1 is all, 0 none.
    """

    max_diff: float
    kl: float
    effect: float
    follow: float
    prompts: int
    positions: int

    def metrics(self) -> dict[str, float]:
        """As the run card names them."""
        return {
            "merge_max_diff": self.max_diff,
            "merge_kl": self.kl,
            "adapter_effect": self.effect,
            "merge_follow": self.follow,
        }


def verify_merge(
    base: str | Path,
    adapter: str | Path,
    merged: str | Path,
    prompts: Sequence[str],
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "auto",
) -> MergeVerification:
    """Compare, write the result into the run card of `merged`, and return it.

    Args:
        prompts: texts as the model reads them, template included; at most 32 are used, the last 16
            positions of the last 512 tokens of each.
        dtype: to compute in.

    Raises ExportError when the adapter has no effect or the merged model does not follow it: in
    float32 throughout, logits may differ by 1e-3 and by half of the adapter's effect; where 16 bits
    round, by half of the effect.
    """
    base, adapter, merged = Path(base), Path(adapter), Path(merged)
    check_base_fingerprint(RunCard.read(adapter), base, adapter)
    place = loading.pick_device(device)
    compute = loading.parse_dtype(dtype)
    ids = _encode_prompts(merged, prompts)
    reference = _load_reference(base, adapter, merged, compute, place)
    with reference.disable_adapter():
        without = _compute_logits(reference, ids)
    with_adapter = _compute_logits(reference, ids)
    del reference
    gc.collect()
    scores = read_reward_head(adapter) is not None
    model = loading.load_causal_lm(merged, dtype=compute, device=place, scores=scores)
    proof = _compare_logits(without, with_adapter, _compute_logits(model, ids))
    _check_verification(proof, _is_float32_throughout(merged, compute), adapter, merged)
    card = RunCard.read(merged)
    if card:
        card.updated(metrics=proof.metrics()).write(merged)
    return proof


def _encode_prompts(folder: Path, prompts: Sequence[str]) -> list[Tensor]:
    """Token ids of each prompt, (1, t)."""
    texts = [text for text in prompts if text]
    if not texts:
        raise ExportError("A proof needs at least one prompt that is not empty.")
    step = max(1, len(texts) // MAX_PROMPTS)
    tokenizer = loading.load_tokenizer(folder)
    rows = [
        tokenizer(text, add_special_tokens=False)["input_ids"][-MAX_TOKENS:]
        for text in texts[::step][:MAX_PROMPTS]
    ]
    return [torch.tensor([row]) for row in rows if row]


def _load_reference(
    base: Path, adapter: Path, merged: Path, compute: torch.dtype, device: torch.device
) -> Any:
    """Base + adapter by PEFT; the base dequantized from NF4 when the merge was onto that."""
    from peft import PeftModel

    scores = read_reward_head(adapter) is not None
    if _is_merged_as_trained(merged):
        card = RunCard.read(adapter)
        training = card.extra.get("training", {}) if card else {}
        stored = next(iter(ShardReader(base)), None)
        own = ShardReader(base).spec(stored).dtype if stored else compute
        model = loading.load_causal_lm(
            base,
            bits=4,
            dtype=training.get("dtype", own),
            double_quant=bool(training.get("double_quant", True)),
            device=device,
            scores=scores,
        )
        model = dequantize_model(model).to(compute)
    else:
        model = loading.load_causal_lm(base, dtype=compute, device=device, scores=scores)
    try:
        wrapped = PeftModel.from_pretrained(model, str(adapter))
    except (ValueError, RuntimeError, OSError) as error:
        raise ExportError(f"The adapter {adapter} does not load onto {base}: {error}") from error
    return wrapped.to(compute).eval()


def _is_merged_as_trained(merged: Path) -> bool:
    try:
        report = json.loads((merged / REPORT_FILE).read_text(encoding="utf-8"))
        return bool(report["base_weights"] == "as-trained")
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError(f"{merged / REPORT_FILE} is damaged: {error!r}. Merge again.") from error


@torch.inference_mode()
def _compute_logits(model: Any, ids: list[Tensor]) -> list[Tensor]:
    """Of the last positions of each prompt, (positions, vocabulary), float32 on the CPU; of a reward
    model its number, (1, 1)."""
    device = next(model.parameters()).device
    found = [model(input_ids=row.to(device), use_cache=False).logits for row in ids]
    return [
        (logits if logits.ndim == 2 else logits[0, -MAX_POSITIONS:]).float().cpu()
        for logits in found
    ]


def _compare_logits(
    without: list[Tensor], reference: list[Tensor], merged: list[Tensor]
) -> MergeVerification:
    max_diff = effect = kl = along = length = 0.0
    positions = 0
    for plain, wanted, found in _iter_checked(without, reference, merged):
        change = (wanted - plain).double()
        max_diff = max(max_diff, float((found - wanted).abs().max()))
        effect = max(effect, float(change.abs().max()))
        along += float(((found - plain).double() * change).sum())
        length += float(change.square().sum())
        log_wanted, log_found = wanted.double().log_softmax(-1), found.double().log_softmax(-1)
        kl += float((log_wanted.exp() * (log_wanted - log_found)).sum())
        positions += wanted.shape[0]
    return MergeVerification(
        max_diff=max_diff,
        kl=max(kl / positions, 0.0),
        effect=effect,
        follow=along / length if length else 0.0,
        prompts=len(reference),
        positions=positions,
    )


def _iter_checked(*lists: list[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for plain, wanted, found in zip(*lists, strict=True):
        if found.shape != wanted.shape:
            raise ExportError(
                f"The merged model gives logits of shape {tuple(found.shape)}, base + adapter "
                f"{tuple(wanted.shape)}: it is another model."
            )
        for logits, whose in ((found, "the merged model"), (wanted, "base + adapter")):
            if not logits.isfinite().all():
                raise ExportError(f"The logits of {whose} are not finite: its weights are broken.")
        yield plain, wanted, found


def _is_float32_throughout(merged: Path, compute: torch.dtype) -> bool:
    """Whether nothing but float32 rounding separates the two roads."""
    shards = ShardReader(merged)
    stored = {shards.spec(name).dtype for name in shards}
    return compute == torch.float32 and not stored & {torch.float16, torch.bfloat16}


def _check_verification(proof: MergeVerification, exact: bool, adapter: Path, merged: Path) -> None:
    if proof.effect < MIN_EFFECT:
        raise ExportError(
            f"The adapter {adapter} changes the logits by {proof.effect:.2g} at most: it holds "
            "nothing to merge. Was it trained?"
        )
    measured = (
        f"logits differ by up to {proof.max_diff:.3g} (KL {proof.kl:.3g}), the adapter's own "
        f"effect is {proof.effect:.3g}, of which {proof.follow:.0%} shows"
    )
    if abs(proof.follow - 1) > 0.25:
        raise ExportError(
            f"{merged} does not hold the adapter {adapter}: {measured}. "
            "Merge again, from the base and the adapter that belong together."
        )
    bound = min(MAX_FLOAT32_DIFF, proof.effect / 2) if exact else proof.effect / 2
    if proof.max_diff > bound:
        advice = "Merge again." if exact else "Rounding hides it: merge with --dtype fp32."
        raise ExportError(
            f"{merged} does not follow base + adapter within {bound:.3g}: {measured}. {advice}"
        )
