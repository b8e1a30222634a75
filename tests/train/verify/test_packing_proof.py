"""The proof of packing: it holds where samples are kept apart, and fails where they are not."""

import numpy as np
import pytest

from elysia.core.errors import DataError
from elysia.train.config.settings import Settings
from elysia.train.data import dataset
from elysia.train.methods import sft
from elysia.train.verify.packing_proof import get_checked_dtypes, verify_packing


@pytest.mark.parametrize(
    "changes", [{"method": "lora"}, {"method": "full"}, {"dtype": "bfloat16"}], ids=str
)
def test_packed_samples_learn_as_each_alone(tmp_path, plain_settings, changes):
    settings = Settings(**plain_settings | {"neftune_noise_alpha": 5.0} | changes)
    proof = verify_packing(settings, settings.dtype, tmp_path, packs=2)
    assert proof.holds
    assert proof.packs == 2 and proof.samples > 4
    assert proof.tensors == (28 if settings.method == "lora" else 21)


@pytest.mark.parametrize("changes", [{"method": "qlora"}, {"method": "full"}], ids=str)
def test_packed_pairs_learn_as_each_alone(tmp_path, pair_settings, changes):
    settings = Settings(**pair_settings | changes)
    proof = verify_packing(settings, "float32", tmp_path, packs=2)
    assert proof.holds and proof.samples % 2 == 0


def test_a_leak_between_samples_is_found(tmp_path, plain_settings, monkeypatch):
    isolated = sft._pad_flat_batch

    def leaking(tensors, labels, batch, step):
        joined = batch | {"segments": [labels.shape[1]]}
        return isolated(tensors, labels, joined, step)

    monkeypatch.setattr(sft, "_pad_flat_batch", leaking)
    proof = verify_packing(Settings(**plain_settings), "float32", tmp_path, packs=2)
    assert not proof.holds
    assert proof.gradient > 10 * proof.tolerance[1]


def test_a_token_lost_in_packing_is_found(tmp_path, plain_settings, monkeypatch):
    fetched = dataset.PackedDataset.__getitem__

    def losing(self, index):
        pack = fetched(self, index)
        if len(pack["lengths"]) > 1:
            pack["labels"][np.flatnonzero(pack["labels"] != -100)[-1]] = -100
        return pack

    monkeypatch.setattr(dataset.PackedDataset, "__getitem__", losing)
    assert not verify_packing(Settings(**plain_settings), "float32", tmp_path, packs=2).holds


def test_packs_of_one_sample_prove_nothing(tmp_path, plain_settings, monkeypatch):
    monkeypatch.setattr(
        dataset, "pack_best_fit", lambda lengths, *_: [[i] for i in range(len(lengths))]
    )
    with pytest.raises(DataError, match="holds two samples, so there is nothing to compare"):
        verify_packing(Settings(**plain_settings), "float32", tmp_path)


def test_float32_and_the_configs_own_format_are_compared(plain_settings):
    assert get_checked_dtypes(Settings(**plain_settings)) == ["float32"]
    assert get_checked_dtypes(Settings(**plain_settings | {"dtype": "bfloat16"})) == [
        "float32",
        "bfloat16",
    ]
