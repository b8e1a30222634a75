"""What an adapter makes of a base's weights, and where in the base's files it belongs.

A delta is scaling * B @ A (LoRA, https://arxiv.org/abs/2106.09685; rank-stabilized scaling,
https://arxiv.org/abs/2312.03732). DoRA (https://arxiv.org/abs/2402.09353) then gives each row of
the sum the length that was trained. Modules are named as in the loaded model; InternLM2's files use
other names and keep query, key and value rows fused in one tensor. Knows nothing of how the result
is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.core.run_card import RunCard
from elysia.export.shards import ShardReader
from elysia.models import loading
from elysia.models.architectures import internlm2

PEFT_PREFIX = "base_model.model."
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
SCORE_KEY = f"{PEFT_PREFIX}score.weight"
MAGNITUDE_NAMES = ("magnitude_vector", "magnitude_vector.weight")  # PEFT writes the first


@dataclass(frozen=True)
class LoraPair:
    """One module's pair: `a` of (rank, in) and `b` of (out, rank), on the CPU; for DoRA also the
    lengths of the rows, `magnitude` of (out,)."""

    a: Tensor
    b: Tensor
    scaling: float
    transposed: bool = False  # the base keeps this weight as (in, out)
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight that the delta is added to."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)

    def delta(self, device: torch.device) -> Tensor:
        """The float32 matrix to add."""
        product = self.b.to(device, torch.float32) @ self.a.to(device, torch.float32)
        return self.scaling * (product.T if self.transposed else product)

    def merged(self, weight: Tensor) -> Tensor:
        """A base's float32 `weight` as the adapter makes it, on its device."""
        turned = weight + self.delta(weight.device)
        if self.magnitude is None:
            return turned
        across = 0 if self.transposed else 1
        lengths = torch.linalg.norm(turned, dim=across, keepdim=True)
        wanted = self.magnitude.to(weight.device, torch.float32).unsqueeze(across)
        sized: Tensor = turned * (wanted / lengths)
        return sized


@dataclass(frozen=True)
class ModuleSlice:
    """A module's weight inside a tensor of a file: all of it, or some rows."""

    module: str
    rows: Tensor | None = None  # int64 indices, in the order of the module's own rows


def read_reward_head(folder: Path) -> Tensor | None:
    """A reward adapter's head, (1, hidden); None for an adapter of a language model."""
    if _read_adapter_config(folder).get("modules_to_save") != ["score"]:
        return None
    found = load_file(str(folder / ADAPTER_WEIGHTS)).get(SCORE_KEY)
    if found is None:
        raise ExportError(
            f"{folder / ADAPTER_WEIGHTS} holds no {SCORE_KEY}: the reward model's head is gone."
        )
    return found


def read_adapter(folder: Path) -> dict[str, LoraPair]:
    """The pairs of an adapter folder, by module name.

    Raises ExportError for a folder that is no adapter or damaged, and for kinds of adapter whose
    change of the base is not scaling * B @ A.
    """
    config = _read_adapter_config(folder)
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise ExportError(
            f"{folder} has no {ADAPTER_WEIGHTS}: it is no adapter folder, or one saved as a pickle."
        )
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ExportError(f"{path} is damaged or cut short ({error}).") from error
    pairs: dict[str, LoraPair] = {}
    for name in weights:
        module, found, part = name.removeprefix(PEFT_PREFIX).partition(".lora_")
        if (found and part in MAGNITUDE_NAMES) or name == SCORE_KEY:
            continue  # taken with its pair; by `read_reward_head`
        if not found or part.split(".")[0].split("_")[-1] not in ("A", "B"):
            raise ExportError(
                f"{path} holds {name}, which is more than LoRA: such an adapter cannot be merged."
            )
        if part in ("A.weight", "embedding_A"):
            other = name.removesuffix(part) + part.replace("A", "B")
            if other not in weights:
                raise ExportError(f"{path} holds {name} without {other}: it is incomplete.")
            embedding = part.startswith("embedding")
            rank = weights[name].shape[0]
            if weights[other].ndim != 2 or weights[other].shape[1] != rank:
                raise ExportError(f"{path}: {name} and {other} are of different ranks.")
            pairs[module] = LoraPair(
                weights[name],
                weights[other],
                get_scaling(config, module, rank),
                transposed=embedding or bool(config.get("fan_in_fan_out")),
                magnitude=_read_magnitude(config, weights, name, part, path),
            )
    if not pairs:
        raise ExportError(f"{path} holds no LoRA weights.")
    return pairs


def _read_magnitude(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], name: str, part: str, path: Path
) -> Tensor | None:
    """The trained lengths beside the half `name` of a pair; None for an adapter without DoRA."""
    if not config.get("use_dora"):
        return None
    if part.startswith("embedding"):
        raise ExportError(f"{path} carries DoRA on embeddings ({name}), which cannot be merged.")
    stem = name.removesuffix(part)
    found = next(
        (weights[stem + ending] for ending in MAGNITUDE_NAMES if stem + ending in weights), None
    )
    out = weights[stem + part.replace("A", "B")].shape[0]
    if found is None or found.numel() != out:
        raise ExportError(
            f"{path}: {name} has no {stem}{MAGNITUDE_NAMES[0]} of {out} numbers, which DoRA needs: it is "
            "incomplete."
        )
    return found.flatten()


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


def get_module_slices(name: str, config: Any) -> list[ModuleSlice]:
    """The modules whose weight is in the file's tensor `name`, for a model with this config.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(model_type="internlm2")
    >>> [part.module for part in get_module_slices("model.layers.0.feed_forward.w1.weight", config)]
    ['model.layers.0.mlp.gate_proj']
    """
    stem = name.removesuffix(".weight")
    if stem == name:
        return []
    if config.model_type != internlm2.MODEL_TYPE:
        return [ModuleSlice(stem)]
    fused, modules = internlm2.FUSED_QKV
    if stem.endswith(fused):
        head = stem.removesuffix(fused)
        rows = get_fused_rows(config)
        return [ModuleSlice(head + module, own) for module, own in zip(modules, rows, strict=True)]
    for theirs, ours in internlm2.KEY_RENAMES:
        name = name.replace(theirs, ours)
    return [ModuleSlice(name.removesuffix(".weight"))]


def get_fused_rows(config: Any) -> tuple[Tensor, ...]:
    """Where InternLM2's `wqkv` keeps the rows of query, key and value, as indices."""
    heads, groups, size = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    )
    rows = torch.arange((heads + 2 * groups) * size)
    return internlm2.split_wqkv(rows, heads, groups, size)


def _read_adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = config["peft_type"]
        float(config["lora_alpha"])
    except FileNotFoundError:
        raise ExportError(f"{folder} has no {ADAPTER_CONFIG}: it is no adapter folder.") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError(f"{path} is damaged: {error!r}.") from error
    if kind != "LORA":
        raise ExportError(f"{path} is of the kind {kind}; only LoRA adapters can be merged.")
    asked = [key for key in ("use_qalora", "modules_to_save") if config.get(key)]
    if config.get("task_type") == "SEQ_CLS" and config.get("modules_to_save") == ["score"]:
        asked.remove("modules_to_save")
    asked += ["bias"] if config.get("bias", "none") != "none" else []
    if asked:
        raise ExportError(
            f"{path} sets {', '.join(asked)}: what that changes is more than LoRA and cannot be "
            "merged here."
        )
    return config


_TIED_MODULES = ("lm_head", "embed_tokens", "tok_embeddings", "output")


def match_slices(name: str, config: Any, pairs: Mapping[str, LoraPair]) -> list[ModuleSlice]:
    """As `get_module_slices`, but an adapter may name the file's own tensor, as XTuner's on InternLM2 do."""
    stem = name.removesuffix(".weight")
    return [ModuleSlice(stem)] if stem in pairs else get_module_slices(name, config)


def get_module_shapes(
    shards: ShardReader, parts: Mapping[str, list[ModuleSlice]]
) -> dict[str, tuple[int, ...]]:
    """The shape of each module's weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, own in parts.items():
        shape = shards.spec(name).shape
        for part in own:
            shapes[part.module] = shape if part.rows is None else (len(part.rows), *shape[1:])
    return shapes


def check_base_fingerprint(card: RunCard | None, base: Path, adapter: Path) -> None:
    """ExportError when the card's fingerprint is not that of `base`."""
    wanted = card.base_weights.get("sha256") if card else None
    if card and wanted and loading.compute_fingerprint(base).get("sha256") != wanted:
        raise ExportError(
            f"The adapter {adapter} was trained on {card.base_model}, whose weights are not those "
            f"of {base}: on them it would say nonsense. Give the base that it was trained on."
        )


def check_shapes(
    pairs: Mapping[str, LoraPair],
    shapes: Mapping[str, tuple[int, ...]],
    base: Path,
    adapter: Path,
    card: RunCard | None,
) -> None:
    """ExportError unless every pair has a weight of its shape: what can be told without a card."""
    of = f" (made for {card.base_model})" if card else ""
    for module, pair in pairs.items():
        if module not in shapes:
            raise ExportError(
                f"The adapter {adapter}{of} changes {module}, which the base {base} does not have: "
                "it was trained on another base."
            )
        if shapes[module] != pair.shape:
            raise ExportError(
                f"The adapter {adapter}{of} changes {module} of shape {pair.shape}; in the base "
                f"{base} it is {shapes[module]}: it was trained on another base."
            )


def check_tied_embeddings(
    pairs: Mapping[str, LoraPair], config: Any, base: Path, adapter: Path
) -> None:
    """ExportError when a merge would change embeddings and head, and the adapter only one."""
    ends = [module for module in pairs if module.rpartition(".")[2] in _TIED_MODULES]
    if ends and getattr(config, "tie_word_embeddings", False):
        raise ExportError(
            f"{base} uses one tensor for embeddings and head, and the adapter {adapter} changes "
            f"only {ends[0]}: merged, it would change both. Keep this adapter unmerged."
        )
