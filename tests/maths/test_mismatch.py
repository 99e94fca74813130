"""Sampler against scorer, by enumeration of all messages of two small distributions."""

import itertools
import math

import pytest
import torch

from trl_teamtr.maths.mismatch import mismatch


VOCAB, LENGTH = 3, 2


def make_law(seed):
    """Log-probabilities of the first token, and of the second after each first one."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator).double().log_softmax(-1) for shape in ((VOCAB,), (VOCAB, VOCAB))]


def token_logps(law, message):
    first, second = message
    return [law[0][first].item(), law[1][first, second].item()]


def test_means_are_the_kl_and_the_total_variation_distance():
    sampler, scorer = make_law(0), make_law(1)
    messages = list(itertools.product(range(VOCAB), repeat=LENGTH))
    theirs, ours = (torch.tensor([token_logps(law, m) for m in messages]).double() for law in (sampler, scorer))
    p = theirs.sum(1).exp()
    numbers = torch.zeros(1, LENGTH, dtype=torch.long)
    each = [mismatch(a[None], b[None], numbers) for a, b in zip(theirs, ours, strict=True)]
    kl = (p * (theirs - ours).sum(1)).sum()
    assert kl > 0.1
    assert sum(w * one.kl for w, one in zip(p, each, strict=True)) == pytest.approx(kl.item())
    distance = 0.5 * (p - ours.sum(1).exp()).abs().sum()
    assert sum(w * one.tv for w, one in zip(p, each, strict=True)) == pytest.approx(distance.item())
    together = mismatch(theirs, ours, numbers.expand(len(messages), -1))
    assert together.kl == pytest.approx(sum(one.kl for one in each).item())
    assert together.messages == len(messages)
    # Weighed, the messages of the sampler are as many as those of the scorer
    assert sum(w * one.weight for w, one in zip(p, each, strict=True)) == pytest.approx(1.0)
    weights = (ours - theirs).sum(1).exp()
    assert together.weight == pytest.approx(weights.sum().item())
    assert together.square == pytest.approx(weights.square().sum().item())
    assert together.largest == pytest.approx((theirs - ours).abs().max().item())


def test_messages_that_were_not_sampled_to_the_end_are_left_out():
    sampler = torch.tensor([[-1.0, -2.0, 0.0, math.nan, -1.0], [math.nan] * 5])
    scorer = torch.tensor([[-1.0, -2.5, 9.0, -50.0, -9.0], [-1.0] * 5])
    numbers = torch.tensor([[0, 0, -1, 1, 1], [0, 0, 0, 0, -1]])
    found = mismatch(sampler, scorer, numbers)
    assert found.messages == 1 and found.largest == 0.5
    assert found.tv == pytest.approx(1 - math.exp(-0.5)) and found.kl == pytest.approx(math.exp(-0.5) - 0.5)
    none = mismatch(sampler[1:], scorer[1:], numbers[1:])
    assert [part.item() for part in none] == [0] * 6
