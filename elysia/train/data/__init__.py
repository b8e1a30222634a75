"""The data of a run: rows as packs, their order, micro-batches and their parts."""

from elysia.train.data.dataset import EpochSampler, PackedDataset, collate_flat, collate_padded

__all__ = ["EpochSampler", "PackedDataset", "collate_flat", "collate_padded"]
