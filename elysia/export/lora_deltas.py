"""An adapter's change of a base: reading it, checking that it belongs to that base, and computing it.

A delta is scaling * B @ A (LoRA, https://arxiv.org/abs/2106.09685; rank-stabilized scaling,
https://arxiv.org/abs/2312.03732). DoRA (https://arxiv.org/abs/2402.09353) then gives each row of the
sum the length that was trained. Modules are named as in the loaded model; InternLM2's files use other
names and hold query, key and value rows fused in one tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.i18n import Text
from elysia.core.run_card import RunCard
from elysia.export.shards import ShardReader
from elysia.export.stored_names import ModuleSlice, StoredNames
from elysia.models import loading
from elysia.models.adapters import EXPERT_PARAMETERS

PEFT_PREFIX = "base_model.model."
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
SCORE_KEY = f"{PEFT_PREFIX}score.weight"  # a reward model's head
WRAPPED = ".base_layer"  # at the end of a module's name: the inner of two wrappers around experts
DORA_MAGNITUDE = "lora_magnitude_vector"
_MAGNITUDE_PARTS = ("magnitude_vector", "magnitude_vector.weight")  # PEFT itself writes the first
_TIED_MODULES = ("lm_head", "embed_tokens", "tok_embeddings", "output")


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one module: `a` of (rank, in) and `b` of (out, rank), on the CPU.

    For DoRA also `magnitude` (out,), the trained lengths of the weight's rows. `transposed` says that
    the base stores this weight as (in, out). With `experts` above 1 they are the factors of that many
    matrices, as PEFT lays them out: `a` (experts * rank, in), `b` (out, rank * experts).
    """

    a: Tensor
    b: Tensor
    scaling: float
    transposed: bool = False
    magnitude: Tensor | None = None
    experts: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that the delta is added to."""
        out, into = self.b.shape[0], self.a.shape[1]
        shape = (into, out) if self.transposed else (out, into)
        return shape if self.experts == 1 else (self.experts, *shape)

    def take_expert(self, part: ModuleSlice) -> LoraPair:
        """The pair of one expert, or of the rows of it that `part` is."""
        if part.expert is None:
            return self
        a = self.a.reshape(self.experts, -1, self.a.shape[1])[part.expert]
        b = self.b.reshape(self.b.shape[0], -1, self.experts)[..., part.expert]
        return replace(self, a=a, b=b.chunk(part.shares)[part.share], experts=1)

    def delta(self, device: torch.device) -> Tensor:
        """The float32 matrix to add, or for several experts (experts, …)."""
        if self.experts > 1:
            parts = (ModuleSlice("", expert=number) for number in range(self.experts))
            return torch.stack([self.take_expert(part).delta(device) for part in parts])
        product = self.b.to(device, torch.float32) @ self.a.to(device, torch.float32)
        return self.scaling * (product.T if self.transposed else product)

    def merged(self, weight: Tensor) -> Tensor:
        """A base's float32 `weight` with the adapter merged in, on the weight's device."""
        directed = weight + self.delta(weight.device)
        if self.magnitude is None:
            return directed
        across = 0 if self.transposed else 1
        lengths = torch.linalg.norm(directed, dim=across, keepdim=True)
        trained = self.magnitude.to(weight.device, torch.float32).unsqueeze(across)
        scaled: Tensor = directed * (trained / lengths)
        return scaled


def read_reward_head(folder: Path) -> Tensor | None:
    """A reward adapter's head, (1, hidden); None for an adapter of a language model."""
    if _read_adapter_config(folder).get("modules_to_save") != ["score"]:
        return None
    head = load_file(str(folder / ADAPTER_WEIGHTS)).get(SCORE_KEY)
    if head is None:
        raise ExportError("export.no_reward_head", path=folder / ADAPTER_WEIGHTS, name=SCORE_KEY)
    return head


def read_adapter(folder: Path) -> dict[str, LoraPair]:
    """The pairs of an adapter folder, by module name.

    Raises ExportError for a folder that is damaged or no adapter, and for kinds of adapter whose change
    of the base is not scaling * B @ A.
    """
    config = _read_adapter_config(folder)
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise ExportError("export.no_adapter_weights", folder=folder, file=ADAPTER_WEIGHTS)
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ExportError("export.file_damaged", path=path, reason=str(error)) from error
    pairs: dict[str, LoraPair] = {}
    for name in weights:
        module, is_lora, part = name.removeprefix(PEFT_PREFIX).partition(".lora_")
        if (is_lora and part in _MAGNITUDE_PARTS) or name == SCORE_KEY:
            continue  # read with its pair, or by `read_reward_head`
        if not is_lora or part.split(".")[0].split("_")[-1] not in ("A", "B"):
            raise ExportError("export.more_than_lora", path=path, name=name)
        if part in ("A.weight", "embedding_A"):
            pair = _read_pair(config, weights, name, part, path)
            pairs[_get_weight_name(module, weights)] = pair
    if not pairs:
        raise ExportError("export.no_lora", path=path)
    return pairs


def _read_pair(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], name: str, part: str, path: Path
) -> LoraPair:
    """The pair whose first factor is the tensor `name`, which ends in `part`."""
    other = name.removesuffix(part) + part.replace("A", "B")
    if other not in weights:
        raise ExportError("export.half_of_pair", path=path, name=name, other=other)
    rank, rows = _get_rank(config, name), weights[name].shape[0]
    module = name.removeprefix(PEFT_PREFIX).partition(".lora_")[0]
    is_experts = _get_weight_name(module, weights) != module
    if not is_experts or rows % rank:
        rank = rows
    if weights[other].ndim != 2 or weights[other].shape[1] != rows:
        raise ExportError("export.ranks_differ", path=path, name=name, other=other)
    return LoraPair(
        weights[name],
        weights[other],
        get_scaling(config, module, rank),
        transposed=part.startswith("embedding") or bool(config.get("fan_in_fan_out")),
        magnitude=_read_magnitude(config, weights, name, part, path),
        experts=rows // rank,
    )


def _get_weight_name(module: str, weights: Mapping[str, Tensor]) -> str:
    """The module that LoRA on `module` changes; for the two wrappers around a layer of experts, the
    parameter."""
    layer = module.removesuffix(WRAPPED)
    if layer != module:
        return f"{layer}.{EXPERT_PARAMETERS[0]}"
    if f"{PEFT_PREFIX}{module}{WRAPPED}.lora_A.weight" in weights:
        return f"{layer}.{EXPERT_PARAMETERS[1]}"
    return module


def _get_rank(config: Mapping[str, Any], name: str) -> int:
    """The rank that the adapter's config gives to a module."""
    module = name.removeprefix(PEFT_PREFIX).partition(".lora_")[0]
    for pattern, own in (config.get("rank_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return int(own)
    return int(config.get("r") or 1)


def _read_magnitude(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], name: str, part: str, path: Path
) -> Tensor | None:
    """The trained row lengths beside the factor `name`; None for an adapter without DoRA."""
    if not config.get("use_dora"):
        return None
    if part.startswith("embedding"):
        raise ExportError("export.dora_on_embeddings", path=path, name=name)
    stem = name.removesuffix(part)
    names = [stem + ending for ending in _MAGNITUDE_PARTS if stem + ending in weights]
    rows = weights[stem + part.replace("A", "B")].shape[0]
    if not names or weights[names[0]].numel() != rows:
        missing = stem + _MAGNITUDE_PARTS[0]
        raise ExportError("export.no_magnitude", path=path, name=name, missing=missing, count=rows)
    return weights[names[0]].flatten()


def get_scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / rank of a module, or alpha / sqrt(rank) when the adapter is rank-stabilized.

    >>> get_scaling({"lora_alpha": 8}, "h.q", 4)
    2.0
    >>> get_scaling({"lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"q": 6}}, "h.q", 4)
    3.0
    """
    alpha = config["lora_alpha"]
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = own
            break
    return float(alpha) / (sqrt(rank) if config.get("use_rslora") else float(rank))


def match_slices(name: str, names: StoredNames, pairs: Mapping[str, LoraPair]) -> list[ModuleSlice]:
    """As `StoredNames.get_slices`, but the stored tensor's own name comes first.

    Adapters that XTuner trained on InternLM2 name the stored modules.
    """
    stem = name.removesuffix(".weight")
    return [ModuleSlice(stem)] if stem in pairs else names.get_slices(name)


def get_module_shapes(
    shards: ShardReader, slices: Mapping[str, list[ModuleSlice]], names: StoredNames
) -> dict[str, tuple[int, ...]]:
    """The shape of each module's weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, own in slices.items():
        shape = shards.spec(name).shape
        for part in own:
            if part.expert is not None:
                shapes[part.module] = names.get_shape(part.module) or shape
                continue
            shapes[part.module] = shape if part.rows is None else (len(part.rows), *shape[1:])
    return shapes


def check_base_fingerprint(card: RunCard | None, base: Path, adapter: Path) -> None:
    """ExportError when the fingerprint in the adapter's card is not that of `base`."""
    expected = card.base_weights.get("sha256") if card else None
    if card and expected and loading.compute_fingerprint(base).get("sha256") != expected:
        raise ExportError(
            "export.other_base", adapter=adapter, trained_on=card.base_model, base=base
        )


def check_shapes(
    pairs: Mapping[str, LoraPair],
    shapes: Mapping[str, tuple[int, ...]],
    base: Path,
    adapter: Path,
    card: RunCard | None,
) -> None:
    """ExportError unless every pair has a weight of its shape; this works without a run card, too."""
    note = Text("export.made_for", {"base": card.base_model}) if card else ""
    for module, pair in pairs.items():
        if module not in shapes:
            raise ExportError(
                "export.unknown_module", adapter=adapter, note=note, module=module, base=base
            )
        if shapes[module] != pair.shape:
            raise ExportError(
                "export.other_shape", adapter=adapter, note=note, module=module, base=base,
                shape=str(pair.shape), base_shape=str(shapes[module]),
            )  # fmt: skip


def check_tied_embeddings(
    pairs: Mapping[str, LoraPair], config: Any, base: Path, adapter: Path
) -> None:
    """ExportError when a merge would change embeddings and head, but the adapter changes only one."""
    modules = [module for module in pairs if module.rpartition(".")[2] in _TIED_MODULES]
    if modules and getattr(config, "tie_word_embeddings", False):
        raise ExportError("export.tied_weights", base=base, adapter=adapter, module=modules[0])


def _read_adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = config["peft_type"]
        float(config["lora_alpha"])
    except FileNotFoundError:
        raise ExportError("export.no_adapter_config", folder=folder, file=ADAPTER_CONFIG) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError("export.file_damaged", path=path, reason=repr(error)) from error
    if kind != "LORA":
        raise ExportError("export.not_lora", path=path, kind=kind)
    unsupported = [key for key in ("use_qalora", "modules_to_save") if config.get(key)]
    if config.get("task_type") == "SEQ_CLS" and config.get("modules_to_save") == ["score"]:
        unsupported.remove("modules_to_save")
    unsupported += ["bias"] if config.get("bias", "none") != "none" else []
    if unsupported:
        raise ExportError("export.unsupported_settings", path=path, settings=unsupported)
    return config
