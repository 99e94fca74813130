import pytest
import torch

from trl_teamtr.trust_region import fingerprint as module
from trl_teamtr.trust_region.fingerprint import fingerprint


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_single_change_is_seen(dtype, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    torch.manual_seed(0)
    weights = [torch.randn(3, 5, dtype=dtype), torch.randn(2, dtype=dtype).t(), torch.zeros(0, dtype=dtype)]
    start = fingerprint(weights)
    assert torch.equal(fingerprint([weight.clone() for weight in weights]), start)
    for weight in weights:
        for place in range(weight.numel()):
            own = weight.view(-1)[place].clone()
            weight.view(-1)[place] = torch.nextafter(own, torch.tensor(torch.inf, dtype=dtype))
            assert not torch.equal(fingerprint(weights), start)
            weight.view(-1)[place] = own
    assert torch.equal(fingerprint(weights), start)


def test_changes_that_cancel_in_a_sum_are_seen():
    before, after = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 3.0])
    assert not torch.equal(fingerprint([before]), fingerprint([after]))
    assert not torch.equal(fingerprint([torch.tensor([0.0])]), fingerprint([torch.tensor([-0.0])]))


def test_no_weights_do_not_change():
    assert torch.equal(fingerprint([]), fingerprint([]))
