import pytest
import torch
import torch.nn.functional as F
from torch import nn

from elysia.train.kernels.chunked_loss import cross_entropy_sum, log_probs


def reference(hidden, head, targets):
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("frozen", [True, False])
def test_chunked_loss_and_gradients_are_those_of_full_logits(chunk, frozen):
    torch.manual_seed(0)
    head = nn.Linear(16, 53, bias=False).requires_grad_(not frozen)
    targets = torch.randint(53, (20,))
    hidden_a = torch.randn(20, 16, requires_grad=True)
    hidden_b = hidden_a.detach().clone().requires_grad_()
    loss = cross_entropy_sum(hidden_a, head, targets, chunk) * 0.25
    loss.backward()
    weight_grad, head.weight.grad = head.weight.grad, None
    expected = reference(hidden_b, head, targets) * 0.25
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(hidden_a.grad, hidden_b.grad, rtol=1e-5, atol=1e-6)
    if frozen:
        assert weight_grad is None
    else:
        torch.testing.assert_close(weight_grad, head.weight.grad, rtol=1e-5, atol=1e-6)


def test_a_head_with_a_bias_is_called_as_it_is():
    torch.manual_seed(0)
    head = nn.Linear(16, 53)
    targets = torch.randint(53, (20,))
    hidden_a = torch.randn(20, 16, requires_grad=True)
    hidden_b = hidden_a.detach().clone().requires_grad_()
    cross_entropy_sum(hidden_a, head, targets, 7).backward()
    reference(hidden_b, head, targets).backward()
    torch.testing.assert_close(hidden_a.grad, hidden_b.grad, rtol=1e-5, atol=1e-6)


def test_no_labelled_token_is_a_loss_of_zero_that_can_still_be_backpropagated():
    hidden = torch.randn(0, 16, requires_grad=True)
    for head in (nn.Linear(16, 53, bias=False), nn.Linear(16, 53)):
        loss = cross_entropy_sum(hidden, head, torch.zeros(0, dtype=torch.long), 7)
        loss.backward()
        assert loss.item() == 0 and not head.weight.grad.any()


def test_huge_scores_do_not_overflow():
    head = nn.Linear(4, 9, bias=False)
    loss = cross_entropy_sum(torch.full((3, 4), 1e4), head, torch.tensor([1, 2, 3]), 2)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_log_probabilities_weigh_positions_as_those_of_full_logits(chunk, frozen, bias):
    torch.manual_seed(0)
    head = nn.Linear(16, 53, bias=bias).requires_grad_(not frozen)
    targets, weights = torch.randint(53, (20,)), torch.randn(20)
    hidden_a = torch.randn(20, 16, requires_grad=True)
    hidden_b = hidden_a.detach().clone().requires_grad_()
    actual = log_probs(hidden_a, head, targets, chunk)
    expected = head(hidden_b).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    (actual * weights).sum().backward()
    weight_grad, head.weight.grad = head.weight.grad, None
    (expected * weights).sum().backward()
    torch.testing.assert_close(hidden_a.grad, hidden_b.grad, rtol=1e-5, atol=1e-6)
    if not frozen:
        torch.testing.assert_close(weight_grad, head.weight.grad, rtol=1e-5, atol=1e-6)


def test_log_probabilities_of_nothing_can_be_backpropagated():
    hidden = torch.randn(0, 16, requires_grad=True)
    for head in (nn.Linear(16, 53, bias=False).requires_grad_(False), nn.Linear(16, 53)):
        actual = log_probs(hidden, head, torch.zeros(0, dtype=torch.long), 7)
        actual.sum().backward()
        assert actual.shape == (0,)
        if head.weight.requires_grad:  # a process without tokens still has a gradient to exchange
            assert not head.weight.grad.any()
