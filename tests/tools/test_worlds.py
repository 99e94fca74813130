"""Worlds: who may act on them, their rewards, and how their state is found again."""

import pytest
from tool_teams import Dial, Saved, Untold

from trl_teamtr.conversation.transcript import ToolCall, ToolUse
from trl_teamtr.tools.environments import Environments
from trl_teamtr.tools.worlds import NEVER, REBUILD, REPLAY, SNAPSHOT, TEAM, Done, calls_of


class Scored(Saved):
    """Asked for its reward."""

    asked = 0

    def reset(self, seed=0, **row):
        super().reset()
        self.seed, self.row = seed, row
        return f"You see {row.get('what')}."

    def get_reward(self):
        type(self).asked += 1
        return float(self.count)


class Private(Dial):
    async def get_reward(self):
        return 0.5

    def look(self) -> str:
        """Looks."""
        return "dark"


class Random(Untold):
    deterministic = False


def open_world(factory=Dial, row=None, **private):
    environments = Environments({TEAM: factory, **private}, ["x", "y"], {})
    return environments.open({"prompt": "a"} if row is None else row)


def act(world, agent="x", call="turn"):
    """Call a tool, and note it."""
    done = Done(agent, ToolCall(call), world.tools_of(agent)[call]())
    world.note([done])
    return done


def repeat(world):
    return lambda done: world.tools_of(done.agent)[done.call.name]()


@pytest.mark.parametrize("factory, kind", [(Saved, SNAPSHOT), (Dial, REPLAY), (Random, REBUILD), (Untold, NEVER)])
def test_an_environment_says_how_its_state_is_found_again(factory, kind):
    assert open_world(factory).kind == kind
    assert Environments({TEAM: Saved, "x": factory}, ["x"], {}).kind == kind  # the least of several


@pytest.mark.parametrize("factory", [Saved, Dial])
def test_an_earlier_state_is_reached(factory):
    world = open_world(factory)
    done = [act(world) for _ in range(3)]
    assert [each.result for each in done] == ["b", "a", "b"]
    world.reach(done[:1], repeat(world))
    assert world.team.count == 1
    assert act(world).result == "a"
    world.reach([], repeat(world))
    assert world.team.count == 0
    world.reach(done, repeat(world))  # by replaying, if need be
    assert world.team.count == 3


def test_an_environment_that_is_not_what_it_says():
    world = open_world(Dial)
    done = [act(world)]
    different = [Done("x", ToolCall("turn"), "a"), *done]
    with pytest.raises(
        RuntimeError, match=r"says that it is `deterministic`, but turn\({}\) is not what it was before"
    ):
        world.reach(different, repeat(world))


def test_rewards_are_asked_for_once_in_each_state():
    Scored.asked = 0
    world = open_world(Scored, {"what": "a dial"}, y=Private)
    assert world.observations == {TEAM: "You see a dial."} and world.team.row == {"what": "a dial"}
    act(world)
    assert world.rewards() == world.rewards() == {"Scored": 1.0, "Private": 0.5} and Scored.asked == 1
    act(world, "y")
    assert world.rewards()["Scored"] == 1.0  # its own dial was turned, not that of the team
    assert Scored.asked == 2


def test_all_rollouts_of_a_prompt_begin_with_one_seed():
    seeds = [open_world(Scored, {"what": what}).team.seed for what in ("a", "a", "b")]
    assert seeds[0] == seeds[1] != seeds[2]
    assert open_world(Scored, {"seed": 5}).team.seed == 5


def test_an_agent_calls_its_own_environment_first():
    world = open_world(Dial, y=Private)
    assert set(world.tools_of("x")) == {"turn"} and set(world.tools_of("y")) == {"turn", "look"}
    act(world, "y")
    assert (world.team.count, world.environments["y"].count) == (0, 1)


def test_calls_that_could_not_be_read_change_nothing():
    calls = (ToolCall("turn"), ToolCall("unreadable"))
    assert calls_of("x", [ToolUse(2, calls, ("a", "error"), (False, True))]) == [Done("x", ToolCall("turn"), "a")]


def test_a_reopened_world_knows_its_beginning_and_its_rewards():
    environments = Environments({TEAM: Scored}, ["x"], {})
    world = environments.open({"prompt": "a"})
    act(world)
    world.rewards()
    again = environments.reopen(world.describe())
    assert again.describe() == world.describe() and again.rewards() == {"Scored": 1.0}
