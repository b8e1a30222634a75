"""Verifying that a merged model is base + adapter, by their logits on prompts of the training.

The reference is computed independently of the merge: transformers loads the base, quantized as in
training where the merge was made so, and PEFT applies the adapter.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.i18n import Text
from elysia.core.run_card import RunCard
from elysia.evaluate.likelihood import kl_divergence
from elysia.export.lora_deltas import check_base_fingerprint, read_reward_head
from elysia.export.merge import REPORT_FILE
from elysia.export.shards import ShardReader
from elysia.models import loading
from elysia.models.quantization import dequantize_model

MAX_PROMPTS = 32
MAX_TOKENS = 512  # the last tokens of each prompt
MAX_POSITIONS = 16  # the last positions of each prompt, which are compared
MIN_EFFECT = 1e-5  # of an adapter on float32 logits; below it is rounding
MAX_FLOAT32_DIFF = 1e-3  # between logits of float32 weights, computed in float32
MAX_FOLLOW_DEVIATION = 0.25  # of the share of the adapter's effect that shows, from 1


@dataclass(frozen=True)
class MergeVerification:
    """Differences of next-token logits, over all prompts and compared positions.

    `max_diff` is the largest |merged - (base + adapter)|, `kl` the mean KL(base + adapter || merged)
    in nats, `effect` the largest |(base + adapter) - base|, and `follow` the share of the adapter's
    effect that the merged model shows: 1 is all, 0 none.
    """

    max_diff: float
    kl: float
    effect: float
    follow: float
    prompts: int
    positions: int

    def metrics(self) -> dict[str, float]:
        """The values under their names in the run card."""
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

    Raises ExportError when the adapter has no effect or the merged model does not follow it. Logits
    may differ by half of the adapter's effect, and in float32 throughout by 1e-3 at most.
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
    del reference  # two models in memory would need twice as much
    gc.collect()
    scores = read_reward_head(adapter) is not None
    model = loading.load_causal_lm(merged, dtype=compute, device=place, scores=scores)
    verification = _compare_logits(without, with_adapter, _compute_logits(model, ids))
    _check_verification(verification, _is_float32_throughout(merged, compute), adapter, merged)
    card = RunCard.read(merged)
    if card:
        card.updated(metrics=verification.metrics()).write(merged)
    return verification


def _encode_prompts(folder: Path, prompts: Sequence[str]) -> list[Tensor]:
    """Token ids of each prompt, (1, t)."""
    texts = [text for text in prompts if text]
    if not texts:
        raise ExportError("export.no_prompts")
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
    """Base + adapter by PEFT; the base goes through NF4 and back if the merge did, too."""
    from peft import PeftModel

    scores = read_reward_head(adapter) is not None
    if _is_merged_as_trained(merged):
        card = RunCard.read(adapter)
        training = card.extra.get("training", {}) if card else {}
        shards = ShardReader(base)
        first = next(iter(shards), None)
        model = loading.load_causal_lm(
            base,
            bits=4,
            dtype=training.get("dtype", shards.spec(first).dtype if first else compute),
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
        raise ExportError(
            "export.adapter_not_loaded", adapter=adapter, base=base, reason=str(error)
        ) from error
    return wrapped.to(compute).eval()


def _is_merged_as_trained(merged: Path) -> bool:
    path = merged / REPORT_FILE
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return bool(report["base_weights"] == "as-trained")
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError("export.report_damaged", path=path, reason=repr(error)) from error


@torch.inference_mode()
def _compute_logits(model: Any, ids: list[Tensor]) -> list[Tensor]:
    """Logits of the last positions of each prompt, (positions, vocabulary), float32 on the CPU; for a
    reward model its number, (1, 1)."""
    device = next(model.parameters()).device
    outputs = [model(input_ids=row.to(device), use_cache=False).logits for row in ids]
    return [
        (logits if logits.ndim == 2 else logits[0, -MAX_POSITIONS:]).float().cpu()
        for logits in outputs
    ]


def _compare_logits(
    without: list[Tensor], reference: list[Tensor], merged: list[Tensor]
) -> MergeVerification:
    max_diff = effect = kl = along = length = 0.0
    positions = 0
    for plain, expected, actual in _iter_checked(without, reference, merged):
        change = (expected - plain).double()
        max_diff = max(max_diff, float((actual - expected).abs().max()))
        effect = max(effect, float(change.abs().max()))
        # `follow` is the projection of the merged model's change on the adapter's.
        along += float(((actual - plain).double() * change).sum())
        length += float(change.square().sum())
        log_p, log_q = expected.double().log_softmax(-1), actual.double().log_softmax(-1)
        kl += float(kl_divergence(log_p, log_q).sum())
        positions += expected.shape[0]
    return MergeVerification(
        max_diff=max_diff,
        kl=max(kl / positions, 0.0),
        effect=effect,
        follow=along / length if length else 0.0,
        prompts=len(reference),
        positions=positions,
    )


def _iter_checked(*lists: list[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(base, base + adapter, merged) of each prompt; ExportError for other shapes and for NaN."""
    for plain, expected, actual in zip(*lists, strict=True):
        if actual.shape != expected.shape:
            raise ExportError(
                "export.other_model",
                shape=str(tuple(actual.shape)),
                expected=str(tuple(expected.shape)),
            )
        for logits, name in ((actual, "merged_model"), (expected, "base_and_adapter")):
            if not logits.isfinite().all():
                raise ExportError("export.logits_not_finite", model=Text(f"export.{name}"))
        yield plain, expected, actual


def _is_float32_throughout(merged: Path, compute: torch.dtype) -> bool:
    """Whether float32 rounding alone can separate the merged model from the reference."""
    shards = ShardReader(merged)
    stored = {shards.spec(name).dtype for name in shards}
    return compute == torch.float32 and not stored & {torch.float16, torch.bfloat16}


def _check_verification(
    verification: MergeVerification, is_float32: bool, adapter: Path, merged: Path
) -> None:
    v = verification
    if v.effect < MIN_EFFECT:
        raise ExportError("export.no_effect", adapter=adapter, effect=v.effect)
    measured = {"max_diff": v.max_diff, "kl": v.kl, "effect": v.effect, "follow": v.follow}
    if abs(v.follow - 1) > MAX_FOLLOW_DEVIATION:
        raise ExportError("export.adapter_not_held", merged=merged, adapter=adapter, **measured)
    bound = min(MAX_FLOAT32_DIFF, v.effect / 2) if is_float32 else v.effect / 2
    if v.max_diff > bound:
        advice = Text("export.merge_again" if is_float32 else "export.merge_in_float32")
        raise ExportError(
            "export.adapter_not_followed", merged=merged, bound=bound, advice=advice, **measured
        )
