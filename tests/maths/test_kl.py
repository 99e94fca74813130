"""The estimators of the KL, by hand and on logits."""

import pytest
import torch

from trl_teamtr.maths.kl import exact_kl, k1_kl, k3_kl


def test_estimators_by_hand():
    old, new = torch.tensor([-1.0, -0.5]), torch.tensor([-1.2, -0.1])
    torch.testing.assert_close(k1_kl(old, new), torch.tensor([0.2, -0.4]))
    torch.testing.assert_close(k3_kl(old, new), torch.tensor([0.0187308, 0.0918247]))


def test_k3_keeps_its_precision_at_tiny_differences():
    old = torch.zeros(1)
    assert k3_kl(old, old + 1e-4).item() == pytest.approx(5e-9, rel=0.5)


def test_k3_has_no_gradient_at_the_current_policy():
    new = torch.zeros(3, requires_grad=True)
    k3_kl(torch.zeros(3), new).sum().backward()
    assert new.grad.tolist() == [0, 0, 0]


def test_exact_kl_matches_the_definition_on_logits():
    old, new = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    p, q = old.softmax(-1), new.softmax(-1)
    assert exact_kl(old, new).item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    assert exact_kl(2 * old, 2 * new, 2.0).item() == pytest.approx(exact_kl(old, new).item(), rel=1e-5)
    # As in `generate`, 16-bit logits are widened before they are divided
    rounded = [logits.bfloat16() for logits in (old + 0.3, new * 1.1)]
    assert torch.equal(exact_kl(*rounded, 0.7), exact_kl(*[logits.float() for logits in rounded], 0.7))
