import numpy as np
import pytest
import torch

from elysia.train.data.dataset import collate_flat, collate_padded
from elysia.train.methods.sft import SupervisedFinetune

LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def build(folder, bits=None, attention="segments", adapter=LORA, **kwargs):
    torch.manual_seed(0)
    model = SupervisedFinetune(
        {"path": str(folder), "bits": bits}, adapter, attention=attention, device="cpu", **kwargs
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # starts at zero, where half of the gradients vanish
            parameter.data.normal_(0, 0.02, generator=generator)
    return model


def samples(lengths=(5, 70, 1, 33)):
    rng = np.random.default_rng(0)
    packs = []
    for n in lengths:
        ids = rng.integers(20, 500, n)
        labels = np.where(rng.random(n) < 0.6, ids, -100)
        labels[0] = -100
        packs.append({"ids": ids, "labels": labels, "lengths": [n]})
    return packs


def together(packs):
    return {
        "ids": np.concatenate([p["ids"] for p in packs]),
        "labels": np.concatenate([p["labels"] for p in packs]),
        "lengths": [p["lengths"][0] for p in packs],
    }


def gradients(model, batches):
    model.zero_grad()
    loss = sum(model(batch) for batch in batches)
    loss.backward()
    return loss.detach(), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad
    }


def agree(first, second, tolerance=1e-5):
    torch.testing.assert_close(first[0], second[0], rtol=tolerance, atol=tolerance)
    for name, grad in first[1].items():
        torch.testing.assert_close(grad, second[1][name], rtol=tolerance, atol=tolerance)
    assert any(grad.abs().max() > 1e-3 for grad in first[1].values())


@pytest.mark.parametrize("fixture", ["tiny_internlm2", "tiny_llama"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_padded_and_single_samples_give_the_same_loss_and_gradients(
    fixture, checkpointing, request
):
    folder = request.getfixturevalue(fixture)
    packs = samples()
    flat = build(folder, gradient_checkpointing=checkpointing).train()
    packed = gradients(flat, [collate_flat([together(packs)])])
    agree(packed, gradients(flat, [collate_flat([p]) for p in packs]))
    agree(packed, gradients(flat, [collate_flat(packs[:2]), collate_flat(packs[2:])]))
    padded = build(folder, attention="sdpa").train()
    agree(packed, gradients(padded, [collate_padded([together(packs)])]))


def test_the_loss_is_that_of_transformers_own_loss_function(tiny_internlm2):
    model = build(tiny_internlm2).eval()
    pack = samples((40,))[0]
    ids, labels = (torch.from_numpy(pack[k])[None] for k in ("ids", "labels"))
    expected = model.causal(input_ids=ids, labels=labels).loss
    count = (labels != -100).sum()
    torch.testing.assert_close(model(collate_flat([pack])) / count, expected, rtol=1e-5, atol=1e-5)


def test_samples_of_a_pack_would_disturb_each_other_without_segments(tiny_internlm2):
    """The check above can fail: one long row of all samples has another loss."""
    model = build(tiny_internlm2).eval()
    packs = samples()
    batch = collate_flat([together(packs)])
    apart = model(batch)
    joined = dict(
        batch,
        segments=[sum(batch["segments"])],
        position_ids=torch.arange(sum(batch["segments"]))[None],
    )
    assert abs(float(apart - model(joined))) > 1e-3


def test_a_dummy_pack_has_no_loss_and_no_gradient_but_can_be_backpropagated(tiny_internlm2):
    pack = samples((12,))[0]
    pack["labels"][:] = -100
    loss, grads = gradients(build(tiny_internlm2).train(), [collate_flat([pack])])
    assert loss == 0 and all(float(g.abs().max()) == 0 for g in grads.values())


def test_an_evaluation_chat_does_not_change_the_gradients_of_nf4_layers(tiny_internlm2):
    model = build(tiny_internlm2, bits=4).train()
    batches = [collate_flat(samples())]
    before = gradients(model, batches)
    model.eval()
    with torch.no_grad():
        ids = torch.arange(20, 30)[None]
        model.llm.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, use_cache=True
        )
    after = gradients(model.train(), batches)
    assert torch.equal(before[0], after[0])
    assert all(torch.equal(before[1][n], after[1][n]) for n in before[1])


def test_only_trainable_weights_are_saved_and_they_come_back(tiny_internlm2):
    model = build(tiny_internlm2)
    state = model.trainable_state()
    assert state and all("lora_" in name and name.startswith("llm.") for name in state)
    other = build(tiny_internlm2)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_trainable_state(state)
    assert all(torch.equal(state[n], p) for n, p in other.named_parameters() if n in state)


def test_weights_of_another_rank_are_refused(tiny_internlm2):
    state = build(tiny_internlm2).trainable_state()
    other = build(tiny_internlm2, adapter=LORA | {"r": 8})
    with pytest.raises(Exception, match="other LoRA settings"):
        other.load_trainable_state(state)


def test_noise_on_embeddings_is_of_the_stated_size_and_only_in_training(tiny_internlm2):
    model = build(tiny_internlm2, neftune_noise_alpha=5.0)
    clean = build(tiny_internlm2)
    batch = collate_flat([together(samples((16, 48)))])
    seen = []
    embedding = model.causal.get_input_embeddings()
    embedding.register_forward_hook(lambda m, a, out: seen.append(out.detach()))
    torch.testing.assert_close(model.eval()(batch), clean.eval()(batch))
    model.train()(batch)
    noise = (seen[1] - seen[0])[0]
    for part, length in ((noise[:16], 16), (noise[16:64], 48)):
        bound = 5 / (length * noise.shape[-1]) ** 0.5
        assert 0.9 * bound < part.abs().max() <= bound * 1.001


def test_full_fine_tuning_trains_every_weight(tiny_internlm2):
    model = build(tiny_internlm2, adapter=None).train()
    _, grads = gradients(model, [collate_flat(samples())])
    assert set(grads) == {n for n, _ in model.named_parameters()}
    assert float(grads["llm.lm_head.weight"].abs().max()) > 0
