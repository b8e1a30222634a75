"""DPO and ORPO against a plain implementation: one padded sample at a time, full logits, their own formulas."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from elysia.core.errors import ConfigError
from elysia.export.adapter import pth_to_hf
from elysia.export.merge import merge_adapter
from elysia.export.verify_merge import verify_merge
from elysia.train.config.settings import build_settings, load_settings
from elysia.train.data.dataset import collate_flat, collate_padded
from elysia.train.launch import train
from elysia.train.methods.preference import PreferenceFinetune, dpo_losses, orpo_losses

LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}
DPO = {"kind": "dpo", "beta": 0.3, "loss_type": "sigmoid", "label_smoothing": 0.0}
ORPO = {"kind": "orpo", "weight": 0.4}


def build(folder, objective=DPO, adapter=LORA, bits=None, trained=True, **kwargs):
    torch.manual_seed(0)
    model = PreferenceFinetune(
        objective=objective,
        llm={"path": str(folder), "bits": bits},
        adapter=adapter,
        device="cpu",
        **kwargs,
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if trained and "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    return model


def pack_of(pairs=3, seed=0, dummy=False):
    """`pairs` pairs of random samples, whose first few tokens are the prompt."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(20, 500, n) for n in rng.integers(8, 60, 2 * pairs)]
    labels = [np.where(np.arange(len(row)) < 4, -100, row) for row in ids]
    joined = np.concatenate(labels)
    return {
        "ids": np.concatenate(ids),
        "labels": np.full_like(joined, -100) if dummy else joined,
        "lengths": [len(row) for row in ids],
        "pairs": 0 if dummy else pairs,
    }


def plain_scores(model, pack):
    """(sums, tokens) of log-probabilities, (pairs, 2) each: every sample alone, all logits made."""
    sums, tokens = [], []
    ends = np.cumsum(pack["lengths"])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        ids = torch.from_numpy(pack["ids"][start:end])[None]
        labels = torch.from_numpy(pack["labels"][start:end])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        target = labels[1:]
        here = target != -100
        own = logits.log_softmax(-1).gather(1, target.clamp(min=0)[:, None])[:, 0]
        sums.append((own * here).sum())
        tokens.append(here.sum())
    return torch.stack(sums).view(-1, 2), torch.stack(tokens).view(-1, 2)


def plain_dpo(policy, reference, tokens, objective):
    beta, eps = objective["beta"], objective["label_smoothing"]
    total = 0.0
    for p, r, n in zip(policy, reference, tokens, strict=True):
        if objective["loss_type"] == "ipo":
            p, r = p / n, r / n
        h = (p[0] - r[0]) - (p[1] - r[1])
        if objective["loss_type"] == "sigmoid":
            s = 1 / (1 + torch.exp(-beta * h))
            total = total - (1 - eps) * torch.log(s) - eps * torch.log(1 - s)
        elif objective["loss_type"] == "robust":
            s = 1 / (1 + torch.exp(-beta * h))
            total = total - ((1 - eps) * torch.log(s) - eps * torch.log(1 - s)) / (1 - 2 * eps)
        elif objective["loss_type"] == "hinge":
            total = total + torch.clamp(1 - beta * h, min=0)
        else:
            total = total + (h - 0.5 / beta) ** 2
    return total


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def agree(actual, expected, tolerance=2e-4):
    assert actual.keys() == expected.keys() and any(g.abs().max() > 1e-3 for g in expected.values())
    for name, grad in expected.items():
        torch.testing.assert_close(actual[name], grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "objective",
    [
        DPO,
        DPO | {"label_smoothing": 0.2},
        DPO | {"label_smoothing": 0.2, "loss_type": "robust"},
        DPO | {"loss_type": "hinge"},
        DPO | {"loss_type": "ipo"},
    ],
    ids=["sigmoid", "smoothed", "robust", "hinge", "ipo"],
)
@pytest.mark.parametrize("fixture", ["tiny_internlm2", "tiny_llama"])
def test_dpo_loss_and_gradients_are_the_plain_ones(fixture, objective, request):
    model = build(request.getfixturevalue(fixture), objective).train()
    pack = pack_of()
    loss = model(collate_flat([pack]))
    actual = gradients(model, loss)
    with torch.no_grad(), model.llm.disable_adapter():
        reference, _ = plain_scores(model.causal, pack)
    policy, tokens = plain_scores(model.causal, pack)
    expected = plain_dpo(policy, reference, tokens, objective)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    agree(actual, gradients(model, expected))


def test_orpo_loss_and_gradients_are_the_plain_ones(tiny_internlm2):
    model = build(tiny_internlm2, ORPO).train()
    pack = pack_of()
    loss = model(collate_flat([pack]))
    actual = gradients(model, loss)
    policy, tokens = plain_scores(model.causal, pack)
    expected = 0.0
    for mean in policy / tokens:
        p = mean.exp()
        odds = p / (1 - p)
        expected = expected - mean[0] - 0.4 * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    agree(actual, gradients(model, expected))
    assert model.metrics["nll"] == pytest.approx(
        float(-(policy / tokens)[:, 0].sum().detach()), rel=1e-4
    )


@pytest.mark.parametrize("bits", [None, 4])
def test_the_first_loss_of_a_fresh_adapter_is_ln_2_exactly(tiny_internlm2, bits):
    model = build(tiny_internlm2, bits=bits, trained=False, adapter=LORA | {"dropout": 0.1})
    loss = model.train()(collate_flat([pack_of(4)]))
    assert float(loss.detach()) / 4 == pytest.approx(math.log(2), abs=1e-7)
    assert model.metrics == dict.fromkeys(model.metrics, 0.0)


def test_pairs_packed_padded_and_alone_give_the_same_loss_and_gradients(tiny_internlm2):
    packs = [pack_of(2, 0), pack_of(1, 1)]
    flat = build(tiny_internlm2, gradient_checkpointing=True).train()
    together = gradients(flat, flat(collate_flat(packs)))
    agree(together, gradients(flat, flat(collate_flat(packs[:1])) + flat(collate_flat(packs[1:]))))
    padded = build(tiny_internlm2, attention="sdpa").train()
    agree(together, gradients(padded, padded(collate_padded(packs))))


@pytest.mark.parametrize("objective", [DPO, ORPO], ids=["dpo", "orpo"])
def test_a_dummy_pack_adds_nothing_alone_or_beside_a_real_one(tiny_internlm2, objective):
    model = build(tiny_internlm2, objective).train()
    real = model(collate_flat([pack_of(2)]))
    names = set(model.metrics)
    torch.testing.assert_close(model(collate_flat([pack_of(2), pack_of(1, 5, dummy=True)])), real)
    alone = model(collate_flat([pack_of(1, 5, dummy=True)]))
    assert all(float(g.abs().max()) == 0 for g in gradients(model, alone).values())
    assert float(alone) == 0 and set(model.metrics) == names  # summed over processes by name


def test_what_is_measured_says_which_reply_is_preferred_and_by_how_much(tiny_internlm2):
    model = build(tiny_internlm2).train()
    pack = pack_of(4)
    model(collate_flat([pack]))
    with torch.no_grad():
        policy, _ = plain_scores(model.causal, pack)
        with model.llm.disable_adapter():
            reference, _ = plain_scores(model.causal, pack)
    rewards = DPO["beta"] * (policy - reference)
    actual = model.metrics
    assert actual["rewards/chosen"] == pytest.approx(float(rewards[:, 0].sum()), abs=1e-4)
    assert actual["rewards/accuracies"] == float((rewards[:, 0] > rewards[:, 1]).sum())
    assert actual["rewards/margins"] == pytest.approx(
        actual["rewards/chosen"] - actual["rewards/rejected"], abs=1e-5
    )


def test_the_reference_leaves_mode_and_randomness_as_they_were(tiny_internlm2):
    model = build(tiny_internlm2, adapter=LORA | {"dropout": 0.5}, neftune_noise_alpha=5.0).train()
    batch = collate_flat([pack_of()])
    torch.manual_seed(3)
    with_reference = model(batch)
    assert model.training and all(
        p.requires_grad for n, p in model.named_parameters() if "lora" in n
    )
    scores = model.eval()(batch, scores_only=True)
    with torch.no_grad(), model.llm.disable_adapter():
        given = batch | {"reference": model(batch, scores_only=True)}
    assert not torch.equal(scores, given["reference"])
    torch.manual_seed(3)
    assert torch.equal(model.train()(given), with_reference)


def test_full_tuning_takes_its_reference_from_the_batch(tiny_internlm2):
    model = build(tiny_internlm2, adapter=None).train()
    pack = pack_of()
    before = copy.deepcopy(model.causal)
    with torch.no_grad():
        reference = model(collate_flat([pack]), scores_only=True)
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    loss = model(collate_flat([pack | {"reference": reference}]))
    expected_reference, _ = plain_scores(before, pack)
    policy, tokens = plain_scores(model.causal, pack)
    expected = plain_dpo(policy, expected_reference.detach(), tokens, DPO)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    actual = gradients(model, loss)
    agree(actual, gradients(model, expected), 1e-3)


def test_losses_of_certain_and_hopeless_replies_are_finite():
    margins = torch.tensor([1e4, -1e4], requires_grad=True)
    for kind in ("sigmoid", "hinge", "ipo"):
        assert torch.isfinite(dpo_losses(margins, 0.1, kind)).all()
    means = torch.tensor([[0.0, -1e3], [-1e3, 0.0]], requires_grad=True)
    losses, _ = orpo_losses(means, 0.1)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(means.grad).all()


def test_log_odds_of_a_half_are_zero():
    half = torch.full((1, 2), math.log(0.5))
    losses, ratio = orpo_losses(half, 1.0)
    assert float(ratio) == 0
    torch.testing.assert_close(losses, -half[:, 0] - F.logsigmoid(torch.zeros(1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_format": "xtuner"}, "format must be one of preference"),
        ({"objective": "sft"}, "format must be one for conversations"),
        ({"dataset_format": "tokens"}, "format must be one of preference"),
        ({"overlong": "truncate"}, "overlong = 'truncate' would remove the replies"),
        ({"objective": "reward", "mmlu_path": "m.json"}, "mmlu_path asks for replies"),
        ({"dpo_beta": 0.0}, "dpo_beta is 0"),
        ({"dpo_label_smoothing": 0.5}, "below 0.5"),
        ({"dpo_label_smoothing": 0.1, "dpo_loss_type": "ipo"}, "goes only with dpo_loss_type"),
        ({"overlong": "cut"}, "would remove the replies"),
        ({"train_on_prompt": True}, "compares replies"),
        ({"objective": "ppo"}, "one of 'sft', 'dpo', 'orpo', 'reward'"),
    ],
)
def test_settings_that_make_no_sense_are_sentences(plain_settings, changes, message):
    values = plain_settings | {"objective": "dpo", "dataset_format": "preference"}
    build_settings(values, "c")
    with pytest.raises(ConfigError, match=message):
        build_settings(values | changes, "c")


@pytest.mark.parametrize("changes", [{"method": "qlora"}, {"objective": "orpo"}], ids=str)
def test_pairs_are_learned_and_leave_an_ordinary_adapter(
    tmp_path, pair_settings, tiny_internlm2, changes
):
    path = tmp_path / "run.py"
    settings = pair_settings | {"max_epochs": 6, "heldout": 4, "use_rslora": True} | changes
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    assert train(str(path), work_dir=str(tmp_path / "w")) == 0
    logged = [json.loads(line) for file in (tmp_path / "w").glob("*/vis_data/scalars.json")
              for line in file.read_text().splitlines()]  # fmt: skip
    steps = [row for row in logged if "rewards/accuracies" in row]
    assert steps[0]["rewards/margins"] < steps[-1]["rewards/margins"]
    assert steps[-1]["rewards/accuracies"] > 0.9
    heldout = [row["heldout_rewards/accuracies"] for row in logged if "heldout_loss" in row]
    assert heldout[-1] >= heldout[0]
    adapter = pth_to_hf(load_settings(path), tmp_path / "w", tmp_path / "adapter")
    merge_adapter(tiny_internlm2, adapter, tmp_path / "merged", device="cpu")
    assert (
        verify_merge(tiny_internlm2, adapter, tmp_path / "merged", ["你好"], device="cpu").follow
        > 0.99
    )
