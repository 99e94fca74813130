"""Scripted agents on every task of the three domains."""

import pytest

from trl_teamtr.tasks.loading import default_reward, is_generated, load_reward, load_split
from trl_teamtr.tasks.tau2.domain import in_store, load_domain
from trl_teamtr.tasks.tau2.environment import environment_class
from trl_teamtr.tasks.tau2.reward import replay, score, tau2_reward


pytest.importorskip("inspect_evals", reason="needs the extra `tau`")

# Calls that no reference makes, and that change what the tasks are scored by
WRONG = {
    "airline": ("assistant", "send_certificate", {"user_id": "anya_garcia_5901", "amount": 7}),
    "retail": (
        "assistant",
        "modify_user_address",
        {"user_id": "yusuf_rossi_9620"}
        | dict.fromkeys(("address1", "address2", "city", "state", "country", "zip"), "elsewhere"),
    ),
    "telecom": ("user", "toggle_airplane_mode", {}),
}
# Number of tasks, of those in which an empty policy is right, and of those whose scorer sees no write: telecom tasks that
# can only be handed over, and are scored by that call and by a service that cannot be restored
COUNTS = {
    ("airline", "base"): (50, 19, 0),
    ("retail", "base"): (114, 7, 0),
    ("telecom", "base"): (114, 0, 20),
    ("telecom", "full"): (2285, 0, 32),
}


def begin(name: str, task_id: str):
    world = environment_class(name)()
    world.reset(task_id)
    return world


def say_required(world) -> list[dict]:
    info = world.task.evaluation_criteria.communicate_info or []
    return [{"role": "assistant", "name": "assistant", "content": f"It is {text}."} for text in info]


@pytest.mark.parametrize("name, split", COUNTS)
def test_scripted_policies_on_all_tasks(name, split):
    ids = load_domain(name).splits[split]
    empty_is_right = unseen = 0
    for task_id in ids:
        world = begin(name, task_id)
        before, messages = world._state(), say_required(world)
        needs_call = name == "telecom" and "ACTION" in world.task.evaluation_criteria.reward_basis
        empty = score(world, [])
        replay(world)
        assert score(world, messages) == 1.0, task_id
        nothing_to_do = world._state() == before and not messages and not needs_call
        assert empty == float(nothing_to_do), task_id
        assert score(world, []) == float(not messages), task_id
        empty_is_right += nothing_to_do
        world._call(*WRONG[name])
        wrong = score(world, messages)
        assert wrong == float(needs_call), task_id
        unseen += bool(wrong)
    print(
        f"{name}, {split}: {len(ids)} tasks, an empty policy is right in {empty_is_right}, no write is seen in {unseen}"
    )
    assert (len(ids), empty_is_right, unseen) == COUNTS[name, split]


def test_states_are_equal_where_the_benchmarks_hashes_are():
    """What was changed in a shared database, against the hash of all of it."""
    from inspect_ai.util import store_as
    from inspect_evals.tau2.retail.RetailAgentTools import RetailAgentTools

    def full_hash(world):
        return in_store(world._store, lambda: store_as(RetailAgentTools, "RetailTools").db.get_hash())

    worlds = []
    for task_id in load_domain("retail").splits["base"][:6]:
        for play in (lambda world: None, replay, lambda world: world._call(*WRONG["retail"])):
            worlds.append(begin("retail", task_id))
            play(worlds[-1])
    hashes, states = [full_hash(world) for world in worlds], [world._state() for world in worlds]
    for i in range(len(worlds)):
        for j in range(i):
            assert (hashes[i] == hashes[j]) == (states[i] == states[j])
    assert len(set(hashes)) > 4


def test_what_the_user_says_was_not_said_by_the_assistant():
    domain = load_domain("airline")
    task = next(task for task in domain.tasks.values() if task.evaluation_criteria.communicate_info)
    world = begin("airline", task.id)
    replay(world)
    messages = say_required(world)
    assert score(world, messages) == 1.0
    assert score(world, [message | {"name": "user"} for message in messages]) == 0.0
    assert score(world, messages[1:]) == 0.0


def test_commas_and_case_do_not_matter():
    world = begin("airline", load_domain("airline").splits["base"][0])
    world.task = world.task.model_copy(deep=True)
    world.task.evaluation_criteria.communicate_info = ["1234 USD"]
    replay(world)
    assert score(world, [{"name": "assistant", "content": "It costs 1,234 usd."}]) == 1.0


def test_reward_of_a_batch_and_its_dataset():
    rows = load_split("tau2:airline", "test", size=3, seed=0)
    worlds = [begin(row["domain"], row["task_id"]) for row in list(rows)[:4]]
    for world in worlds:
        replay(world)
    worlds[0]._call(*WRONG["airline"])
    rewards = tau2_reward(transcripts=[say_required(world) for world in worlds], environments=worlds, prompts=None)
    assert rewards == [0.0, 1.0, 1.0, 1.0]
    assert load_reward(default_reward("tau2:airline")) is tau2_reward and not is_generated("tau2:airline")
