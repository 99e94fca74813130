"""Whether a backend samples from the distribution that messages are verified against: chi-square over all short messages."""

import itertools
import random

import torch
from scipy.stats import chisquare

from trl_teamtr.policy.backend import Backend, Request
from trl_teamtr.policy.speaker import Speaker
from trl_teamtr.policy.transforms import sampling_transforms


LAWS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "truncated": {"temperature": 1.4, "top_k": 3, "top_p": 0.9},
    "min_p": {"top_k": 3, "min_p": 0.3},
}


def check_law(speaker: Speaker, backend: Backend, count: int = 1200):
    """
    All messages of at most two tokens, whose distribution `SampledLaw` knows.

    Args:
        speaker: Its vocabulary has four tokens, of which 1 ends a message.
        backend: What samples for it.
        count: Number of messages.
    """
    context = [2, 0]
    random.seed(1)
    requests = [Request(speaker.name, context, 2)] * (count // 6)
    found = [tuple(written.ids) for _ in range(6) for written in backend.generate(requests)]

    def law(ids):
        with torch.no_grad():
            logits = speaker.policy.model(torch.tensor([ids])).logits[:, -1] / speaker.sampling.temperature
        return sampling_transforms(speaker.sampling)(torch.tensor([ids]), logits)[0].double().softmax(-1).tolist()

    first = law(context)
    expected = {(1,): first[1]}
    for i, j in itertools.product((0, 2, 3), range(4)):
        if first[i] > 0:
            expected[i, j] = first[i] * law([*context, i])[j]
    expected = {ids: p for ids, p in expected.items() if p > 0}
    assert set(found) <= set(expected) and len(expected) > 2
    common = [ids for ids, p in expected.items() if p * count >= 5]
    observed, wanted = [found.count(ids) for ids in common], [expected[ids] * count for ids in common]
    rest = count - sum(wanted)
    if rest > 1:
        observed, wanted = [*observed, count - sum(observed)], [*wanted, rest]
    wanted = [w * sum(observed) / sum(wanted) for w in wanted]
    assert chisquare(observed, wanted).pvalue > 1e-3
