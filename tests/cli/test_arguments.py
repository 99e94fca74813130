"""The team and the tasks of a command line or a YAML file."""

import json
import math
from types import SimpleNamespace

import pytest
import tool_teams
from trl.rewards import think_format_reward

from trl_teamtr.cli.arguments import (
    load_data,
    load_equipment,
    make_agents,
    save_tasks,
    set_model_init_kwargs,
    task_kwargs,
    task_seed,
)
from trl_teamtr.tasks.link import link_reward


def arguments(**fields):
    defaults = {"dataset_name": "link:2", "dataset_config": None, "dataset_streaming": False, "dataset_kwargs": None}
    defaults |= {"dataset_train_split": "train", "dataset_test_split": "test", "dataset_seed": None}
    defaults |= {"dataset_path": None, "eval_dataset_path": None}
    defaults |= {"dataset_size": 20, "eval_size": 4, "eval_dataset_name": None}
    return SimpleNamespace(**(defaults | fields))


def training(folder="run", **fields):
    return SimpleNamespace(
        **(
            {"seed": 3, "eval_strategy": "no", "do_eval": False, "process_index": 0, "output_dir": str(folder)}
            | fields
        )
    )


def test_agents_are_mappings_with_peft_or_their_json():
    team = [{"name": "a", "model": "m", "peft": {"r": 3}}, {"name": "b", "model": "m", "trainable": False}]
    for specification in (team, json.dumps(team)):
        first, second = make_agents(specification, training())
        assert first.peft_config.r == 3 and first.peft_config.task_type == "CAUSAL_LM"
        assert second.peft_config is None and not second.trainable
    assert "peft" in team[0]  # what the YAML file says is left alone


def test_an_agents_own_rewards_are_names():
    entry = {
        "name": "a",
        "model": "m",
        "reward_funcs": ["link", "trl.rewards.think_format_reward"],
        "reward_weights": [1, 0.5],
    }
    (agent,) = make_agents([entry], training())
    assert agent.reward_funcs == [link_reward, think_format_reward] and agent.reward_weights == [1, 0.5]
    with pytest.raises(ValueError, match="reward function"):
        make_agents([entry | {"reward_funcs": ["nonsense"]}], training())


def test_tools_and_environments_are_dotted_paths_and_names_of_methods():
    entry = {"name": "a", "model": "m", "tools": ["math.gcd", "turn"], "environment_factory": "tool_teams.Saved"}
    (agent,) = make_agents([entry], training())
    assert agent.tools == [math.gcd, "turn"] and agent.environment_factory is tool_teams.Saved
    given = load_equipment(arguments(tools=["math.gcd"], environment_factory="tool_teams.Dial"))
    assert given == {"tools": [math.gcd], "environment_factory": tool_teams.Dial}
    none = load_equipment(arguments(tools=None, environment_factory=None))
    assert none == {"tools": None, "environment_factory": None}
    with pytest.raises(ValueError, match="There is no environment 'no_such_module.World'"):
        load_equipment(arguments(tools=None, environment_factory="no_such_module.World"))


def test_tasks_are_held_out_where_they_are_asked_for():
    train, held_out = load_data(arguments(), training())
    assert len(train) == 24 and held_out is None
    train, held_out = load_data(arguments(), training(do_eval=True))
    assert len(held_out) == 4 and len(train) <= 20
    assert not any(digits in train["digits"] for digits in held_out["digits"])


def test_settings_of_a_task_are_a_mapping_or_json():
    assert task_kwargs(arguments(dataset_kwargs='{"min_terms": 2}')) == {"min_terms": 2}
    assert task_kwargs(arguments(dataset_kwargs={"a": 1})) == {"a": 1} and task_kwargs(arguments()) == {}
    assert task_seed(arguments(), training()) == 3 and task_seed(arguments(dataset_seed=0), training()) == 0


def aime(folder, name, numbers):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{n} of {name}?", "answer": str(n)}) + "\n" for n in numbers))
    return str(path)


def test_rows_of_a_benchmark_with_one_split_are_held_out(tmp_path):
    given = arguments(dataset_name="math500", dataset_path=aime(tmp_path, "a", range(20)), eval_size=4)
    train, held_out = load_data(given, training(do_eval=True))
    assert (len(train), len(held_out)) == (16, 4) and not set(train["answer"]) & set(held_out["answer"])
    assert len(load_data(given, training())[0]) == 20


def test_another_benchmark_for_evaluation_has_a_path_of_its_own(tmp_path):
    paths = {"dataset_path": aime(tmp_path, "a", range(9)), "eval_dataset_path": aime(tmp_path, "b", range(3))}
    given = arguments(dataset_name="math500", eval_dataset_name="aime24", **paths)
    train, held_out = load_data(given, training(do_eval=True))
    assert len(train) == 9 and held_out["answer"][:] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "fields, held_out", [({}, False), ({"do_eval": True}, True), ({"eval_strategy": "steps"}, True)]
)
def test_tasks_are_written_down_for_the_evaluation(tmp_path, fields, held_out):
    save_tasks(arguments(), training(tmp_path, **fields))
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks["held_out"] == held_out and tasks["seed"] == 3 and tasks["dataset_size"] == 20


def test_tasks_of_ones_own_are_not(tmp_path):
    save_tasks(arguments(dataset_name="rows.jsonl"), training(tmp_path))
    save_tasks(arguments(), training(tmp_path, process_index=1))
    assert list(tmp_path.iterdir()) == []


def test_model_init_kwargs_go_before_the_model_config():
    args = SimpleNamespace(model_init_kwargs={"dtype": "bfloat16"})
    set_model_init_kwargs(args, SimpleNamespace(model_revision="r", attn_implementation=None, dtype="float32"))
    assert args.model_init_kwargs == {"revision": "r", "attn_implementation": None, "dtype": "bfloat16"}
