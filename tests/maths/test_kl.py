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


def test_kl_of_truncated_policies_is_at_most_that_of_the_policies_over_the_mass_that_is_kept():
    """docs/method.md: with `top_p`, what is sampled moves by at most KL / top_p, as long as the same tokens are kept."""
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(500, 6, generator=generator).double() for _ in range(2))
    kept = torch.rand(500, 6, generator=generator) < 0.6
    kept[:, 0] = True
    mass = (old.softmax(-1) * kept).sum(-1)
    truncated = [torch.where(kept, logits, -1e9) for logits in (old, new)]
    ratio = exact_kl(*truncated) * mass / exact_kl(old, new)
    assert ratio.max() <= 1 + 1e-4 and ratio.max() > 0.9
