"""Evaluations of teams that act on an environment: each conversation has its own, and its reward is read once, at its end."""

import json

import pytest
import tool_teams
from datasets import Dataset
from tiny import make_config, make_trainer
from tool_teams import CALL, PROMPT, Dial, tool_team

from trl_teamtr import Agent, Team
from trl_teamtr.cli import evaluate as command
from trl_teamtr.evaluation import EvaluationConfig, evaluate_protocols
from trl_teamtr.evaluation.equipment import Equipment


ROWS = Dataset.from_dict({"prompt": [PROMPT] * 4, "wanted": [0, 1, 2, 3]})


class Counted(Dial):
    """Right if it was turned as often as the row wants."""

    asked: list["Counted"] = []

    def reset(self, wanted, **row):
        super().reset()
        self.wanted = wanted

    def get_reward(self):
        self.asked.append(self)
        return float(self.count == self.wanted)


@pytest.fixture(autouse=True)
def asked():
    Counted.asked.clear()
    return Counted.asked


def calls_of(record):
    (transcript,) = record["transcripts"]
    return sum(len(part.get("tool_calls", [])) for part in transcript)


def evaluate(folder, team, reward_funcs=None, environment_factory=Counted, fields=None, **settings):
    fields = {"max_tool_calling_iterations": 1, "max_tool_result_length": 1, "per_device_eval_batch_size": 3} | (
        fields or {}
    )
    config = EvaluationConfig(**{"num_samples": 8, **settings})
    args = make_config(folder / "out", **fields)
    return evaluate_protocols(team, reward_funcs, ROWS, args, config, environment_factory=environment_factory)


def test_every_conversation_is_scored_in_the_state_of_its_own_environment(tmp_path, asked):
    result = evaluate(tmp_path, tool_team())["team"]
    assert len(result.records) == 32 and {calls_of(record) for record in result.records} == {0, 1, 2}
    for record in result.records:
        assert record["reward"] == float(calls_of(record) == ROWS[record["task"]]["wanted"])
        assert record["earlier_rewards"] is None
    assert 0 < result.accuracy < 1 and result.coordination is None
    # Once each, and one more for what fills the last batch of one process: none
    assert len(asked) == len(set(map(id, asked))) == 32


def test_rewards_get_the_environments_and_are_weighed_beside_theirs(tmp_path):
    def turns(environments, transcripts, **kwargs):
        found = [environment.count for environment in environments]
        assert found == [sum(part["role"] == "tool" for part in rollout) for rollout in transcripts]
        return [10.0 * count for count in found]

    fields = {"reward_weights": [0.5]}
    result = evaluate(tmp_path, tool_team(), turns, fields=fields, threshold=1.0)["team"]
    for record in result.records:
        count = calls_of(record)
        assert record["reward"] == 5.0 * count + (count == ROWS[record["task"]]["wanted"])


def test_a_single_model_has_the_tools_of_the_team_and_may_be_sampled_more_often(tmp_path, asked):
    team = tool_team()
    team[1].tools = []  # the last, which is the single model, calls nothing in the team
    results = evaluate(tmp_path, team, protocols=["single", "best_of_n"], budget_samples=3)
    assert {calls_of(record) for record in results["single"].records} == {0, 1}
    for single, best in zip(results["single"].records, results["best_of_n"].records, strict=True):
        assert single["reward"] == float(calls_of(single) == ROWS[single["task"]]["wanted"])
        assert len(best["transcripts"]) == 3 and best["reward"] >= single["reward"]
    assert len(asked) == 32 * 3


@pytest.mark.parametrize("protocol", ["majority", "debate", "debate_judge", "role_play"])
def test_protocols_without_an_environment_are_refused_by_name(tmp_path, protocol):
    with pytest.raises(ValueError, match=f"Protocol '{protocol}' is not possible with an environment"):
        evaluate(tmp_path, tool_team(), protocols=[protocol, "team"])


def test_an_environment_of_one_agent_is_for_the_team_alone():
    team = [Agent("x", "X", environment_factory=Counted), Agent("y", "Y")]
    equipment = Equipment.of(team, None, None, EvaluationConfig())
    assert equipment.acts and equipment.environments.rewards == ["Counted"]
    with pytest.raises(ValueError, match="Protocol 'single' is not possible: agent 'x' has an environment of its own"):
        Equipment.of(team, None, None, EvaluationConfig(protocols=["team", "single"]))


def test_functions_stay_with_their_agents_where_nobody_acts():
    def look(where: str) -> str:
        """
        Looks.

        Args:
            where: Where.
        """

    team = [Agent("x", "X", tools=[look]), Agent("y", "Y")]
    equipment = Equipment.of(team, [len], None, EvaluationConfig(protocols=["debate"]))
    assert not equipment.acts and equipment.tools == [len] and equipment.functions == [len, look]
    assert equipment.seat_one(team[:1]) == team[:1]


def save_team(folder):
    fields = {"max_tool_result_length": 1, "max_tool_calling_iterations": 1}
    make_trainer(folder, tool_team(), [], ROWS, environment_factory=tool_teams.Scored, **fields).save_model()


def test_a_saved_team_is_evaluated_by_the_command(tmp_path, asked, capsys):
    """As it was saved, its environment by its dotted path."""
    save_team(tmp_path / "run")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = [
        "--team",
        str(tmp_path / "run"),
        "--dataset_name",
        str(rows),
        "--num_samples",
        "4",
        "--use_cpu",
        "true",
        "--bf16",
        "false",
    ]
    arguments += [
        "--output",
        str(tmp_path / "out.json"),
        "--episodes",
        str(tmp_path / "out.jsonl"),
        "--disable_tqdm",
        "true",
    ]
    command.run(arguments)
    figures = json.loads((tmp_path / "out.json").read_text())
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["reward"] for record in records] == [float(calls_of(record) == 1) for record in records]
    assert 0 < figures["protocols"]["team"]["accuracy"] == sum(record["reward"] for record in records) / 16 < 1
    assert figures["rewards"] == []
    with pytest.raises(ValueError, match="Protocol 'debate' is not possible with an environment"):
        command.run([*arguments, "--protocols", "debate"])


def test_a_team_generates_on_environments_of_its_own(tmp_path):
    save_team(tmp_path / "run")
    team = Team.from_pretrained(str(tmp_path / "run"))
    talks = team.generate(list(ROWS) * 4, seed=0, batch_size=5)
    assert len({id(talk.world.team) for talk in talks}) == 16
    for talk in talks:
        count = sum(len(use.calls) for message in talk.messages for use in message.tool_uses)
        assert talk.world.team.count == count and talk.world.rewards() == {"Scored": float(count == 1)}
    assert {talk.world.team.count for talk in talks} >= {0, 1}
    assert any(CALL == message.segment(0) for talk in talks for message in talk.messages)
    assert team.chat(ROWS[0], seed=0) == team.generate([ROWS[0]], seed=0)[0]
