"""Contexts and messages of rollouts that are as long as they may be."""

import pytest
from planning.teams import maker
from tiny import make_config, make_model

from trl_teamtr import Agent
from trl_teamtr.planning.lengths import TEMPLATE_TOKENS, find_lengths


def lengths(tmp_path, prompt, **fields):
    agents = [Agent(name, make_model()) for name in "ab"]
    make = maker()[0]
    return find_lengths(agents, [make.make(agent) for agent in agents], make_config(tmp_path, **fields), prompt)


def test_each_message_lengthens_the_contexts_of_the_next(tmp_path):
    step = 4 + TEMPLATE_TOKENS
    first, second = lengths(tmp_path, 10, max_completion_length=4, num_rounds=2)
    assert first.contexts == (10, 10 + 2 * step) and second.contexts == (10 + step, 10 + 3 * step)
    assert second.view == 10 + 3 * step + 4 and second.messages == 2


def test_contexts_end_at_their_limit(tmp_path):
    first, second = lengths(tmp_path, 10, max_completion_length=4, max_context_length=20)
    assert first.view == 14 and second.view == 20 and second.context == 16
    open_ended, _ = lengths(tmp_path, 10, max_completion_length=None)
    assert (open_ended.message, open_ended.view) == (118, 128)  # what the model allows


def test_any_agent_may_speak_last_to_a_random_router(tmp_path):
    first, second = lengths(tmp_path, 10, max_completion_length=4, router="random")
    assert first.view == second.view


def test_a_prompt_without_room_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Agent 'a': a prompt of 126 tokens and a message of 4"):
        lengths(tmp_path, 126, max_completion_length=4)
