import json
import warnings

import pytest

from trl_teamtr import Agent, load_team
from trl_teamtr.agents.resolving import resolve_team
from trl_teamtr.agents.team_file import TEAM_FILE, check_same_team, describe_team
from trl_teamtr.conversation.router import RoundRobinRouter
from trl_teamtr.conversation.rules import TurnTaking, make_rules


@pytest.fixture
def saved_team(tmp_path):
    agents = [
        Agent("solver", "m", system_prompt="Solve.", learning_rate=1e-4, generation_kwargs={"temperature": 0.5}),
        Agent("critic", "m", trainable=False, trust_region_radius=0.02, chat_template_kwargs={"tone": "dry"}),
    ]
    description = describe_team(agents, TurnTaking(num_rounds=2, router="random", stop_string="DONE"))
    for agent in agents:
        (tmp_path / agent.name).mkdir()
    (tmp_path / TEAM_FILE).write_text(json.dumps(description), encoding="utf-8")
    return str(tmp_path)


def test_load_team_gives_back_the_agents(saved_team):
    assert load_team(saved_team) == [
        Agent(
            "solver",
            f"{saved_team}/solver",
            system_prompt="Solve.",
            learning_rate=1e-4,
            generation_kwargs={"temperature": 0.5},
        ),
        Agent(
            "critic",
            f"{saved_team}/critic",
            trainable=False,
            trust_region_radius=0.02,
            chat_template_kwargs={"tone": "dry"},
        ),
    ]


def test_team_file_holds_the_rules_of_the_rollout(saved_team):
    with open(f"{saved_team}/{TEAM_FILE}", encoding="utf-8") as file:
        rollout = json.load(file)["rollout"]
    assert rollout == {"num_rounds": 2, "max_turns": None, "router": "random", "stop_string": "DONE"}


def test_a_built_in_router_of_the_user_is_described_by_the_options():
    agents = [Agent("a", "m"), Agent("b", "m")]
    turns = TurnTaking(num_rounds=2, router="random")
    for router, max_turns in ((RoundRobinRouter(4), None), (RoundRobinRouter(3), 3), (RoundRobinRouter(9), None)):
        description = describe_team(agents, turns, rules=make_rules(turns, "ab", router))
        assert description["rollout"] == {**vars(turns), "router": "round_robin", "max_turns": max_turns}
        assert description["code"] == dict.fromkeys(("router", "stop_condition", "environment_factory"))


def test_directory_of_a_saved_team_is_a_team(make_config, saved_team):
    same = make_config(num_rounds=2, router="random", stop_string="DONE")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_team(saved_team, same) == load_team(saved_team)
    with pytest.warns(
        UserWarning, match="saved with num_rounds=2 \\(now 1\\), router='random' \\(now 'round_robin'\\)"
    ):
        assert resolve_team(saved_team, make_config(stop_string="DONE")) == load_team(saved_team)


def test_load_team_without_a_team_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no team.json in"):
        load_team(str(tmp_path))


def test_same_team_and_empty_directory_pass(saved_team, tmp_path):
    check_same_team(saved_team, [Agent("solver", "x"), Agent("critic", "y")])
    check_same_team(str(tmp_path / "new"), [Agent("a", "x")])


@pytest.mark.parametrize("names", [["solver"], ["critic", "solver"], ["solver", "critic", "judge"], ["a", "b"]])
def test_another_team_raises_naming_the_difference(saved_team, names):
    message = f"its agents are solver, critic; this team's are {', '.join(names)}\\."
    with pytest.raises(ValueError, match=message):
        check_same_team(saved_team, [Agent(name, "x") for name in names])
