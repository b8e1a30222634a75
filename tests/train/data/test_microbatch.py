import itertools

import pytest
import torch

from elysia.core.errors import DeviceError
from elysia.train.config.settings import build_settings
from elysia.train.data import microbatch
from elysia.train.data.dataset import PackedDataset, collate_flat, collate_padded
from elysia.train.launch import build_runner


def packs(rows_file, tokenizer, **kwargs):
    data = PackedDataset(
        [{"path": str(rows_file), "format": kwargs.pop("format", "xtuner")}],
        str(tokenizer), "internlm2_chat", max_length=512, **kwargs,
    )  # fmt: skip
    return [data[0], data[1]]


@pytest.mark.parametrize("collate", [collate_flat, collate_padded])
@pytest.mark.parametrize("parts", [2, 3, 1000])
def test_pieces_hold_every_token_once_in_order(rows_file, tiny_tokenizer, collate, parts):
    batch = collate(packs(rows_file, tiny_tokenizer))
    pieces = microbatch.split_evenly(batch, parts)
    assert len(pieces) == min(parts, microbatch.count_groups(batch))
    axis = 1 if "segments" in batch else 0
    for name, whole in batch.items():
        if name == "segments":
            assert [n for piece in pieces for n in piece[name]] == whole
        else:
            assert torch.equal(torch.cat([piece[name] for piece in pieces], axis), whole)


def test_a_cpu_takes_whole_samples_as_far_as_there_is_room(rows_file, tiny_tokenizer):
    batch = collate_flat(packs(rows_file, tiny_tokenizer))
    pieces = microbatch.split_by_tokens(batch, 150)
    assert (
        len(pieces) > 2 and [n for piece in pieces for n in piece["segments"]] == batch["segments"]
    )
    for piece in pieces:
        assert sum(piece["segments"]) <= 150 or len(piece["segments"]) == 1
        assert piece["input_ids"].shape[1] == sum(piece["segments"])
    for name in ("input_ids", "labels", "position_ids"):
        assert torch.equal(torch.cat([piece[name] for piece in pieces], 1), batch[name])
    assert microbatch.split_by_tokens(batch, 10**6) == [batch]
    padded = collate_padded(packs(rows_file, tiny_tokenizer))
    assert microbatch.split_by_tokens(padded, 150) == [padded]


def test_pairs_stay_together_and_dummy_ones_do_not_count(pairs_file, tiny_tokenizer):
    first, second = packs(pairs_file, tiny_tokenizer, format="preference_sharegpt", pairs=True)
    count = first["pairs"]
    second = {**second, "pairs": 0, "labels": second["labels"] * 0 - 100}
    pieces = microbatch.split_evenly(collate_flat([first, second]), 10**6)
    assert [len(piece["segments"]) for piece in pieces] == [2] * len(pieces)
    assert [piece["pairs"] for piece in pieces] == [1] * count + [0] * (len(pieces) - count)


@pytest.fixture
def loop(plain_settings, tmp_path):
    """A loop ready to step, without dropout; and the first step's window."""
    settings = build_settings(plain_settings | {"lora_dropout": 0.0}, "here")
    runner = build_runner(settings, "x", tmp_path / "x")
    runner.build()
    runner.model = runner.strategy.model  # as `train` does
    runner.model.train()
    with torch.no_grad():
        for name, parameter in runner.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    yield runner.train_loop, list(itertools.islice(runner.train_dataloader, 2))
    runner.close()


def gradients(loop):
    model = loop.runner.model
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    loop.runner.strategy.drop_gradients()
    return gradients


class _Fails(torch.autograd.Function):
    """Passes values on; its backward runs out of memory."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_that_runs_out_of_memory_is_done_in_halves_with_equal_gradients(
    loop, where, monkeypatch, caplog
):
    loop, window = loop
    summed, _ = loop._compute_gradients(window, 0.01)
    whole = gradients(loop)
    forward, room = loop.runner.model.forward, window[1]["input_ids"].numel()

    def short_of_memory(batch):
        # The second micro-batch of the step: the first one's gradients are there already.
        if batch["input_ids"].numel() < room or batch is window[0]:
            return forward(batch)
        if where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return _Fails.apply(forward(batch))

    warnings = []
    monkeypatch.setattr(loop.runner.model, "forward", short_of_memory)
    monkeypatch.setattr(
        loop.runner.logger, "warning", lambda text, *args: warnings.append(text % args)
    )
    again, _ = loop._compute_gradients(window, 0.01)
    assert loop.parts == 2 and "2 parts" in warnings[0]
    assert again == pytest.approx(summed, rel=1e-5)
    halved = gradients(loop)
    assert halved.keys() == whole.keys() and any(g.abs().max() > 1e-4 for g in whole.values())
    for name, grad in whole.items():
        torch.testing.assert_close(halved[name], grad, rtol=1e-4, atol=1e-6)


def test_when_nothing_is_left_to_halve_the_sentence_says_what_to_change(loop, monkeypatch):
    loop, window = loop

    def never(batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loop.runner.model, "forward", never)
    monkeypatch.setattr(loop.runner.logger, "warning", lambda *args: None)
    with pytest.raises(DeviceError, match="Lower max_length"):
        loop._compute_gradients(window, 1.0)
    assert loop.parts == max(map(microbatch.count_groups, window))
    monkeypatch.setattr(loop.runner.strategy, "supports_retry", False)
    with pytest.raises(DeviceError, match="exchange gradients"):
        loop._compute_gradients(window, 1.0)
