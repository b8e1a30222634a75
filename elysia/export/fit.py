"""Whether an adapter belongs to a base: by the run card's fingerprint, and by names and shapes.

Raises sentences that name both. Knows nothing of how a merge is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elysia.core.errors import ExportError
from elysia.core.run_card import RunCard
from elysia.export.deltas import Lora, Part, parts_of
from elysia.export.shards import Shards
from elysia.models import load

_ENDS = ("lm_head", "embed_tokens", "tok_embeddings", "output")


def parts_for(name: str, config: Any, pairs: Mapping[str, Lora]) -> list[Part]:
    """As `parts_of`, but an adapter may name the file's own tensor, as XTuner's on InternLM2 do."""
    stem = name.removesuffix(".weight")
    return [Part(stem)] if stem in pairs else parts_of(name, config)


def shapes_of(shards: Shards, parts: Mapping[str, list[Part]]) -> dict[str, tuple[int, ...]]:
    """The shape of each module's weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, own in parts.items():
        shape = shards.spec(name).shape
        for part in own:
            shapes[part.module] = shape if part.rows is None else (len(part.rows), *shape[1:])
    return shapes


def refuse_other_base(card: RunCard | None, base: Path, adapter: Path) -> None:
    """ExportError when the card's fingerprint is not that of `base`."""
    wanted = card.base_weights.get("sha256") if card else None
    if card and wanted and load.fingerprint(base).get("sha256") != wanted:
        raise ExportError(
            f"The adapter {adapter} was trained on {card.base_model}, whose weights are not those "
            f"of {base}: on them it would say nonsense. Give the base that it was trained on."
        )


def refuse_misfit(
    pairs: Mapping[str, Lora],
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


def refuse_tied(pairs: Mapping[str, Lora], config: Any, base: Path, adapter: Path) -> None:
    """ExportError when a merge would change embeddings and head, and the adapter only one."""
    ends = [module for module in pairs if module.rpartition(".")[2] in _ENDS]
    if ends and getattr(config, "tie_word_embeddings", False):
        raise ExportError(
            f"{base} uses one tensor for embeddings and head, and the adapter {adapter} changes "
            f"only {ends[0]}: merged, it would change both. Keep this adapter unmerged."
        )
