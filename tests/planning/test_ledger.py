"""An account of tensors that are alive, by kind."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trl_teamtr.planning.ledger import Ledger


def test_what_is_freed_is_no_longer_counted_and_views_never():
    with FakeTensorMode():
        there = torch.empty(10, 10)
        with Ledger([there], vocab_size=7) as ledger:
            first = torch.empty(3, 5)
            views = [first[1:], there.view(100)]
            assert ledger.live == {"activations": 3 * 5 * 4}
            logits = torch.empty(2, 7)
            assert ledger.live == {"activations": 60, "logits": 2 * 7 * 4}
            del first, views, logits
            assert ledger.live.total() == 0
            torch.empty(4)
    assert ledger.peak == {"activations": 60, "logits": 56}


def test_gradients_are_counted_as_such():
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.empty(6, 2))
        with Ledger([weight], vocab_size=7) as ledger:
            weight.register_post_accumulate_grad_hook(ledger.count_gradient)
            (torch.empty(3, 6) @ weight).sum().backward()
    assert ledger.live["gradients"] == 6 * 2 * 4
