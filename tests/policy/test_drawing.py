"""Messages that are drawn apart have the law of those that are not, and depend on nothing but their seed."""

import collections

import pytest
import torch
from tiny import make_team, next_logps

from trl_teamtr import Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.policy.backend import Request
from trl_teamtr.policy.drawing import Draw, Reading


CONTEXT = [0, 2, 2]


def make_backend(**sampling):
    sampling = SamplingSettings(**({"max_completion_length": 2} | sampling))
    (speaker,) = Team.from_agents(make_team(1, size=4), SpeakingSettings(sampling)).speakers
    return speaker


def generate(speaker, draws, contexts=None, limit=2):
    contexts = [CONTEXT] * len(draws) if contexts is None else contexts
    requests = [Request("x", context, limit, draw) for context, draw in zip(contexts, draws, strict=True)]
    return [tuple(written.ids) for written in speaker.backend.generate(requests)]


@pytest.mark.parametrize(
    "sampling, temperature", [({}, None), ({"temperature": 0.7, "top_k": 3}, None), ({"temperature": 2.0}, 0.5)]
)
def test_first_ids_have_the_law_of_the_policy(sampling, temperature):
    speaker, total = make_backend(**sampling), 4000
    found = generate(speaker, [Draw(seed, temperature) for seed in range(total)], limit=1)
    counts = collections.Counter(ids[0] for ids in found)
    logps = next_logps(speaker.policy.model, CONTEXT, temperature or sampling.get("temperature", 1.0))
    if sampling.get("top_k"):
        logps = logps.masked_fill(logps < logps.topk(sampling["top_k"]).values[-1], float("-inf")).log_softmax(-1)
    expected = logps.exp() * total
    statistic = sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected.tolist()) if e > 0)
    assert set(counts) == {i for i, e in enumerate(expected.tolist()) if e > 0}
    assert statistic < 16.3  # 99.9 % of chi-square with 3 degrees of freedom


def test_a_seed_gives_the_same_ids_whatever_shares_the_batch():
    speaker = make_backend(max_completion_length=12)
    alone = [generate(speaker, [Draw(seed)], limit=12)[0] for seed in range(8)]
    assert len(set(alone)) > 4
    torch.manual_seed(5)
    contexts = [CONTEXT, [2], CONTEXT, [0, 0, 0, 2, 3], *[CONTEXT] * 8]
    draws = [None, Draw(99), None, Draw(98, 0.3), *map(Draw, range(8))]
    assert generate(speaker, draws, contexts, limit=12)[4:] == alone


def test_rows_without_a_draw_are_sampled_as_ever():
    speaker = make_backend(max_completion_length=6)
    torch.manual_seed(3)
    plain = generate(speaker, [None] * 6, limit=6)
    torch.manual_seed(3)
    assert generate(speaker, [None] * 5 + [Draw(0)], limit=6)[:5] == plain[:5]


def test_temperature_zero_is_the_most_probable_id_at_each_place():
    speaker = make_backend()
    (ids,) = generate(speaker, [Draw(temperature=0.0)])
    context = list(CONTEXT)
    for token in ids:
        assert token == next_logps(speaker.policy.model, context).argmax()
        context.append(token)
    assert generate(speaker, [Draw(seed, 0.0) for seed in range(20)]) == [ids] * 20


def test_a_reader_hears_every_id_and_may_end_the_message():
    speaker = make_backend(max_completion_length=12)
    heard, first = [], []
    lengths = [len(generate(speaker, [Draw(seed)], limit=12)[0]) for seed in range(20)]
    seed = lengths.index(max(lengths))
    (whole,) = generate(speaker, [Draw(seed, on_token=lambda token: heard.append(token) or True)], limit=12)
    assert tuple(heard) == whole and len(whole) > 2
    draws = [Draw(seed, on_token=lambda token: first.append(token) or len(first) < 2), Draw(seed), Draw(7)]
    cut, other, _ = generate(speaker, draws, limit=12)
    assert cut == tuple(first) == whole[:2] and other == whole


def test_max_tokens_of_a_draw_is_that_of_its_message():
    speaker = make_backend(max_completion_length=12)
    begun = speaker.begin([CONTEXT] * 3, draws=[Draw(1, max_tokens=1), Draw(1, max_tokens=99), None])
    assert [request.max_tokens for request in begun.requests] == [1, 12, 12]


def test_what_was_drawn_otherwise_has_no_log_probability_of_the_policy():
    speaker = make_backend()
    requests = [Request("x", CONTEXT, 2, draw) for draw in (None, Draw(max_tokens=1), Draw(1), Draw(1, 0.5))]
    assert [written.logps is None for written in speaker.backend.generate(requests)] == [False, False, True, True]


def test_settings_that_act_on_a_drawn_id_are_refused():
    speaker = make_backend(generation_kwargs={"typical_p": 0.9})
    assert len(generate(speaker, [None])) == 1
    with pytest.raises(ValueError, match="cannot be had from an agent with `typical_p`"):
        generate(speaker, [Draw(0)])


def test_a_finished_row_is_not_read_on():
    heard = []
    reading = Reading([Draw(on_token=lambda token: heard.append(token) or True), None], [5, 5], [1])
    for column in ([0, 0], [1, 0], [7, 0]):
        assert not reading(torch.tensor([column]).T, None).any()
    assert heard == [0, 1] and reading.lengths == {}
