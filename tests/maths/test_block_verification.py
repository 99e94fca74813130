"""The outcome of a verified draft has the new law, by enumeration of all drafts and all decisions."""

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LogitsProcessorList, TopKLogitsWarper

from trl_teamtr.maths.block_verification import (
    SampledLaw,
    keeping_probabilities,
    residual_weights,
    verify,
    whole_probabilities,
)


VOCAB, LENGTH = 3, 3


class Law:
    """An autoregressive law over messages of at most `LENGTH` tokens, of which token 0 ends the turn."""

    def __init__(self, seed, support=None):
        generator = torch.Generator().manual_seed(seed)
        self.next = dict[tuple[int, ...], torch.Tensor]()
        for length in range(LENGTH):
            for prefix in itertools.product(range(1, VOCAB), repeat=length):
                logits = 1.5 * torch.randn(VOCAB, generator=generator, dtype=torch.float64)
                if support is not None:
                    logits[torch.randperm(VOCAB, generator=generator)[support:]] = -torch.inf
                self.next[prefix] = logits.log_softmax(0)

    def rounded(self, seed, scale):
        """A law near this one, as of a sampler in less precision."""
        law, generator = Law(0), torch.Generator().manual_seed(seed)
        for prefix, logps in self.next.items():
            noise = torch.randn(VOCAB, generator=generator, dtype=torch.float64)
            law.next[prefix] = (logps + scale * noise).log_softmax(0)
        return law

    def messages(self, prefix=()):
        """Every message that begins with `prefix`, with its probability given the prefix."""
        if len(prefix) == LENGTH or (prefix and prefix[-1] == 0):
            return {prefix: 1.0}
        found = {}
        for token, p in enumerate(self.next[prefix].exp().tolist()):
            for message, q in self.messages((*prefix, token)).items():
                found[message] = p * q
        return found

    def logps(self, message):
        return torch.stack([self.next[message[:i]] for i in range(len(message))])


def outcome(old, new, keeping=keeping_probabilities, residual=residual_weights, draft_law=None, rest_law=None):
    """The exact law of what verification leaves, drawn on under the new law, or under `rest_law`."""
    law = {}
    for draft, p in (draft_law or old).messages().items():
        if p == 0:
            continue
        old_logps, new_logps = old.logps(draft)[None], new.logps(draft)[None]
        keep, running = keeping(old_logps, new_logps, torch.tensor([draft]), torch.tensor([len(draft)]))
        for kept in range(len(draft) + 1):
            q = p * keep[0, kept] * (1 - keep[0, kept + 1 :]).prod()
            if kept == len(draft):
                law[draft] = law.get(draft, 0) + q
            elif q > 0:
                weights = residual(old_logps[:, kept], new_logps[:, kept], running[:, kept])[0]
                for token, r in enumerate((weights / weights.sum()).tolist()):
                    for message, rest in (rest_law or new).messages((*draft[:kept], token)).items():
                        law[message] = law.get(message, 0) + q * r * rest
    return law


def distance(law, expected):
    return max(abs(float(law.get(message, 0)) - expected.get(message, 0)) for message in law.keys() | expected.keys())


def total_variation(law, expected):
    return sum(abs(float(law.get(m, 0)) - float(expected.get(m, 0))) for m in law.keys() | expected.keys()) / 2


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_sampler_that_is_not_the_scorer_is_not_amplified(seed, scale):
    """ε is the largest distance of their messages given a prefix; verification compares the laws of the scorer."""
    old, new = Law(2 * seed), Law(2 * seed + 1)
    their_old, their_new = old.rounded(100 + seed, scale), new.rounded(200 + seed, scale)
    epsilon = max(
        total_variation(theirs.messages(prefix), ours.messages(prefix))
        for theirs, ours in ((their_old, old), (their_new, new))
        for prefix in ours.next
    )
    found = outcome(old, new, draft_law=their_old, rest_law=their_new)
    assert sum(found.values()) == pytest.approx(1)
    assert 0 < total_variation(found, new.messages()) <= 2 * epsilon
    assert total_variation(found, their_new.messages()) <= 3 * epsilon


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("support", [None, 2], ids=["all-tokens", "truncated"])
def test_outcome_has_the_new_law(seed, support):
    old, new = Law(2 * seed, support), Law(2 * seed + 1, support)
    assert distance(outcome(old, new), new.messages()) < 1e-9
    assert distance(old.messages(), new.messages()) > 1e-2


def test_wrong_rules_are_told_apart():
    old, new, stale = Law(0), Law(1), Law(2)

    def lenient(*args):
        keep, running = keeping_probabilities(*args)
        return keep.sqrt(), running

    assert distance(outcome(old, new, keeping=lenient), new.messages()) > 1e-3
    wrong = outcome(old, new, residual=lambda old_logps, new_logps, running: new_logps.exp())
    assert distance(wrong, new.messages()) > 1e-3
    assert distance(outcome(stale, new, draft_law=old), new.messages()) > 1e-3


def batch(seed, rows=2000):
    old, new = Law(seed), Law(seed + 1)
    laws = old.messages()
    messages = list(laws)
    drawn = torch.multinomial(torch.tensor(list(laws.values())), rows, replacement=True)
    drafts = [messages[i] for i in drawn]
    lengths = torch.tensor([len(draft) for draft in drafts])
    tokens = torch.zeros(rows, LENGTH, dtype=torch.long)
    old_logps = torch.zeros(rows, LENGTH, VOCAB, dtype=torch.float64)
    new_logps = torch.randn(rows, LENGTH, VOCAB, dtype=torch.float64)  # padding must not matter
    for row, draft in enumerate(drafts):
        tokens[row, : len(draft)] = torch.tensor(draft)
        old_logps[row, : len(draft)], new_logps[row, : len(draft)] = old.logps(draft), new.logps(draft)
    return old_logps, new_logps, tokens, lengths


def test_unchanged_law_refuses_nothing():
    old_logps, _, tokens, lengths = batch(0)
    assert torch.equal(verify(old_logps, old_logps.clone(), tokens, lengths).kept, lengths)


def test_drawn_decisions_follow_the_probabilities_whatever_the_padding():
    old_logps, new_logps, tokens, lengths = batch(3, rows=20_000)
    keep, _ = keeping_probabilities(old_logps, new_logps, tokens, lengths)
    expected = torch.stack([keep[:, i] * (1 - keep[:, i + 1 :]).prod(dim=1) for i in range(LENGTH + 1)], dim=1)
    kept = verify(old_logps, new_logps, tokens, lengths).kept
    assert (kept <= lengths).all()
    counts = torch.bincount(kept, minlength=LENGTH + 1)
    spread = (expected * (1 - expected)).sum(0).sqrt()
    assert ((counts - expected.sum(0)).abs() < 4.5 * spread + 1e-9).all()


def own_ratios(old_logps, new_logps, tokens, lengths):
    """Log-ratios of the drafts' own tokens; 0 beyond their lengths."""
    old, new = (logps.gather(2, tokens[:, :, None])[..., 0] for logps in (old_logps, new_logps))
    return (new - old).masked_fill(torch.arange(tokens.size(1)) >= lengths[:, None], 0.0)


def test_decisions_in_two_steps_follow_the_same_probabilities():
    """First whether a draft is kept whole, by the probabilities of its own tokens alone; then where the others are cut."""
    old_logps, new_logps, tokens, lengths = batch(3, rows=20_000)
    keep, _ = keeping_probabilities(old_logps, new_logps, tokens, lengths)
    whole = whole_probabilities(own_ratios(old_logps, new_logps, tokens, lengths))
    torch.testing.assert_close(whole, keep.gather(1, lengths[:, None])[:, 0])
    cut = torch.rand_like(whole) >= whole
    verdict = verify(old_logps, new_logps, tokens, lengths, cut=cut)
    assert (verdict.kept[cut] < lengths[cut]).all()
    expected = torch.stack([keep[:, i] * (1 - keep[:, i + 1 :]).prod(dim=1) for i in range(LENGTH + 1)], dim=1)
    counts = torch.bincount(torch.where(cut, verdict.kept, lengths), minlength=LENGTH + 1)
    spread = (expected * (1 - expected)).sum(0).sqrt()
    assert ((counts - expected.sum(0)).abs() < 4.5 * spread + 1e-9).all()


def test_what_the_new_law_cannot_say_is_cut():
    old, new = torch.full((1, 1, 3), 1 / 3).log(), torch.tensor([[[0.5, 0.5, 0.0]]]).log()
    for _ in range(20):
        verdict = verify(old, new, torch.tensor([[2]]), torch.tensor([1]))
        assert verdict.kept.item() == 0 and verdict.replacement.item() in (0, 1)


@pytest.mark.parametrize("positions", [1, 2, 5])
def test_looking_at_few_positions_at_a_time_changes_nothing(positions):
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(6, 7, 11, generator=generator) for _ in range(2))
    tokens, lengths = torch.randint(11, (6, 7), generator=generator), torch.tensor([7, 1, 3, 7, 6, 2])
    whole = keeping_probabilities(old.log_softmax(-1), new.log_softmax(-1), tokens, lengths)
    lazy = [SampledLaw(logits, LogitsProcessorList([TopKLogitsWarper(11)])) for logits in (old, new)]
    for laws in ((old.log_softmax(-1), new.log_softmax(-1)), lazy):
        for a, b in zip(keeping_probabilities(*laws, tokens, lengths, positions), whole, strict=True):
            torch.testing.assert_close(a, b, atol=0, rtol=0)
    torch.manual_seed(0)
    expected = verify(old.log_softmax(-1), new.log_softmax(-1), tokens, lengths)
    torch.manual_seed(0)
    found = verify(*lazy, tokens, lengths, positions)
    assert torch.equal(found.kept, expected.kept) and torch.equal(found.replacement, expected.replacement)


def test_sampled_law_is_truncated_as_generation_is():
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]], dtype=torch.bfloat16)
    law = SampledLaw(logits, LogitsProcessorList([TopKLogitsWarper(2)]))
    assert law[:, 0:1].dtype == torch.float32
    torch.testing.assert_close(law[:, 0:1].exp()[0, 0], torch.tensor([3.0, 2.0, -torch.inf, -torch.inf]).softmax(0))


def loop(old_logps, new_logps, tokens):
    """P by its definition, one position after another."""
    steps = [logps.double().gather(2, tokens[:, :, None])[..., 0] for logps in (new_logps, old_logps)]
    running = [torch.zeros(len(tokens), dtype=torch.float64)]
    for new, old in zip(*[logps.unbind(1) for logps in steps], strict=True):
        ruled_out = (running[-1] == -torch.inf) | (new == -torch.inf)
        running.append(torch.where(ruled_out, -torch.inf, (running[-1] + (new - old)).clamp(max=0.0)))
    return torch.stack(running, dim=1).exp()


# Log-probabilities of a few tokens of the drafts under the old law and the new one
JUMPS = {
    "none": {},
    "impossible under the new law": {3: (-1.0, -torch.inf), 5: (-torch.inf, -1.0)},
    "impossible under the old law": {3: (-torch.inf, -1.0), 4: (-1.0, -3.0), -2: (-torch.inf, -9.0)},
    "impossible under both": {2: (-torch.inf, -torch.inf)},
    "far": {1: (-1.0, -700.0), 3: (-600.0, -1.0), 4: (-101.0, -1.0), 6: (-1.0, -2.0)},
    "masked by a finite number": {3: (torch.finfo(torch.float32).min, -1.0), 4: (-1.0, -3.0)},
}


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=list(JUMPS))
@pytest.mark.parametrize("length, positions", [(9, None), (9, 2), (8192, 1000)])
def test_running_product_is_that_of_a_loop(jumps, length, positions):
    generator = torch.Generator().manual_seed(length)
    old = torch.randn(3, length, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    new = (old + 0.3 * torch.randn(3, length, 5, generator=generator, dtype=torch.float64)).log_softmax(-1)
    tokens = torch.distributions.Categorical(logits=old).sample()
    for position, values in jumps.items():
        for logps, value in zip((old, new), values, strict=True):
            logps[:2, position].scatter_(1, tokens[:2, position, None], value)
    lengths = torch.tensor([length, length - 1, length])
    keep, running = keeping_probabilities(old, new, tokens, lengths, positions)
    expected = loop(old, new, tokens)
    torch.testing.assert_close(running, expected, atol=1e-6, rtol=0)
    assert expected[:, : min(length, 9)].min() < 0.9 and not keep.isnan().any()
    whole = whole_probabilities(own_ratios(old, new, tokens, lengths))
    torch.testing.assert_close(whole, expected.gather(1, lengths[:, None])[:, 0], atol=1e-6, rtol=0)
    assert keep[0, length] == running[0, length] and keep[1, length] == 0
    whole = keeping_probabilities(old, new, tokens, lengths)
    torch.testing.assert_close((keep, running), whole, atol=0, rtol=0)


def test_a_prefix_that_the_new_law_cannot_say_is_never_kept():
    """Not even if a later token is impossible under the old law: 0 times infinity is no reason to keep anything."""
    old, new = torch.full((1, 4, 3), 1 / 3).log(), torch.full((1, 4, 3), 1 / 3).log()
    new[0, 1] = torch.tensor([0.5, 0.5, 0.0]).log()
    old[0, 2] = torch.tensor([0.5, 0.5, 0.0]).log()
    keep, running = keeping_probabilities(old, new, torch.full((1, 4), 2), torch.tensor([4]))
    assert running[0].tolist() == [1, 1, 0, 0, 0] and keep[0, 2:].tolist() == [0, 0, 0]


def test_number_of_operations_does_not_grow_with_the_length():
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    found = []
    for length in (8, 800):
        logps, tokens = torch.randn(2, length, 3).log_softmax(-1), torch.zeros(2, length, dtype=torch.long)
        with Count() as count:
            keeping_probabilities(logps, logps, tokens, torch.tensor([length, 1]))
        found.append(count.calls)
    assert found[0] == found[1]
