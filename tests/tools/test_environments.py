"""Which methods of environments are whose tools."""

import pytest
from tool_teams import Dial

from trl_teamtr.tools.environments import Environments
from trl_teamtr.tools.worlds import TEAM


class Desk(Dial):
    """Has more methods, some of which are no tools."""

    def look(self) -> str:
        """Looks."""

    def get_reward(self):
        return 1.0

    def _help(self):
        """Private."""


class Endless:
    def turn(self):
        """Has no `reset`."""


def names(environments, agent):
    return [tool.__name__ for tool in environments.tools_of(agent)]


def test_all_agents_may_call_all_methods_unless_some_are_chosen():
    environments = Environments({TEAM: Desk}, ["x", "y", "z"], {"y": ["look"], "z": []})
    assert [names(environments, agent) for agent in "xyz"] == [["look", "turn"], ["look"], []]
    assert environments.rewards == ["Desk"]


def test_a_method_that_there_is_not():
    with pytest.raises(ValueError, match="Agent 'x' has the tool 'get_reward', which is no method .* look, turn"):
        Environments({TEAM: Desk}, ["x"], {"x": ["get_reward"]})


def test_an_environment_that_cannot_begin():
    with pytest.raises(ValueError, match="The environment of agent 'x', a Endless, has no method `reset`"):
        Environments({"x": Endless}, ["x"], {})
