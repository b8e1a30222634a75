"""From the names of a folder's tensors to those of a loaded model's modules.

transformers renames tensors and stacks experts when it loads a folder. A merge works on the files, an adapter
on the loaded model: what belongs together is asked of transformers' own rules, with a model that has shapes
and no memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from elysia.models.architectures import internlm2

_EXPERT = re.compile(r"\.experts\.(\d+)\.")


@dataclass(frozen=True)
class ModuleSlice:
    """The part of a stored tensor that is one module's weight: all of it, or some rows.

    A file may hold each expert by itself, which memory stacks: then the tensor is share `share` of
    `shares` of the rows of expert number `expert` in the parameter `module`.
    """

    module: str
    rows: Tensor | None = None  # int64 indices, in the order of the module's own rows
    expert: int | None = None
    share: int = 0
    shares: int = 1


class StoredNames:
    """The names in memory of the tensors in a model's files."""

    def __init__(self, config: Any) -> None:
        self.config = config
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config)
        rules = get_model_conversion_mapping(self.model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._state = self.model.state_dict()

    def get_slices(self, name: str) -> list[ModuleSlice]:
        """The modules whose weight is in the stored tensor `name`; none for other tensors."""
        if self.config.model_type == internlm2.MODEL_TYPE:
            return get_internlm2_slices(name, self.config)
        loaded, pattern = self._rename(name)
        if pattern is None:
            is_expert = loaded in self._state and self._state[loaded].ndim == 3
            if loaded.endswith(".weight") or is_expert:
                return [ModuleSlice(loaded.removesuffix(".weight"))]
            return []
        converter = next(c for c in self._converters if pattern in c.source_patterns)
        number = _EXPERT.search(name)
        if number is None or len(converter.target_patterns) != 1:
            return []
        shares = len(converter.source_patterns)
        share = converter.source_patterns.index(pattern)
        return [ModuleSlice(loaded, None, int(number[1]), share, shares)]

    def get_loaded_name(self, name: str) -> str:
        """The name in memory of the stored tensor `name`."""
        return self._rename(name)[0]

    def get_shape(self, parameter: str) -> tuple[int, ...] | None:
        """The shape in memory of a parameter; None when there is none of this name."""
        tensor = self._state.get(parameter)
        return None if tensor is None else tuple(tensor.shape)

    def is_transposed(self, parameter: str) -> bool:
        """Whether the experts in `parameter` are stored as (experts, in, out)."""
        layer = parameter.rpartition(".")[0]
        return bool(getattr(self.model.get_submodule(layer), "is_transposed", False))

    def _rename(self, name: str) -> tuple[str, str | None]:
        prefix = self.model.base_model_prefix
        loaded, pattern = rename_source_key(
            name, self._renamings, self._converters, prefix, self._state
        )
        if loaded != name and pattern is None and loaded not in self._state and name in self._state:
            return name, None
        return loaded, pattern


def get_internlm2_slices(name: str, config: Any) -> list[ModuleSlice]:
    """As `StoredNames.get_slices`, for InternLM2, whose files hold query, key and value fused.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(model_type="internlm2")
    >>> [part.module for part in get_internlm2_slices("model.layers.0.feed_forward.w1.weight", config)]
    ['model.layers.0.mlp.gate_proj']
    """
    stem = name.removesuffix(".weight")
    if stem == name:
        return []
    fused, modules = internlm2.FUSED_QKV
    if stem.endswith(fused):
        head = stem.removesuffix(fused)
        rows = get_fused_rows(config)
        return [ModuleSlice(head + module, own) for module, own in zip(modules, rows, strict=True)]
    return [ModuleSlice(internlm2.get_memory_name(name).removesuffix(".weight"))]


def get_fused_rows(config: Any) -> tuple[Tensor, ...]:
    """Indices of the rows of query, key and value in InternLM2's `wqkv`."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    rows = torch.arange((heads + 2 * groups) * config.head_dim)
    return internlm2.split_wqkv(rows, heads, groups, config.head_dim)
