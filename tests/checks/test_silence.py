"""Agents that say nothing: an error where there was no room, a warning where nobody asked them."""

import warnings

import pytest
from datasets import Dataset
from tiny import make_team, make_trainer

from trl_teamtr.checks.silence import SilenceWatch


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


def test_an_agent_without_room_ends_the_run_with_the_cause(tmp_path):
    """The prompts fit, but what the others say leaves no room for the second agent."""
    trainer = make_trainer(tmp_path, make_team(2), max_completion_length=2)
    trainer.members[1].speaker.max_view_length = 6
    with pytest.raises(RuntimeError, match="Agent 'y' has said nothing in 8 rollouts, although it was its turn in 8"):
        trainer.train()


def test_an_agent_that_is_not_asked_is_counted_and_warned_of(tmp_path):
    trainer = make_trainer(
        tmp_path, make_team(2), router=lambda t: None if t.messages else "x", allow_silent_agents=True, num_stages=6
    )
    with pytest.warns(UserWarning, match="'y' was not asked to speak in any rollout of its last 5 updates") as caught:
        trainer.train()
    assert sum("was not asked" in str(warning.message) for warning in caught) == 1
    assert logged(trainer, "agent/y/silent") == [1.0] * 6 and logged(trainer, "agent/x/silent") == [0.0] * 6


def test_one_message_begins_the_count_again(tmp_path):
    trainer = make_trainer(
        tmp_path, make_team(2), allow_silent_agents=True, router=lambda t: "x" if not t.messages else None
    )
    silent = trainer.team.collect([{"prompt": "a"}])
    trainer.team.rules.router = lambda t: "y" if not t.messages else None
    spoken = trainer.team.collect([{"prompt": "a"}])
    watch, speaker = SilenceWatch(), trainer.members[1].speaker
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rollouts in [silent] * 4 + [spoken] + [silent] * 4:
            assert watch.look(speaker, rollouts) == (rollouts is silent)


def test_a_system_prompt_that_leaves_no_room_is_refused_before_training(tmp_path):
    team = make_team(2)
    team[1].system_prompt = "u" * 126
    with pytest.raises(
        ValueError, match="prompt of row 0 of the train dataset takes .* agent 'y', which has room for 126"
    ):
        make_trainer(tmp_path, team)
    team[1].system_prompt = "u" * 60
    with pytest.raises(ValueError, match="row 3 of the train dataset takes .* in the view of agent 'y'"):
        make_trainer(tmp_path, team, dataset=Dataset.from_dict({"prompt": ["a", "a", "a", "a" * 62]}))
