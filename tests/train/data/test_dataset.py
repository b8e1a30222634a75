import json

import numpy as np
import pytest

from elysia.core.errors import DataError
from elysia.train.data.dataset import EpochSampler, PackedDataset, collate_flat


class Sized:
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n


def sampler(n, batch_size=1, world=1, rank=0, **kwargs):
    epoch_sampler = EpochSampler(Sized(n), batch_size=batch_size, **kwargs)
    epoch_sampler.world, epoch_sampler.rank = world, rank
    return epoch_sampler


def test_an_epoch_shows_every_pack_once_in_an_order_of_its_own():
    epoch_sampler = sampler(50, seed=3)
    epochs = []
    for epoch in range(3):
        epoch_sampler.seek(epoch, 0)
        epochs.append(list(epoch_sampler))
        assert sorted(epochs[-1]) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2]
    epoch_sampler.seek(1, 0)
    assert list(epoch_sampler) == epochs[1]


def test_any_place_is_reached_without_replaying():
    epoch_sampler = sampler(50, batch_size=2, seed=3)
    epoch_sampler.seek(4, 0)
    whole = list(epoch_sampler)
    epoch_sampler.seek(4, 7)
    assert list(epoch_sampler) == whole[14:]


@pytest.mark.parametrize("n, world, batch", [(10, 3, 1), (7, 2, 2), (8, 2, 2), (1, 4, 2)])
def test_processes_share_the_packs_and_do_equal_work(n, world, batch):
    shares = [list(sampler(n, batch, world, rank)) for rank in range(world)]
    assert len({len(s) for s in shares}) == 1
    assert len(shares[0]) == len(sampler(n, batch, world))
    real = [i for share in shares for i in share if i >= 0]
    assert sorted(real) == list(range(n))
    assert all(0 <= ~i < n for share in shares for i in share if i < 0)


@pytest.fixture
def dialogues(tiny_internlm2, rows_file):
    def build(**kwargs):
        sources = [{"path": str(rows_file), "format": "xtuner", "repeat": 1, "limit": None}]
        return PackedDataset(
            kwargs.pop("sources", sources),
            str(tiny_internlm2),
            "internlm2_chat",
            max_length=256,
            **kwargs,
        )

    return build


def test_packs_hold_every_sample_whole_and_once(dialogues):
    data = dialogues()
    assert sorted(i for pack in data.packs for i in pack) == list(range(24))
    for index, pack in enumerate(data.packs):
        item = data[index]
        assert len(item["ids"]) == sum(item["lengths"]) <= 256
        start = 0
        for sample, n in zip(pack, item["lengths"], strict=True):
            assert np.array_equal(item["ids"][start : start + n], data.tokens[sample][0])
            start += n


def test_no_sample_is_predicted_from_the_one_before_it(dialogues):
    data = dialogues()
    batch = collate_flat([data[0], data[1]])
    starts = np.cumsum([0, *batch["segments"][:-1]])
    assert (batch["labels"][0, starts] == -100).all()
    assert (batch["position_ids"][0, starts] == 0).all()


def test_training_on_the_prompt_learns_every_token_but_the_first_of_a_sample(dialogues):
    data = dialogues(train_on_prompt=True)
    item = data[0]
    starts = np.cumsum([0, *item["lengths"][:-1]])
    learned = np.ones(len(item["ids"]), dtype=bool)
    learned[starts] = False
    assert np.array_equal(item["labels"][learned], item["ids"][learned])
    assert (item["labels"][starts] == -100).all()


def test_a_dummy_pack_teaches_nothing(dialogues):
    data = dialogues()
    assert np.array_equal(data[~2]["ids"], data[2]["ids"])
    assert (data[~2]["labels"] == -100).all() and (data[2]["labels"] != -100).any()


@pytest.mark.parametrize("heldout, expected", [(0.25, 6), (5, 5)])
def test_held_out_rows_are_never_trained_on(dialogues, heldout, expected):
    train, held = (dialogues(heldout=heldout, split=s, seed=7) for s in ("train", "heldout"))
    assert len(held.tokens) == expected
    assert len(train.tokens) + len(held.tokens) == 24
    assert not set(train.tokens.origin) & set(held.tokens.origin)


def test_repeats_are_made_after_the_split(dialogues, rows_file):
    sources = [{"path": str(rows_file), "format": "xtuner", "repeat": 3, "limit": 12}]
    train = dialogues(sources=sources, heldout=2)
    held = dialogues(sources=sources, heldout=2, split="heldout")
    assert (len(train.tokens), len(held.tokens)) == (30, 2)
    assert not set(train.tokens.origin) & set(held.tokens.origin)


def test_weights_mix_sources_after_the_split_and_the_same_each_time(dialogues, rows_file, tmp_path):
    general = tmp_path / "general.json"
    general.write_text(rows_file.read_text(encoding="utf-8"), encoding="utf-8")
    sources = [
        {"path": str(rows_file), "format": "xtuner", "weight": 0.8},
        {"path": str(general), "format": "xtuner", "weight": 0.2},
    ]
    datasets = [dialogues(sources=sources, heldout=0.25, split="train") for _ in range(2)]
    rows = [list(data.tokens.origin) for data in datasets]
    assert rows[0] == rows[1]
    hers = sum(file == str(rows_file) for file, _ in rows[0])
    assert (hers, len(rows[0]) - hers) == (18, 4)  # 18 rows are trained on; 18 * 0.2 / 0.8
    held = dialogues(sources=sources, heldout=0.25, split="heldout")
    assert not set(rows[0]) & set(held.tokens.origin)


def test_holding_everything_out_is_refused(dialogues):
    with pytest.raises(DataError, match="leaves none"):
        dialogues(heldout=24)


def test_a_long_document_is_divided_so_that_every_token_is_learned_once(
    dialogues, shared_data, tmp_path
):
    text = (shared_data / "instruct" / "lf_wiki_demo.txt").read_text(encoding="utf-8")
    path = tmp_path / "wiki.txt"
    path.write_text("\n".join(text.splitlines()[:4])[:60_000], encoding="utf-8")
    source = {"path": str(path), "format": "pretrain", "repeat": 1, "limit": None}
    data = dialogues(sources=[source], system="Never said.")
    assert max(data.tokens.lengths) == 256 and len(data.tokens) > 20
    tokenizer = data.tokenizer
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        pieces = [
            data.tokens[i] for i, (_, origin) in enumerate(data.tokens.origin) if origin == row
        ]
        whole = [*pieces[0][0], *(token for ids, _ in pieces[1:] for token in ids[1:])]
        assert whole[0] == tokenizer.bos_token_id and whole[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(whole[1:-1]) == line.strip()
        learned = [label for _, labels in pieces for label in labels if label != -100]
        assert learned == [int(i) for i in whole[1:]]
    packed = sum(int((data[i]["labels"] != -100).sum()) for i in range(len(data)))
    assert packed == int(data.tokens.labelled.sum())


def test_a_document_is_divided_even_where_rows_are_truncated(dialogues, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("很久以前，山里有一座庙。" * 200, encoding="utf-8")
    source = {"path": str(path), "format": "pretrain", "repeat": 1, "limit": None}
    data = dialogues(sources=[source], overlong="truncate")
    assert len(data.tokens) > 2 and data.tokens.cut == 0
    joined = [*data.tokens[0][0], *(i for ids, _ in list(data.tokens)[1:] for i in ids[1:])]
    assert data.tokenizer.decode(joined[1:-1]) == path.read_text(encoding="utf-8")


def test_pairs_come_from_folders_with_columns_renamed_and_a_share_repeated(
    dialogues, pairs_file, tmp_path
):
    rows = json.loads(pairs_file.read_text(encoding="utf-8"))
    renamed = [{"talk" if key == "conversations" else key: row[key] for key in row} for row in rows]
    for name, part in (("a", renamed[:10]), ("b", renamed[10:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    source = {
        "path": str(tmp_path), "format": "preference_sharegpt", "repeat": 1.5, "limit": None,
        "columns": {"talk": "conversations"},
    }  # fmt: skip
    data = dialogues(sources=[source], pairs=True)
    assert len(data.tokens) == 54
    assert set(data.tokens.origin) == {
        (str(tmp_path / f"{name}.json"), row)
        for name, count in (("a", 10), ("b", 8))
        for row in range(1, count + 1)
    }
    expected = [sum(data[i]["lengths"]) for i in range(len(data))]
    assert data.pack_lengths().tolist() == expected
    order = list(EpochSampler(data, batch_size=2, by_length=True))
    assert sorted(i for i in order if i >= 0) == list(range(len(data)))
