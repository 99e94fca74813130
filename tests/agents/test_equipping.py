"""Which agent has which tools, and that a saved team has them again."""

import json

import pytest
import tool_teams
from datasets import Dataset
from tiny import answer_reward, make_config, make_trainer
from tool_teams import PROMPT, Dial, key, tool_team

from trl_teamtr import Agent, Team, TeamTRTrainer, load_team
from trl_teamtr.agents.equipping import equip
from trl_teamtr.agents.resolving import speaking_defaults
from trl_teamtr.agents.team_file import read_speaking_settings


SETTINGS = {"max_tool_result_length": 1, "max_tool_calling_iterations": 1}
DATASET = Dataset.from_dict({"prompt": [PROMPT] * 8})


def turn() -> str:
    """Says something."""
    return "b"


def other() -> str:
    """Says something else."""
    return "a"


def names(environments, agent):
    return [tool.__name__ for tool in environments.tools_of(agent.name)]


def test_agents_have_the_tools_of_the_team_unless_they_have_their_own():
    team = [Agent("x", "m"), Agent("y", "m", tools=[other]), Agent("z", "m", tools=[])]
    assert equip(team, [turn]) is None
    assert [agent.tools for agent in team] == [[turn], [other], []]


def test_agents_name_the_methods_that_they_may_call():
    team = [Agent("x", "m"), Agent("y", "m", tools=[other]), Agent("z", "m", tools=["turn", other])]
    environments = equip(team, [turn], Dial)
    assert [names(environments, agent) for agent in team] == [["turn"], [], ["turn"]]


@pytest.mark.parametrize(
    "agent, arguments, message",
    [
        (Agent("x", "m", tools=["turn"]), {}, "the name of a method, but the team has no environment"),
        (
            Agent("x", "m", tools=["jump"]),
            {"environment_factory": Dial},
            "'jump', which is no method of its environments",
        ),
        (Agent("x", "m"), {"tools": turn}, "`tools` is one function"),
        (Agent("x", "m"), {"environment_factory": {"a": Dial}}, "`environment_factory` is a dict of 1"),
    ],
)
def test_what_a_team_cannot_be_given(agent, arguments, message):
    with pytest.raises(ValueError, match=message):
        equip([agent], **arguments)


@pytest.mark.parametrize(
    "fields, message", [({"tools": [3]}, "has the tool 3"), ({"tool_visibility": "none"}, "caller")]
)
def test_what_an_agent_cannot_have(fields, message):
    with pytest.raises(ValueError, match=message):
        Agent("x", "m", **fields)


def save(folder, team, **fields):
    trainer = make_trainer(folder / "run", team, answer_reward, DATASET, **SETTINGS, **fields)
    trainer.save_model(str(folder / "team"))
    for agent in team:  # a tokenizer without a name is not saved with its response template
        agent.processing_class.save_pretrained(folder / "team" / agent.name)
    return trainer, str(folder / "team")


def test_a_saved_team_has_its_tools_and_its_environment(tmp_path):
    team = tool_team()
    team[1].tools, team[1].tool_visibility = [turn], "all"
    trainer, path = save(tmp_path, team, environment_factory=Dial)
    content = json.loads((tmp_path / "team" / "team.json").read_text())
    assert content["code"]["environment_factory"] == {"path": "tool_teams.Dial", "shown": "Dial"}
    assert content["agents"][1]["tools"] == [{"path": "test_equipping.turn", "shown": "turn"}]
    assert read_speaking_settings(path).tools.max_tool_result_length == 1

    agents = load_team(path)
    assert agents[0].tools is None and agents[1].tools == [turn] and agents[1].tool_visibility == "all"
    loaded = Team.from_pretrained(path)
    assert loaded.settings.environments.of_team is Dial
    for mine, its in zip(
        trainer.team.generate([PROMPT] * 16, seed=3), loaded.generate([PROMPT] * 16, seed=3), strict=True
    ):
        assert key(mine) == key(its)
    again = TeamTRTrainer(path, answer_reward, make_config(tmp_path / "b", **SETTINGS), DATASET)
    assert again.team.settings.environments.of_team is Dial and again.agent.tools is None
    defaults = speaking_defaults(path)
    assert defaults["max_tool_result_length"] == defaults["max_tool_calling_iterations"] == 1


def test_tools_that_cannot_be_saved_are_given_again(tmp_path):
    def turn() -> str:
        """Is of this test alone."""
        return "b"

    team = tool_team()
    _, path = save(tmp_path, team, tools=[turn])
    with pytest.raises(
        ValueError, match="has a tool 'test_tools.*turn' of agent 'x' of its own, .* cannot be imported"
    ):
        load_team(path)
    loaded = Team.from_pretrained(path, tools=[turn])
    assert [speaker.agent.tools for speaker in loaded.speakers] == [[turn], [turn]]


def test_tools_of_a_downloaded_team_are_not_imported(tmp_path, monkeypatch):
    _, path = save(tmp_path, tool_team(), environment_factory=tool_teams.Dial)
    monkeypatch.setattr("trl_teamtr.agents.team_file.snapshot_download", lambda *args, **kwargs: path)
    with pytest.raises(ValueError, match="was downloaded, names 'tool_teams.Dial' as its environment_factory"):
        Team.from_pretrained("me/team")
    assert Team.from_pretrained("me/team", trust_remote_code=True).settings.environments.of_team is Dial


class Riddle(Dial):
    """Is reset with a column of the row."""

    def reset(self, prompt, secret, **row):
        self.count = secret
        return "u" * secret


def test_a_row_of_a_dataset_can_be_asked(tmp_path):
    dataset = Dataset.from_dict({"prompt": [PROMPT] * 8, "secret": [1] * 8})
    trainer = make_trainer(tmp_path, tool_team(), answer_reward, dataset, environment_factory=Riddle, **SETTINGS)
    row = {"prompt": PROMPT, "secret": 2}
    talk = trainer.team.chat(row, seed=0)
    assert talk.observations == {"x": "uu", "y": "uu"} and talk.world.team.count >= 2
    (generated,) = trainer.team.generate([row], seed=0)
    assert key(generated) == key(talk)
    heard = list(trainer.team.stream(row, seed=0))
    assert [message.agent for message in heard] == ["x", "y"]
