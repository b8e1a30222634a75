import pytest
import torch
import torch.nn.functional as F
from torch import nn

from elysia.train.loss import cross_entropy_sum


def reference(hidden, head, targets):
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("frozen", [True, False])
def test_chunked_loss_and_gradients_are_those_of_full_logits(chunk, frozen):
    torch.manual_seed(0)
    head = nn.Linear(16, 53, bias=False).requires_grad_(not frozen)
    targets = torch.randint(53, (20,))
    ours = torch.randn(20, 16, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    loss = cross_entropy_sum(ours, head, targets, chunk) * 0.25
    loss.backward()
    weight_grad, head.weight.grad = head.weight.grad, None
    wanted = reference(theirs, head, targets) * 0.25
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    if frozen:
        assert weight_grad is None
    else:
        torch.testing.assert_close(weight_grad, head.weight.grad, rtol=1e-5, atol=1e-6)


def test_a_head_with_a_bias_is_called_as_it_is():
    torch.manual_seed(0)
    head = nn.Linear(16, 53)
    targets = torch.randint(53, (20,))
    ours = torch.randn(20, 16, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    cross_entropy_sum(ours, head, targets, 7).backward()
    reference(theirs, head, targets).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_no_labelled_token_is_a_loss_of_zero_that_can_still_be_backpropagated():
    hidden = torch.randn(0, 16, requires_grad=True)
    for head in (nn.Linear(16, 53, bias=False), nn.Linear(16, 53)):
        loss = cross_entropy_sum(hidden, head, torch.zeros(0, dtype=torch.long), 7)
        loss.backward()
        assert loss.item() == 0


def test_huge_scores_do_not_overflow():
    head = nn.Linear(4, 9, bias=False)
    loss = cross_entropy_sum(torch.full((3, 4), 1e4), head, torch.tensor([1, 2, 3]), 2)
    assert torch.isfinite(loss)
