from inspect import getmembers, isfunction
from pathlib import Path

import pytest
from transformers.utils import get_json_schema

from trl_teamtr.cli.arguments import load_data, load_equipment, make_agents
from trl_teamtr.cli.train import make_parser
from trl_teamtr.tasks.tau2.dataset import make_dataset
from trl_teamtr.tasks.tau2.domain import DOMAINS, in_store, load_domain
from trl_teamtr.tasks.tau2.environment import airline, environment_class, retail, telecom


pytest.importorskip("inspect_evals", reason="needs the extra `tau`")
from inspect_ai.tool import ToolError  # noqa: E402
from inspect_ai.util import Store, store  # noqa: E402


FACTORIES = {"airline": airline, "retail": retail, "telecom": telecom}


@pytest.mark.parametrize("name", DOMAINS)
def test_tools_are_the_public_methods_and_have_schemas(name):
    world = FACTORIES[name]()
    tools = {each for each, _ in getmembers(type(world), isfunction) if each != "reset" and not each.startswith("_")}
    assert tools == {*world.assistant_tools, *world.user_tools} and tools
    assert bool(world.user_tools) == (name == "telecom")
    for tool in sorted(tools):
        schema = get_json_schema(getattr(world, tool))["function"]
        assert schema["name"] == tool and schema["description"]
        assert all(each["description"] for each in schema["parameters"]["properties"].values())


def test_factories_make_instances_of_one_class():
    assert type(airline()) is type(airline()) is environment_class("airline") and airline() is not airline()


@pytest.mark.parametrize("name", DOMAINS)
def test_rows_name_their_task_and_tell_each_party_its_part(name):
    rows = make_dataset(name, "test")
    assert rows.column_names == ["prompt", "agent_prompts", "task_id", "domain"] and len(rows) >= 20
    domain = load_domain(name)
    for row in rows:
        assert row["domain"] == name and row["task_id"] in domain.tasks
        assert domain.policy in row["agent_prompts"]["assistant"]
        scenario = str(domain.tasks[row["task_id"]].user_scenario)
        assert scenario in row["agent_prompts"]["user"] and scenario not in row["agent_prompts"]["assistant"]
    assert not set(make_dataset(name, "train")["task_id"]) & set(rows["task_id"])
    with pytest.raises(ValueError, match="no split 'other'.*train, test"):
        make_dataset(name, "other")


def test_example_gives_each_party_all_of_its_tools():
    config = Path(__file__).parents[3] / "examples" / "tau2_telecom.yaml"
    script_args, training_args, _ = make_parser().parse_args_and_config(["--config", str(config), "--use_cpu", "true"])
    agents = {agent.name: agent for agent in make_agents(script_args.agents, training_args)}
    world = load_equipment(script_args)["environment_factory"]()
    assert agents["assistant"].tools == list(world.assistant_tools) and agents["user"].tools == list(world.user_tools)
    assert agents["assistant"].trainable and not agents["user"].trainable
    train, held_out = load_data(script_args, training_args)
    assert set(train[0]["agent_prompts"]) == set(agents) and not set(train["task_id"]) & set(held_out["task_id"])


def test_unknown_domain_is_refused():
    with pytest.raises(ValueError, match="no domain 'bank'.*airline, retail, telecom"):
        load_domain("bank")


def begin(name: str):
    world = FACTORIES[name]()
    task_id = load_domain(name).splits["test"][0]
    assert world.reset(**{"task_id": task_id, "prompt": "?", "domain": name}) is None
    return world


WRITES = {
    "airline": ("send_certificate", {"user_id": "anya_garcia_5901", "amount": 7}),
    "retail": (
        "modify_user_address",
        {"user_id": "yusuf_rossi_9620"}
        | dict.fromkeys(("address1", "address2", "city", "state", "country", "zip"), "elsewhere"),
    ),
    "telecom": ("toggle_airplane_mode", {}),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_environments_do_not_see_each_other(name):
    one, other = begin(name), begin(name)
    before = other._state()
    tool, arguments = WRITES[name]
    assert one._state() == before
    getattr(one, tool)(**arguments)
    assert one._state() != before == other._state() == begin(name)._state()
    assert one.calls[-1][1:] == (tool, arguments) and other.calls == []


@pytest.mark.parametrize("name", DOMAINS)
def test_calls_have_the_same_results_again(name):
    tool, arguments = WRITES[name]
    results = []
    world = begin(name)
    for _ in range(2):
        world.reset(world.task.id)
        results.append([getattr(world, tool)(**arguments), world._state()])
    assert results[0] == results[1]


def test_errors_of_a_tool_are_raised_with_their_message_and_change_nothing():
    world = begin("airline")
    before = world._state()
    with pytest.raises(ToolError, match="User nobody not found"):
        world.get_user_details(user_id="nobody")
    with pytest.raises(TypeError):
        world.get_user_details(name="nobody")
    assert world._state() == before


def test_expression_that_would_never_end_is_an_error():
    with pytest.raises(ToolError, match="too large"):
        begin("airline").calculate("9**9**9")


def test_users_write_is_seen_by_the_assistants_side():
    """Telecom's databases are synchronised after each call: a bill that the user pays is paid."""
    domain = load_domain("telecom")
    task = next(
        task
        for task in domain.tasks.values()
        if any(action.name == "make_payment" for action in task.evaluation_criteria.actions)
    )
    world = telecom()
    world.reset(task.id)
    for action in task.evaluation_criteria.actions:
        if action.name == "make_payment":
            assert "Paid" not in world.get_details_by_id("B1234321")
        getattr(world, action.name)(**action.arguments)
    assert "Paid" in world.get_details_by_id("B1234321")


def test_nothing_is_left_in_inspects_own_store():
    before = dict(store()._data)
    tool, arguments = WRITES["airline"]
    getattr(begin("airline"), tool)(**arguments)
    assert dict(store()._data) == before
    own = Store()
    assert in_store(own, store) is own and store() is not own
