"""The check after each publication finds what a server says that the policy here does not."""

import math

from accelerate import Accelerator
from tiny import make_model, make_tokenizer

from trl_teamtr import Agent
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.policy.backend import Request, Written
from trl_teamtr.policy.generation.canary import MESSAGES, TOKENS, largest_difference, make_probes
from trl_teamtr.policy.making import make_speakers


def make_speaker(**fields):
    agent = Agent("x", make_model(), processing_class=make_tokenizer())
    settings = SpeakingSettings(SamplingSettings(max_completion_length=5, **fields))
    return make_speakers([agent], settings, Accelerator())[0]


def test_probes_are_the_beginnings_of_what_is_asked_of_the_agent():
    others = [Request("y", [2], 3)] * 20
    own = [Request("x", [0] * (i + 1), 10 * (i + 1)) for i in range(20)]
    probes = make_probes(make_speaker(), [*others, *own])
    assert len(probes) == MESSAGES and [probe.context for probe in probes] == [[0] * (i + 1) for i in range(8)]
    assert [probe.max_tokens for probe in probes[:3]] == [10, TOKENS, TOKENS]
    assert make_probes(make_speaker(), others) == []


def test_the_policy_agrees_with_itself_and_with_no_other():
    speaker = make_speaker(temperature=0.7)
    probes = [Request("x", context, 5) for context in ([0], [0, 2, 2], [2, 0])]
    answers = speaker.backend.generate(probes)
    assert largest_difference(speaker, probes, answers) < 1e-5
    other = [Written(answer.ids, [*answer.logps[:-1], answer.logps[-1] - 0.25]) for answer in answers]
    assert abs(largest_difference(speaker, probes, other) - 0.25) < 1e-5
    unknown = [Written(answer.ids, [math.nan] * len(answer.ids)) for answer in answers]
    assert math.isnan(largest_difference(speaker, probes, unknown))
    assert largest_difference(speaker, [], []) == 0.0
