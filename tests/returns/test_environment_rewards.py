"""The rewards of environments are reward functions beside the others."""

import pytest
from tool_teams import Dial

from trl_teamtr.returns.environment_rewards import environment_rewards, with_weights
from trl_teamtr.tools import Environments
from trl_teamtr.tools.worlds import TEAM


class Scored(Dial):
    def get_reward(self):
        return 0.25 * self.count


class Other(Dial):
    async def get_reward(self):
        return 3.0


class Lost(Dial):
    def get_reward(self):
        return float("nan")


def make(*factories):
    owners = [TEAM, "x", "y"]
    return Environments(dict(zip(owners, factories, strict=False)), ["x", "y"], {})


def test_there_is_one_for_each_class_with_a_reward(monkeypatch):
    environments = make(Scored, Other, Dial)
    rewards = environment_rewards(environments)
    assert [reward.__name__ for reward in rewards] == ["Other", "Scored"]
    worlds = [environments.open({"prompt": "a"}) for _ in range(2)]
    worlds[1].team.turn()
    values = [reward(worlds=worlds, completions=["", ""]) for reward in rewards]
    assert values == [[3.0, 3.0], [0.0, 0.25]]


def test_without_environments_or_rewards_there_are_none():
    assert environment_rewards(None) == environment_rewards(make(Dial)) == []


def test_a_reward_that_is_no_number_names_its_environment():
    environments = make(Lost)
    (reward,) = environment_rewards(environments)
    with pytest.raises(ValueError, match="The reward function 'Lost' returned nan for row 0"):
        reward(worlds=[environments.open({"prompt": "a"})], completions=[""])


def test_weights_are_one_beside_those_that_are_given(make_config):
    args, environments = make_config(reward_weights=[0.5]), make(Scored, Other)
    assert with_weights(args, environments).reward_weights == [0.5, 1.0, 1.0]
    assert args.reward_weights == [0.5]  # the config of the user is not changed
    for other in (None, make(Dial)):
        assert with_weights(args, other) is args
    plain = make_config()
    assert with_weights(plain, environments) is plain
