import sys

import datasets
import pytest
from datasets import Dataset
from trl.rewards import accuracy_reward

from trl_teamtr.tasks import link, loading, reasoning_gym
from trl_teamtr.tasks.loading import hold_out, load_reward, load_split


ROWS = {"prompt": ["one plus two", "two plus three"], "answer": ["3", "5"]}


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def load(name, **kwargs):
    return loading.load_split(name, "train", size=3, seed=0, **kwargs)


WRITERS = {
    "json": lambda rows, path: rows.to_json(path, lines=False),
    "jsonl": lambda rows, path: rows.to_json(path),
    "parquet": lambda rows, path: rows.to_parquet(path),
    "csv": lambda rows, path: rows.to_csv(path),
}


@pytest.mark.parametrize("extension", WRITERS)
def test_local_file(tmp_path, extension):
    path = str(tmp_path / f"rows.{extension}")
    WRITERS[extension](Dataset.from_dict(ROWS), path)
    dataset = load(path)
    assert dataset.column_names == ["prompt", "answer"]
    assert list(dataset["prompt"]) == ROWS["prompt"]
    assert [str(answer) for answer in dataset["answer"]] == ROWS["answer"]


def test_conversational_rows_of_a_local_file(tmp_path):
    path = str(tmp_path / "rows.jsonl")
    prompt = [{"role": "user", "content": "hello"}]
    Dataset.from_dict({"prompt": [prompt], "agent_prompts": [{"a": "secret"}]}).to_json(path)
    assert load(path)[0] == {"prompt": prompt, "agent_prompts": {"a": "secret"}}


@pytest.mark.parametrize("extension", WRITERS)
def test_missing_local_file_raises_with_the_directory(monkeypatch, tmp_path, extension):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"There is no file 'rows.{extension}'.*{tmp_path.name}"):
        load(f"rows.{extension}")


def test_reasoning_gym_task():
    dataset = load("reasoning_gym:chain_sum", min_terms=2, max_terms=2)
    assert dataset["entry"] == reasoning_gym.make_dataset("chain_sum", 3, 0, min_terms=2, max_terms=2)["entry"]
    assert dataset["entry"] != load("reasoning_gym:chain_sum", min_terms=5, max_terms=5)["entry"]


def test_link_task():
    dataset = load("link:4")
    assert dataset["digits"] == link.make_dataset(4, 3, 0)["digits"]
    assert len(dataset["digits"][0]) == 4


def test_other_names_are_datasets_on_the_hub(monkeypatch):
    calls = []
    monkeypatch.setattr(loading, "load_dataset", lambda *args, **kwargs: calls.append((args, kwargs)))
    loading.load_split("owner/data", "test", size=3, seed=0, config="main", streaming=True)
    assert calls == [(("owner/data",), {"name": "main", "split": "test", "streaming": True})]


@pytest.mark.parametrize(
    "name, reward",
    [("reasoning_gym:chain_sum", "reasoning_gym"), ("link:4", "link"), ("rows.jsonl", None), ("owner/link", None)],
)
def test_default_reward(name, reward):
    assert loading.default_reward(name) == reward


@pytest.mark.parametrize(
    "name, function",
    [
        ("accuracy_reward", accuracy_reward),
        ("link", link.link_reward),
        ("reasoning_gym", reasoning_gym.reasoning_gym_reward),
        ("trl_teamtr.tasks.link.link_reward", link.link_reward),
    ],
)
def test_reward_by_name_or_dotted_path(name, function):
    assert loading.load_reward(name) is function


def test_dotted_reward_from_the_working_directory(monkeypatch, tmp_path):
    (tmp_path / "own_rewards_for_test.py").write_text("def reward(completions, **kwargs):\n    return [7.0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    reward = loading.load_reward("own_rewards_for_test.reward")
    assert reward(completions=["x"]) == [7.0]
    del sys.modules["own_rewards_for_test"]


def test_unknown_reward_raises_listing_the_known_ones():
    with pytest.raises(ValueError, match="no reward function 'acuracy'. Use accuracy_reward, .*, or a dotted path"):
        loading.load_reward("acuracy")


@pytest.mark.parametrize("name", ["link:3", "reasoning_gym:chain_sum"])
def test_held_out_rows_share_no_task_with_the_training_rows(name):
    settings = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1} if "gym" in name else {}
    rows = load_split(name, "train", size=600, seed=0, **settings)
    train, held = hold_out(rows, 100, seed=0)
    tasks = [{str((row["prompt"], row.get("agent_prompts"))) for row in part} for part in (train, held)]
    assert len(held) == 100 and len(train) > 300 and not tasks[0] & tasks[1]
    assert tasks[0] | tasks[1] <= {str((row["prompt"], row.get("agent_prompts"))) for row in rows}


def test_held_out_rows_depend_on_the_seed_alone():
    rows = load_split("link:3", "train", size=600, seed=0)
    assert hold_out(rows, 50, seed=1)[1].to_list() == hold_out(rows, 50, seed=1)[1].to_list()
    assert hold_out(rows, 50, seed=1)[1].to_list() != hold_out(rows, 50, seed=2)[1].to_list()


def test_reward_function_that_the_module_lacks():
    with pytest.raises(ValueError, match="'json' has no function 'nope'"):
        load_reward("json.nope")
    with pytest.raises(ValueError, match="no reward function 'no_such_module.reward'"):
        load_reward("no_such_module.reward")


def test_dotted_reward_imports_the_named_module_alone(monkeypatch, tmp_path):
    package = tmp_path / "own_package_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rewards.py").write_text("def reward(completions, **kwargs):\n    return [7.0]\n")
    for neighbour in (package / "neighbour.py", tmp_path / "own_neighbour_for_test.py", package / "reward.py"):
        neighbour.write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    assert load_reward("own_package_for_test.rewards.reward")(completions=["x"]) == [7.0]
    assert set(sys.modules) - before == {"own_package_for_test", "own_package_for_test.rewards"}
    for name in set(sys.modules) - before:
        del sys.modules[name]
