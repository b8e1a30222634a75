"""Base and adapter as one model, tensor by tensor from safetensors to safetensors.

No model is built and memory holds one tensor of the base. The delta is added in float32 and rounded
once. Either the base's own weights take it, or the dequantized ones that QLoRA trained on. Knows
nothing of whether the result answers alike: that is proved by logits (prove.py).
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.files import staged_folder
from elysia.core.run_card import RunCard
from elysia.export.chat_template import TEMPLATE_FILE, render_chat_template
from elysia.export.lora_deltas import (
    LoraPair,
    ModuleSlice,
    check_base_fingerprint,
    check_shapes,
    check_tied_embeddings,
    get_module_shapes,
    match_slices,
    read_adapter,
    read_reward_head,
)
from elysia.export.shards import ShardReader, TensorSpec, parse_size, write_shards
from elysia.models import loading
from elysia.models.quantization import QuantizationDrift, get_quantized_modules, round_trip_nf4

BaseWeights = Literal["original", "as-trained"]
BASE_WEIGHTS = ("original", "as-trained")
SCORE_WEIGHT = "score.weight"
REPORT_FILE = "merge.json"  # the report, beside the weights


@dataclass(frozen=True)
class MergeReport:
    """What was merged, and how far from the trained and the original base the choice lies.

    `drift` has for each choice of base weights the relative Frobenius and largest difference to the
    weights that training saw (`from_trained`) and to the base's own (`from_base`); it is empty for
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
            apart = ", ".join(
                f"{name.replace('_', ' the ')} {d['relative']:.2%} (largest {d['max']:.3g})"
                for name, d in drift.items()
            )
            lines.append(f"{mark} --base-weights {choice}: {apart}")
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
    """Write base + adapter to the folder `out`, which is absent, empty or an earlier merge's.

    Args:
        base: a model folder with safetensors.
        adapter: a PEFT LoRA folder; with a run card, its base must be this one.
        device: where the arithmetic is done.
        base_weights: "original", or "as-trained": every weight takes the value that QLoRA's
            training saw, through NF4 where it was quantized, in the training's dtype elsewhere.
        dtype: of the floating tensors written; None keeps the base's, tensor by tensor.

    Raises ExportError for an adapter of another base, of another kind or damaged, for a base that
    is incomplete, and for a full disk; nothing half-written is left.
    """
    started = time.monotonic()
    base, adapter, out = Path(base), Path(adapter), Path(out)
    if base_weights not in BASE_WEIGHTS:
        raise ExportError(f"base_weights is {base_weights!r}, none of {', '.join(BASE_WEIGHTS)}.")
    limit = parse_size(max_shard_size)
    work = _plan_merge(base, adapter, base_weights, device, dtype)
    with staged_folder(out, replaces=_is_merge_folder) as staging:
        files = write_shards(staging, work.specs(), work.tensor, limit)
        copy_model_files(base, staging)
        if work.score is not None:
            _write_reward_config(staging)
        _write_dtype(staging, work.stored)
        if work.card and work.card.template:
            jinja = render_chat_template(work.card.template)
            (staging / TEMPLATE_FILE).write_text(jinja, encoding="utf-8")
        report = MergeReport(
            out=str(out),
            base_weights=base_weights,
            merged_modules=len(work.pairs),
            tensors=len(work.specs()),
            files=len(files),
            bytes=sum(path.stat().st_size for path in files),
            dtype=str(work.stored or "mixed dtypes").removeprefix("torch."),
            seconds=time.monotonic() - started,
            drift=work.drifts(),
        )
        (staging / REPORT_FILE).write_text(json.dumps(report.to_dict(), indent=2) + "\n")
        _build_card(work.card, adapter, base, report).write(staging)
    return report


@dataclass
class _MergePlan:
    """A merge about to be done: what every tensor of the output is made of."""

    shards: ShardReader
    parts: dict[str, list[ModuleSlice]]
    pairs: dict[str, LoraPair]
    card: RunCard | None
    as_trained: bool
    quantized: set[str]  # modules that the training had in NF4
    trained_dtype: torch.dtype
    double_quant: bool
    asked: torch.dtype | None
    device: torch.device
    drift: QuantizationDrift = field(default_factory=QuantizationDrift)
    score: Tensor | None = None  # a reward model's head, in place of the base's

    def specs(self) -> list[TensorSpec]:
        """The output's tensors, in the base's order."""
        if self.score is None:
            return [TensorSpec(n, self._dtype(n), self.shards.spec(n).shape) for n in self.shards]
        kept = [n for n in self.shards if n not in loading.HEAD_WEIGHTS]
        specs = [TensorSpec(n, self._dtype(n), self.shards.spec(n).shape) for n in kept]
        return [*specs, TensorSpec(SCORE_WEIGHT, specs[0].dtype, tuple(self.score.shape))]

    @property
    def stored(self) -> torch.dtype | None:
        """The one dtype of the output's floating tensors, None when they differ."""
        found = {spec.dtype for spec in self.specs() if spec.dtype.is_floating_point}
        return found.pop() if len(found) == 1 else None

    def _dtype(self, name: str) -> torch.dtype:
        own = self.shards.spec(name).dtype
        return self.asked if self.asked is not None and own.is_floating_point else own

    def tensor(self, name: str) -> Tensor:
        """One tensor of the output."""
        if self.score is not None and name == SCORE_WEIGHT:
            return self.score.to(self.specs()[0].dtype)
        weight = self.shards.tensor(name)
        touched = [
            p for p in self.parts[name] if p.module in self.pairs or p.module in self.quantized
        ]
        if not touched:
            return self._loaded(weight).to(self._dtype(name))
        weight = weight.to(self.device)
        result = weight.float() if weight.dtype != torch.float32 else weight.clone()
        for part in touched:
            rows = slice(None) if part.rows is None else part.rows.to(self.device)
            result[rows] = self._part(weight[rows], part.module)
        return result.to(self._dtype(name))

    def _loaded(self, weight: Tensor) -> Tensor:
        """As the training held it: it loads the base in its own dtype before it quantizes."""
        rounds = self.as_trained and weight.is_floating_point()
        return weight.to(self.trained_dtype) if rounds else weight

    def _part(self, weight: Tensor, module: str) -> Tensor:
        merged = self._loaded(weight).float()
        if module in self.quantized:
            restored = round_trip_nf4(weight, self.trained_dtype, self.double_quant)
            self.drift.add(weight, restored)
            if self.as_trained:
                merged = restored.float()
        if module in self.pairs:
            merged = self.pairs[module].merged(merged)
        return merged

    def drifts(self) -> dict[str, dict[str, dict[str, float]]]:
        """For the report: of each choice, measured over what was quantized."""
        if not self.quantized:
            return {}
        none, apart = QuantizationDrift().to_dict(), self.drift.to_dict()
        return {
            "original": {"from_trained": apart, "from_base": none},
            "as-trained": {"from_trained": none, "from_base": apart},
        }


def _plan_merge(
    base: Path,
    adapter: Path,
    base_weights: BaseWeights,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
) -> _MergePlan:
    """Read what is small, and refuse whatever can be refused before the first byte is written."""
    pairs = read_adapter(adapter)
    card = RunCard.read(adapter)
    config = loading.load_config(base)
    if getattr(config, "quantization_config", None):
        raise ExportError(
            f"{base} is stored quantized: an adapter cannot be merged into it. Give the base that "
            "it was quantized from."
        )
    shards = ShardReader(base)
    check_base_fingerprint(card, base, adapter)
    parts = {name: match_slices(name, config, pairs) for name in shards}
    check_shapes(pairs, get_module_shapes(shards, parts), base, adapter, card)
    check_tied_embeddings(pairs, config, base, adapter)
    nf4 = card is not None and card.method == "qlora"
    if base_weights == "as-trained" and not nf4:
        raise ExportError(
            f"{adapter} was not trained on quantized weights (its run card says "
            f"{card.method if card else 'nothing'}): merge it with --base-weights original."
        )
    training = card.extra.get("training", {}) if card else {}
    first = next((spec.dtype for spec in map(shards.spec, shards)), torch.float32)
    return _MergePlan(
        score=read_reward_head(adapter),
        shards=shards,
        parts=parts,
        pairs=pairs,
        card=card,
        as_trained=base_weights == "as-trained",
        quantized=get_quantized_modules(config) if nf4 else set(),
        trained_dtype=loading.parse_dtype(training.get("dtype", first)),
        double_quant=bool(training.get("double_quant", True)),
        asked=None if dtype is None else loading.parse_dtype(dtype),
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
    """Configs, tokenizer and licence; not the base's own cards, and no code."""
    for path in sorted(base.iterdir()):
        known = path.suffix in _COPIED_SUFFIXES or path.stem.upper() in (
            "LICENSE",
            "LICENCE",
            "NOTICE",
        )
        if path.is_file() and known and path.name not in _NOT_COPIED:
            shutil.copyfile(path, staging / path.name)


def _write_dtype(staging: Path, dtype: torch.dtype | None) -> None:
    """config.json names the dtype that the weights now have, and no code that was not copied."""
    path = staging / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("auto_map", None)
    if dtype is not None:
        config["dtype"] = config["torch_dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_reward_config(staging: Path) -> None:
    """config.json names the architecture that gives a number."""
    config = loading.configure_reward_head(loading.load_config(staging), staging)
    path = staging / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    causal = (written.get("architectures") or ["ForCausalLM"])[0]
    written["architectures"] = [causal.replace("ForCausalLM", "ForSequenceClassification")]
    written |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    written["pad_token_id"] = config.pad_token_id
    path.write_text(json.dumps(written, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _is_merge_folder(folder: Path) -> bool:
    return (folder / REPORT_FILE).is_file()


def _build_card(card: RunCard | None, adapter: Path, base: Path, report: MergeReport) -> RunCard:
    found = card or RunCard(stage="merged", base_model=str(base), method="lora")
    how = {"base_weights": report.base_weights, "dtype": report.dtype, "adapter": str(adapter)}
    return found.updated(stage="merged", extra=found.extra | {"merge": how})
