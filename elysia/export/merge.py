"""Merging an adapter into its base, tensor by tensor from safetensors to safetensors.

No model is built, and memory holds one tensor of the base. The delta is added in float32 and rounded
once, either to the base's own weights or to the dequantized ones that QLoRA trained on. Whether the
result replies like base + adapter is checked by `verify_merge`.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.files import staged_folder
from elysia.core.run_card import RunCard
from elysia.export.chat_template import write_chat_template
from elysia.export.lora_deltas import (
    LoraPair,
    check_base_fingerprint,
    check_shapes,
    check_tied_embeddings,
    get_module_shapes,
    match_slices,
    read_adapter,
    read_reward_head,
)
from elysia.export.shards import ShardReader, TensorSpec, parse_size, write_shards
from elysia.export.stored_names import ModuleSlice, StoredNames
from elysia.models import loading
from elysia.models.quantization import QuantizationDrift, get_quantized_modules, round_trip_nf4
from elysia.models.saving import rewrite_json

BaseWeights = Literal["original", "as-trained"]
BASE_WEIGHTS = ("original", "as-trained")
SCORE_WEIGHT = "score.weight"
REPORT_FILE = "merge.json"  # beside the weights


@dataclass(frozen=True)
class MergeReport:
    """What was merged, and how far the chosen weights are from the trained and from the original ones.

    `drift` has, for each choice of base weights, the relative Frobenius and the largest difference to
    the weights that training saw (`from_trained`) and to the base's own (`from_base`). It is empty for
    an adapter that was not trained on quantized weights.
    """

    out: str
    base_weights: str
    merged_modules: int
    tensors: int
    files: int
    bytes: int
    dtype: str
    seconds: float
    drift: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"Merged {self.merged_modules} modules into {self.tensors} tensors of {self.dtype} "
            f"({self.bytes / 1e6:.1f} MB, {self.files} file(s)) in {self.seconds:.1f} s: {self.out}"
        ]
        for choice, drift in self.drift.items():
            mark = "*" if choice == self.base_weights else " "
            differences = ", ".join(
                f"{name.replace('_', ' the ')} {d['relative']:.2%} (largest {d['max']:.3g})"
                for name, d in drift.items()
            )
            lines.append(f"{mark} --base-weights {choice}: {differences}")
        return "\n".join(lines)


def merge_adapter(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    device: str | torch.device = "auto",
    max_shard_size: str = "2GB",
    base_weights: BaseWeights = "original",
    dtype: str | torch.dtype | None = None,
) -> MergeReport:
    """Write base + adapter to the folder `out`, which is absent, empty or the result of an earlier merge.

    Args:
        base: a model folder with safetensors.
        adapter: a PEFT LoRA folder; with a run card, its base must be this one.
        device: where the delta is computed.
        base_weights: "original", or "as-trained": every weight takes the value that QLoRA's
            training saw, through NF4 where it was quantized, in the training's dtype elsewhere.
        dtype: of the floating-point tensors written; None keeps the base's, tensor by tensor.

    Raises ExportError for an adapter of another base, of another kind or damaged, for a base that
    is incomplete, and for a full disk; nothing half-written is left behind.
    """
    started = time.monotonic()
    base, adapter, out = Path(base), Path(adapter), Path(out)
    limit = parse_size(max_shard_size)
    plan = _plan_merge(base, adapter, base_weights, device, dtype)
    with staged_folder(out, replaces=_is_merge_folder) as staging:
        files = write_shards(staging, plan.specs(), plan.tensor, limit)
        copy_model_files(base, staging)
        if plan.score is not None:
            _write_reward_config(staging)
        _write_dtype(staging, plan.stored)
        if plan.card:
            write_chat_template(plan.card.template, staging)
        report = MergeReport(
            out=str(out),
            base_weights=base_weights,
            merged_modules=len(plan.pairs),
            tensors=len(plan.specs()),
            files=len(files),
            bytes=sum(path.stat().st_size for path in files),
            dtype=str(plan.stored or "mixed dtypes").removeprefix("torch."),
            seconds=time.monotonic() - started,
            drift=plan.drifts(),
        )
        (staging / REPORT_FILE).write_text(json.dumps(report.to_dict(), indent=2) + "\n")
        _build_card(plan.card, adapter, base, report).write(staging)
    return report


@dataclass
class _MergePlan:
    """What every tensor of the output is made of."""

    shards: ShardReader
    slices: dict[str, list[ModuleSlice]]  # by the stored tensor's name
    pairs: dict[str, LoraPair]
    card: RunCard | None
    as_trained: bool
    quantized: set[str]  # modules that the training had in NF4
    trained_dtype: torch.dtype
    double_quant: bool
    requested_dtype: torch.dtype | None
    device: torch.device
    drift: QuantizationDrift = field(default_factory=QuantizationDrift)
    score: Tensor | None = None  # a reward model's head, in place of the base's

    def specs(self) -> list[TensorSpec]:
        """The output's tensors, in the base's order."""
        if self.score is None:
            return [TensorSpec(n, self._dtype(n), self.shards.spec(n).shape) for n in self.shards]
        names = [n for n in self.shards if n not in loading.HEAD_WEIGHTS]
        specs = [TensorSpec(n, self._dtype(n), self.shards.spec(n).shape) for n in names]
        return [*specs, TensorSpec(SCORE_WEIGHT, specs[0].dtype, tuple(self.score.shape))]

    @property
    def stored(self) -> torch.dtype | None:
        """The dtype that all floating-point tensors of the output share, None when they differ."""
        dtypes = {spec.dtype for spec in self.specs() if spec.dtype.is_floating_point}
        return dtypes.pop() if len(dtypes) == 1 else None

    def _dtype(self, name: str) -> torch.dtype:
        own = self.shards.spec(name).dtype
        requested = self.requested_dtype
        return requested if requested is not None and own.is_floating_point else own

    def tensor(self, name: str) -> Tensor:
        """One tensor of the output."""
        if self.score is not None and name == SCORE_WEIGHT:
            return self.score.to(self.specs()[0].dtype)
        weight = self.shards.tensor(name)
        touched = [
            s for s in self.slices[name] if s.module in self.pairs or s.module in self.quantized
        ]
        if not touched:
            return self._loaded(weight).to(self._dtype(name))
        weight = weight.to(self.device)
        result = weight.float() if weight.dtype != torch.float32 else weight.clone()
        for part in touched:
            rows = slice(None) if part.rows is None else part.rows.to(self.device)
            result[rows] = self._merge_module(weight[rows], part)
        return result.to(self._dtype(name))

    def _loaded(self, weight: Tensor) -> Tensor:
        """`weight` as training saw it, which loads the base in its own dtype before it quantizes."""
        is_rounded = self.as_trained and weight.is_floating_point()
        return weight.to(self.trained_dtype) if is_rounded else weight

    def _merge_module(self, weight: Tensor, part: ModuleSlice) -> Tensor:
        module = part.module
        merged = self._loaded(weight).float()
        if module in self.quantized:
            restored = round_trip_nf4(weight, self.trained_dtype, self.double_quant)
            self.drift.add(weight, restored)
            if self.as_trained:
                merged = restored.float()
        if module in self.pairs:
            merged = self.pairs[module].take_expert(part).merged(merged)
        return merged

    def drifts(self) -> dict[str, dict[str, dict[str, float]]]:
        """For the report: the drift of each choice, measured over what was quantized."""
        if not self.quantized:
            return {}
        none, drift = QuantizationDrift().to_dict(), self.drift.to_dict()
        return {
            "original": {"from_trained": drift, "from_base": none},
            "as-trained": {"from_trained": none, "from_base": drift},
        }


def _plan_merge(
    base: Path,
    adapter: Path,
    base_weights: BaseWeights,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
) -> _MergePlan:
    """Read everything but the base's tensors; what can be refused is refused before anything is written."""
    if base_weights not in BASE_WEIGHTS:
        raise ExportError("export.unknown_base_weights", value=base_weights, choices=BASE_WEIGHTS)
    pairs = read_adapter(adapter)
    card = RunCard.read(adapter)
    config = loading.load_config(base)
    if getattr(config, "quantization_config", None):
        raise ExportError("export.base_quantized", base=base)
    shards = ShardReader(base)
    check_base_fingerprint(card, base, adapter)
    names = StoredNames(config)
    slices = {name: match_slices(name, names, pairs) for name in shards}
    pairs = {
        module: replace(pair, transposed=True)
        if pair.experts > 1 and names.is_transposed(module)
        else pair
        for module, pair in pairs.items()
    }
    check_shapes(pairs, get_module_shapes(shards, slices, names), base, adapter, card)
    check_tied_embeddings(pairs, config, base, adapter)
    nf4 = card is not None and card.method == "qlora"
    if base_weights == "as-trained" and not nf4:
        method = card.method if card else "-"
        raise ExportError("export.not_quantized_training", adapter=adapter, method=method)
    training = card.extra.get("training", {}) if card else {}
    first = next((spec.dtype for spec in map(shards.spec, shards)), torch.float32)
    return _MergePlan(
        score=read_reward_head(adapter),
        shards=shards,
        slices=slices,
        pairs=pairs,
        card=card,
        as_trained=base_weights == "as-trained",
        quantized=get_quantized_modules(config) if nf4 else set(),
        trained_dtype=loading.parse_dtype(training.get("dtype", first)),
        double_quant=bool(training.get("double_quant", True)),
        requested_dtype=None if dtype is None else loading.parse_dtype(dtype),
        device=loading.pick_device(device),
    )


_COPIED_SUFFIXES = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_NOT_COPIED = {
    "run_card.json",
    REPORT_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
}


def copy_model_files(base: Path, staging: Path) -> None:
    """Copy configs, tokenizer and licence, but neither the base's own cards nor code."""
    for path in sorted(base.iterdir()):
        known = path.suffix in _COPIED_SUFFIXES or path.stem.upper() in (
            "LICENSE",
            "LICENCE",
            "NOTICE",
        )
        if path.is_file() and known and path.name not in _NOT_COPIED:
            shutil.copyfile(path, staging / path.name)


def _write_dtype(staging: Path, dtype: torch.dtype | None) -> None:
    """Put the dtype that the weights now have into config.json, and remove code that was not copied."""

    def change(config: dict[str, Any]) -> dict[str, Any]:
        config.pop("auto_map", None)
        if dtype is not None:
            config["dtype"] = config["torch_dtype"] = str(dtype).removeprefix("torch.")
        return config

    rewrite_json(staging / "config.json", change)


def _write_reward_config(staging: Path) -> None:
    """Put the architecture with a head of one number into config.json."""
    padding = loading.configure_reward_head(loading.load_config(staging), staging).pad_token_id

    def change(config: dict[str, Any]) -> dict[str, Any]:
        causal = (config.get("architectures") or ["ForCausalLM"])[0]
        config["architectures"] = [causal.replace("ForCausalLM", "ForSequenceClassification")]
        config |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
        config["pad_token_id"] = padding
        return config

    rewrite_json(staging / "config.json", change)


def _is_merge_folder(folder: Path) -> bool:
    return (folder / REPORT_FILE).is_file()


def _build_card(card: RunCard | None, adapter: Path, base: Path, report: MergeReport) -> RunCard:
    card = card or RunCard(stage="merged", base_model=str(base), method="lora")
    merge = {"base_weights": report.base_weights, "dtype": report.dtype, "adapter": str(adapter)}
    return card.updated(stage="merged", extra=card.extra | {"merge": merge})
