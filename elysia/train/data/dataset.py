"""The rows of a run as packs, and the order in which each process sees them.

A pack is one or more whole samples that lie end to end; the two samples of a preference pair lie side by side
in one pack. Packs are made once; each epoch shuffles them by (seed, epoch), so any place in the data is
reached in constant time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from elysia.compat.xtuner.map_functions import (
    is_function_path,
    load_map_function,
    load_pair_function,
)
from elysia.core.errors import DataError
from elysia.data.packing import pack_best_fit
from elysia.data.sources import compute_repeats
from elysia.data.tokenize.arrays import TokenizedSource, select_samples
from elysia.data.tokenize.encoder import IGNORE
from elysia.data.tokenize.sample_tokenizer import Overlong, TokenizeOptions
from elysia.data.tokenize.source_tokenizer import tokenize_source
from elysia.models import loading
from elysia.models.chat_format import load_template
from elysia.train.distributed.sequence_parallel import data_parallel_rank

log = logging.getLogger(__name__)
Pack = dict[str, Any]


class PackedDataset(Dataset[Pack]):
    """The training rows (`split="train"`) or the held-out ones (`split="heldout"`).

    Args:
        sources: dicts of path, format, repeat, limit, … (data/sources.py).
        tokenizer: folder or name of the base model; `hub` says where names are looked up.
        eos_token: what ends a sample, in place of the tokenizer's own.
        template: name of a prompt template, or its fields; `system` goes before rows without one.
        max_length: tokens of a pack, and the longest sample; `overlong` as in `data.tokenize`.
        heldout: rows (from 1 on) or share of rows (below 1) that are never trained on.
        pack: False makes every sample a pack of its own.
        train_on_prompt: True learns every token, as in pre-training.
        pairs: rows are preference pairs; packs hold chosen and rejected samples alternating.
        cache: GB of tokens to cache on disk (data/tokenize/token_cache.py); 0: none.
        processes: how many tokenize; 0: as many as are worth it (data/tokenize/tokenize_source.py).

    `reference` holds, where it was set, what a reference model gives to each pair, (pairs, 2).
    """

    def __init__(
        self,
        sources: list[dict[str, Any]],
        tokenizer: str,
        template: str | dict[str, Any],
        *,
        eos_token: str = "",
        hub: str = "huggingface",
        system: str = "",
        max_length: int = 2048,
        overlong: Overlong = "error",
        train_on_prompt: bool = False,
        heldout: float = 0.0,
        split: str = "train",
        pack: bool = True,
        seed: int = 0,
        pairs: bool = False,
        cache: float = 0,
        processes: int = 0,
    ) -> None:
        self.tokenizer = loading.load_tokenizer(
            loading.resolve_model(tokenizer, hub, weights=False)
        )
        loading.set_eos_token(self.tokenizer, eos_token)
        self.template = load_template(template)
        options = TokenizeOptions(self.template, max_length, system, overlong, pairs)
        parts = [
            _read_source(source, options, self.tokenizer, seed, cache, processes)
            for source in sources
        ]
        rows = _split_rows(sources, [len(part) for part in parts], heldout, split, seed)
        self.rows = sum(map(len, rows))  # or pairs; repeats counted, before any is left out
        self.reference: torch.Tensor | None = None
        self.tokens = select_samples(parts, rows, max_length, overlong)
        if train_on_prompt:  # here, so that every count of learned tokens includes it
            self.tokens = self.tokens.with_all_labels()
        self.group_size = 2 if pairs else 1  # samples that stay together
        lengths = [int(n) for n in self.tokens.lengths.reshape(-1, self.group_size).sum(1)]
        # Of groups: group i is `group_size` samples from sample i * group_size on.
        self.packs = (
            pack_best_fit(lengths, max_length, seed) if pack else [[i] for i in range(len(lengths))]
        )

    def __len__(self) -> int:
        return len(self.packs)

    def pack_lengths(self) -> NDArray[np.int64]:
        """Tokens of each pack."""
        lengths = self.tokens.lengths.reshape(-1, self.group_size).sum(1)
        return np.array([lengths[pack].sum() for pack in self.packs], dtype=np.int64)

    def __getitem__(self, index: int) -> Pack:
        """ids, labels (int64 arrays) and the samples' lengths; of pairs also how many are learned and their
        reference. `~i` is a dummy pack: pack i without labels. It keeps processes in step where their number
        does not divide the packs."""
        is_dummy = index < 0
        groups = self.packs[~index if is_dummy else index]
        size = self.group_size
        samples = [group * size + offset for group in groups for offset in range(size)]
        ids, labels = zip(*(self.tokens[i] for i in samples), strict=True)
        pack_labels = np.concatenate(labels).astype(np.int64)
        lengths = [len(part) for part in ids]
        # The token before a sample's first one is of another sample and must not predict it.
        pack_labels[np.cumsum([0, *lengths[:-1]])] = IGNORE
        if is_dummy:
            pack_labels[:] = IGNORE
        pack_ids = np.concatenate(ids).astype(np.int64)
        pack = {"ids": pack_ids, "labels": pack_labels, "lengths": lengths}
        if size == 2:
            pack["pairs"] = 0 if is_dummy else len(groups)
            if self.reference is not None:
                pack["reference"] = self.reference[groups]
        return pack


def _read_source(
    source: dict[str, Any],
    options: TokenizeOptions,
    tokenizer: Any,
    seed: int,
    cache: float,
    processes: int,
) -> TokenizedSource:
    """A source's tokens; its format may be a map function of the user's own."""
    name = source["format"]
    load: Any = load_pair_function if options.pairs else load_map_function
    function = load(name) if is_function_path(name) else None
    return tokenize_source(
        source, options, tokenizer, function, seed=seed, cache=cache, processes=processes
    )


def _split_rows(
    sources: list[dict[str, Any]], counts: list[int], heldout: float, split: str, seed: int
) -> list[NDArray[np.int64]]:
    """Row numbers of each source that are in `split`; those of training are repeated as `repeat` and
    `weight` say."""
    by_source = []
    for source, count in zip(sources, counts, strict=True):
        order = np.random.default_rng(seed).permutation(count)
        cut = round(count * heldout) if heldout < 1 else round(heldout / len(sources))
        if cut >= count:
            raise DataError(
                "train.heldout_takes_all", path=source["path"], heldout=f"{heldout:g}", rows=count
            )
        by_source.append(np.sort(order[:cut] if split == "heldout" else order[cut:]))
    if split == "heldout":
        return by_source
    repeats = compute_repeats(sources, [len(rows) for rows in by_source])
    return [_repeat_rows(rows, times, seed) for rows, times in zip(by_source, repeats, strict=True)]


def _repeat_rows(rows: NDArray[np.int64], times: float, seed: int) -> NDArray[np.int64]:
    """`rows` repeated by the whole part of `times`, and a random share of them for its fraction."""
    part = round(len(rows) * (times - int(times)))
    drawn = np.random.default_rng(seed).permutation(len(rows))[:part]
    return np.concatenate([np.tile(rows, int(times)), rows[np.sort(drawn)]])


class EpochSampler(Sampler[int]):
    """Indices of this process's packs in one epoch, from any place on.

    Every process gets the same number of micro-batches; missing packs are dummies (`~i`).
    With `by_length`, packs of like length lie in one micro-batch (XTuner's LengthGroupedSampler):
    runs of the drawn order are sorted, and the micro-batches drawn again.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int = 0,
        shuffle: bool = True,
        batch_size: int = 1,
        by_length: bool = False,
        sequence_parallel_size: int = 1,
    ) -> None:
        from mmengine.dist import get_dist_info

        self.size: int = len(dataset)
        self.seed, self.shuffle = seed, shuffle
        self.batch_size = batch_size
        self.lengths = dataset.pack_lengths() if by_length else None
        self.rank: int
        self.world: int
        # Processes that share a row count as one.
        self.rank, self.world = data_parallel_rank(sequence_parallel_size, *get_dist_info())
        self.epoch = self.start = 0

    def __len__(self) -> int:
        """Indices of a whole epoch for one process, a multiple of `batch_size`."""
        at_once = self.world * self.batch_size
        return -(-self.size // at_once) * self.batch_size

    def seek(self, epoch: int, start: int) -> None:
        """Begin the next iteration at micro-batch `start` of `epoch`."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.size)
        draw = np.random.default_rng((self.seed, self.epoch))
        if self.shuffle:
            order = draw.permutation(self.size)
        if self.lengths is not None:
            order = _sort_by_length(order, self.lengths, self.world * self.batch_size, draw)
        missing = len(self) * self.world - self.size
        full = np.concatenate([order, ~np.resize(order, missing)])
        mine = full.reshape(-1, self.world, self.batch_size)[self.start :, self.rank]
        yield from (int(i) for i in mine.ravel())


def _sort_by_length(
    order: NDArray[np.int64], lengths: NDArray[np.int64], at_once: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """`order` sorted by length within runs of some batches, whole batches in an order drawn anew.

    `at_once` is the packs that all processes take at once. A run is 50 batches, or a quarter of a
    small set, as in XTuner: longer ones would put the same packs together in every epoch.
    """
    run = max(1, min(len(order) // (at_once * 4), 50)) * at_once
    runs = [order[start : start + run] for start in range(0, len(order), run)]
    ordered = np.concatenate([part[np.argsort(-lengths[part], kind="stable")] for part in runs])
    whole = len(ordered) // at_once * at_once  # the rest stays last, filled up with dummies
    batches = ordered[:whole].reshape(-1, at_once)
    return np.concatenate([batches[draw.permutation(len(batches))].ravel(), ordered[whole:]])


def collate_flat(packs: Sequence[Pack]) -> dict[str, Any]:
    """One row of all samples end to end: ids, labels, positions (1, t) and the samples' lengths."""
    lengths = [n for pack in packs for n in pack["lengths"]]
    positions = np.concatenate([np.arange(n) for n in lengths])
    return {
        "input_ids": torch.from_numpy(np.concatenate([p["ids"] for p in packs]))[None],
        "labels": torch.from_numpy(np.concatenate([p["labels"] for p in packs]))[None],
        "position_ids": torch.from_numpy(positions)[None],
        "segments": lengths,
        **_collate_pairs(packs),
    }


def collate_padded(packs: Sequence[Pack], pad_id: int = 0) -> dict[str, Any]:
    """A row per sample, padded at the end: ids, labels, attention_mask (b, t). For models whose
    attention is not transformers' shared one."""
    ids: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    for pack in packs:
        ids += torch.from_numpy(pack["ids"]).split(pack["lengths"])
        labels += torch.from_numpy(pack["labels"]).split(pack["lengths"])
    pad = torch.nn.utils.rnn.pad_sequence
    mask = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": pad(ids, batch_first=True, padding_value=pad_id),
        "labels": pad(labels, batch_first=True, padding_value=IGNORE),
        "attention_mask": pad(mask, batch_first=True),
        **_collate_pairs(packs),
    }


def _collate_pairs(packs: Sequence[Pack]) -> dict[str, Any]:
    """What packs of pairs carry beside tokens."""
    fields: dict[str, Any] = {}
    if "pairs" in packs[0]:
        fields["pairs"] = sum(pack["pairs"] for pack in packs)
    if "reference" in packs[0]:
        fields["reference"] = torch.cat([pack["reference"] for pack in packs])
    return fields
