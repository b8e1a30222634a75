"""Reward models: trained, converted, merged and proved; the numbers are those of transformers' own class."""

import json
import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from elysia.core.errors import CheckpointError, ConfigError
from elysia.export.adapter import find_checkpoint, pth_to_hf
from elysia.export.merge import merge_adapter
from elysia.export.verify_merge import verify_merge
from elysia.models import loading
from elysia.train.checkpoint import load_weights
from elysia.train.config.builder import build_dataset_config
from elysia.train.config.settings import build_settings, load_settings
from elysia.train.data.dataset import PackedDataset, collate_flat, collate_padded
from elysia.train.launch import train
from elysia.train.methods.reward import RewardFinetune, reward_losses, reward_regularization

LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def build(folder, adapter=LORA, bits=None, **kwargs):
    torch.manual_seed(0)
    llm = {"path": str(folder), "bits": bits}
    return RewardFinetune(llm=llm, adapter=adapter, device="cpu", **kwargs)


@pytest.fixture
def reward_settings(pair_settings):
    return pair_settings | {"objective": "reward", "max_epochs": 4, "heldout": 4, "lr": 5e-3}


@pytest.fixture
def data(reward_settings, tiny_internlm2):
    settings = build_settings(reward_settings, "c")
    return PackedDataset(**build_dataset_config(settings, str(tiny_internlm2)))


def plain_rewards(model, data, pack):
    """(pairs, 2) of transformers' own forward, each text alone."""
    texts = [torch.from_numpy(data.tokens[2 * p + half][0]).long()
             for p in data.packs[pack] for half in (0, 1)]  # fmt: skip
    return torch.cat([model(input_ids=t[None], use_cache=False).logits for t in texts]).view(-1, 2)


@pytest.mark.parametrize("fixture", ["tiny_internlm2", "tiny_llama"])
@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_the_loss_is_that_of_transformers_own_rewards(fixture, adapter, request, data):
    model = build(request.getfixturevalue(fixture), adapter).train()
    actual = model(collate_flat([data[0]]))
    rewards = plain_rewards(model.causal, data, 0)
    expected = -torch.log(torch.sigmoid(rewards[:, 0] - rewards[:, 1])).sum()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert model.metrics["rewards/accuracies"] == float((rewards[:, 0] > rewards[:, 1]).sum())
    actual.backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    heads = [grad for name, grad in trained.items() if "score" in name]
    assert len(heads) == 1 and heads[0].abs().max() > 0 and len(trained) > 10


REWARDS = ((2.0, -1.0), (0.3, 0.2), (-1.0, 1.5), (7.0, -6.0))


def test_the_focal_loss_and_its_gradient_are_those_of_the_formula():
    rewards = torch.tensor(REWARDS[:3], dtype=torch.float64, requires_grad=True)
    focal = reward_losses(rewards, "focal")
    for loss, (good, bad) in zip(focal.tolist(), REWARDS, strict=False):
        p = 1 / (1 + math.exp(bad - good))
        assert loss == pytest.approx(-((1 - 2 * max(0, p - 0.5)) ** 2) * math.log(p))
    # A pair that stands the wrong way round is weighed in full.
    assert float(focal[2].detach()) == float(reward_losses(rewards.detach())[2])
    assert torch.autograd.gradcheck(lambda r: reward_losses(r, "focal"), rewards)


def test_penalties_are_those_of_the_formula_and_finite_past_the_barrier():
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    barrier, squares = (
        reward_regularization(rewards, "log_barrier"),
        reward_regularization(rewards, "l2"),
    )
    for actual, square, pair in zip(barrier.tolist(), squares.tolist(), REWARDS, strict=True):
        inside = [max(-4.999, min(4.999, r)) for r in pair]
        assert actual == pytest.approx(-sum(math.log(5 - r) + math.log(5 + r) for r in inside))
        assert square == pytest.approx(sum(r * r for r in pair))
    assert reward_regularization(rewards, "none").tolist() == [0, 0, 0, 0]


def test_loss_and_penalty_are_what_the_settings_say(tiny_llama, data):
    objective = {"loss_type": "focal", "penalty": "l2", "penalty_weight": 0.5}
    model = build(tiny_llama, objective=objective)
    rewards = plain_rewards(model.causal, data, 0)
    expected = reward_losses(rewards, "focal").sum() + 0.5 * rewards.square().sum()
    torch.testing.assert_close(model(collate_flat([data[0]])), expected, rtol=1e-4, atol=1e-5)
    assert model.metrics["penalty"] == pytest.approx(
        float(rewards.detach().square().sum()), rel=1e-4
    )


def test_packed_padded_and_beside_a_dummy_pack_it_is_the_same(tiny_internlm2, data):
    flat, padded = build(tiny_internlm2), build(tiny_internlm2, attention="sdpa")
    expected = flat(collate_flat([data[0]]))
    torch.testing.assert_close(padded(collate_padded([data[0]], 0)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flat(collate_flat([data[0], data[~1]])), expected)
    dummy = flat(collate_flat([data[~1]]))
    dummy.backward()
    assert float(dummy.detach()) == 0


@pytest.mark.parametrize(("method", "choice"), [("lora", "original"), ("qlora", "as-trained")])
def test_a_trained_reward_is_converted_merged_proved_and_loaded_by_transformers(
    tmp_path, reward_settings, tiny_internlm2, data, method, choice
):
    path = tmp_path / "reward.py"
    settings = reward_settings | {"method": method}
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    assert train(str(path), work_dir=str(tmp_path / "w")) == 0
    adapter = pth_to_hf(load_settings(path), tmp_path / "w", tmp_path / "adapter")
    merge_adapter(tiny_internlm2, adapter, tmp_path / "merged", device="cpu", base_weights=choice)
    proof = verify_merge(
        tiny_internlm2, adapter, tmp_path / "merged", ["你好", "What?"], device="cpu"
    )
    assert proof.max_diff < 1e-3
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert type(merged).__name__ == "InternLM2ForSequenceClassification"
    assert merged.config.num_labels == 1
    names = json.loads((adapter / "adapter_config.json").read_text())
    assert names["task_type"] == "SEQ_CLS" and names["modules_to_save"] == ["score"]
    with torch.no_grad():
        actual = plain_rewards(merged.eval(), data, 0)
        if method == "lora":
            base = loading.load_reward_model(tiny_internlm2, dtype="float32", device="cpu")
            wrapped = PeftModel.from_pretrained(base, str(adapter)).eval()
            torch.testing.assert_close(
                plain_rewards(wrapped, data, 0), actual, rtol=1e-3, atol=1e-3
            )
    assert (actual[:, 0] > actual[:, 1]).float().mean() > 0.7


def test_a_fully_tuned_reward_model_is_written_for_transformers(
    tmp_path, reward_settings, tiny_llama, data
):
    path = tmp_path / "reward.py"
    settings = reward_settings | {"method": "full", "lr": 1e-3, "max_epochs": 1}
    settings |= {"pretrained_model_name_or_path": str(tiny_llama)}
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    assert train(str(path), work_dir=str(tmp_path / "w")) == 0
    out = pth_to_hf(load_settings(path), tmp_path / "w", tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    assert type(model).__name__ == "LlamaForSequenceClassification"
    trained = load_weights(find_checkpoint(tmp_path / "w"))["score.weight"]
    torch.testing.assert_close(model.score.weight.detach(), trained)
    other = load_settings(path, {"objective": "dpo"})
    with pytest.raises(CheckpointError, match="no checkpoint of the config's base model"):
        pth_to_hf(other, tmp_path / "w", tmp_path / "other")


def test_a_reward_model_is_not_asked_for_replies(reward_settings):
    with pytest.raises(ConfigError, match="gives numbers"):
        build_settings(reward_settings | {"evaluation_inputs": ["你好"]}, "c")
