"""scripts/evaluate.py, in this process."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import Dataset
from tiny import make_model, make_team, make_trainer

from trl_teamtr import Agent
from trl_teamtr.cli import evaluate
from trl_teamtr.cli.arguments import load_data, save_tasks
from trl_teamtr.tasks import link, loading
from trl_teamtr.tasks.link import link_reward


ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
ON_CPU = ["--use_cpu", "true", "--bf16", "false", "--disable_tqdm", "true", "--max_completion_length", "2"]
SHORT = ["--debate_prompt", "a", "--judge_prompt", "b", "--role_prompts", "a", "u"]

REWARD = "def has_a(completions, **kwargs):\n    return [float('a' in completion) for completion in completions]\n"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, tmp_path_factory, monkeypatch):
    """With a reward in a module of its own; nothing but what is asked for is written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    (tmp_path / "own_rewards.py").write_text(REWARD)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A team of two rounds, a team for LINK, and a model, all on disk."""
    folder = tmp_path_factory.mktemp("saved")
    team = make_team(2)
    team[0].processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    make_trainer(folder / "team", team, num_rounds=2).save_model()
    tokenizer = link.make_tokenizer()
    linked = [Agent(name, link.make_model(tokenizer, i), processing_class=tokenizer) for i, name in enumerate("ab")]
    dataset = link.make_dataset(2, 8, 0)
    make_trainer(folder / "link", linked, link_reward, dataset).save_model()
    make_model(seed=7).save_pretrained(folder / "model")
    team[0].processing_class.save_pretrained(folder / "model")
    return folder


def run(*arguments, output="results/out.json"):
    evaluate.main(*evaluate.parse([*map(str, arguments), *ON_CPU, "--output", output]))
    return json.loads(Path(output).read_text())


def write_rows(path: Path, count: int = 5):
    rows = Dataset.from_dict({"prompt": ["a" * n for n in range(1, count + 1)]})
    {".jsonl": rows.to_json, ".parquet": rows.to_parquet}[path.suffix](str(path))


def test_link_team_on_its_task(saved, capsys):
    arguments = ["--team", saved / "link", "--dataset_name", "link:2", "--dataset_size", 40, "--eval_size", 6]
    found = run(*arguments, "--num_samples", 3, "--k", 1, 3)
    assert found["rows"] == found["protocols"]["team"]["num_tasks"] == 6 and found["rewards"] == ["link"]
    assert found["protocols"]["team"]["coordination"] is None and found["baselines"] is None
    assert set(found["protocols"]["team"]["pass_at_k"]) == {"1", "3"}
    lines = capsys.readouterr().out.splitlines()
    title, head, row = lines[next(i for i, line in enumerate(lines) if "on 6 tasks of link:2" in line) :][:3]
    assert row.startswith("team  ") and len(row) == len(head) and not head.startswith("team")


def test_tasks_are_those_that_a_training_with_the_same_arguments_holds_out(saved):
    arguments = ["--dataset_name", "link:2", "--dataset_size", 40, "--eval_size", 6, "--seed", 3]
    run("--team", saved / "link", *arguments, "--episodes", "episodes.jsonl", "--dataset_seed", 5, "--seed", 4)
    script_args, _, training_args, _ = evaluate.parse([*map(str, arguments), "--dataset_seed", "5", *ON_CPU])
    training_args.do_eval = True
    rows, held_out = load_data(script_args, training_args)
    records = [json.loads(line) for line in Path("episodes.jsonl").read_text().splitlines()]
    assert len(records) == len(held_out) and not {tuple(d) for d in held_out["digits"]} & {
        tuple(d) for d in rows["digits"]
    }
    for record in records:
        own = held_out[record["task"]]["digits"]
        assert list(record["agent_prompts"].values()) == [str(digit) for digit in own]
        said = [message["content"] for message in record["transcripts"][0]]
        assert record["reward"] == float(said[1][:1] == str(own[0]))


def test_tasks_are_those_that_the_teams_training_held_out(saved):
    """Whatever seed and size the evaluation has."""
    shutil.copytree(saved / "link", "runs/link")
    arguments = ["--team", "runs/link/checkpoint-2", "--dataset_name", "link:2", *ON_CPU]
    shutil.copytree("runs/link", "runs/link/checkpoint-2")
    training = ["--dataset_size", "40", "--seed", "3", "--do_eval", "true", "--output_dir", "runs/link"]
    script_args, _, training_args, _ = evaluate.parse([*arguments, *training, "--eval_size", "6"])
    save_tasks(script_args, training_args)
    _, held_out = load_data(script_args, training_args)
    for more, size in ((["--eval_size", "4"], 4), (["--seed", "8", "--dataset_size", "20"], 6)):
        script_args, _, training_args, _ = evaluate.parse([*arguments, *more])
        assert list(evaluate.load_tasks(script_args, training_args)) == list(held_out.take(size))
    script_args, _, training_args, _ = evaluate.parse([*arguments, "--dataset_seed", "77"])
    assert list(evaluate.load_tasks(script_args, training_args))[:6] != list(held_out)


def test_evaluation_on_tasks_of_the_training_is_told(saved):
    shutil.copytree(saved / "link", "runs/link")
    arguments = ["--team", "runs/link", "--dataset_name", "link:2", "--dataset_size", "40", *ON_CPU]
    script_args, _, training_args, _ = evaluate.parse([*arguments, "--seed", "3", "--output_dir", "runs/link"])
    save_tasks(script_args, training_args)
    with pytest.warns(UserWarning, match="held out no tasks .*pass `--dataset_seed 243`"):
        evaluate.load_tasks(script_args, training_args)


def test_settings_of_the_training_that_an_evaluation_has_no_use_for(saved):
    """Those of a training on four processes, evaluated on one."""
    write_rows(Path("rows.jsonl"), 2)
    training = {"per_device_train_batch_size": 2, "num_generations": 8, "per_device_eval_batch_size": 3}
    training |= {"monitor_fraction": 0.5, "log_certificate": True, "top_p": 0.9, "kl_estimator": "exact"}
    Path("train.yaml").write_text(yaml.safe_dump(training))
    arguments = ["--dataset_name", "rows.jsonl", "--reward_funcs", "own_rewards.has_a", "--config", "train.yaml"]
    assert run("--team", saved / "team", *arguments)["top_p"] == 0.9


def test_votes_are_counted_by_a_reader_of_ones_own(saved):
    write_rows(Path("rows.jsonl"), 2)
    Path("own_rewards.py").write_text(REWARD + "\n\ndef none(text, row):\n    raise KeyError('read')\n")
    arguments = ["--dataset_name", "rows.jsonl", "--reward_funcs", "own_rewards.has_a", *SHORT]
    arguments += ["--team", saved / "team", "--protocols", "majority", "--budget_samples", 2, "--extract_answer"]
    with pytest.raises(KeyError, match="read"):
        run(*arguments, "own_rewards.none")
    with pytest.raises(ValueError, match="There is no function 'nothing'. Use a dotted path"):
        run(*arguments, "nothing")


def test_reasoning_gym_with_every_protocol(saved):
    settings = ["--dataset_name", "reasoning_gym:chain_sum", "--dataset_kwargs", '{"min_terms": 2, "max_terms": 2}']
    protocols = ["team", "single", "best_of_n", "majority", "debate", "debate_judge", "role_play"]
    arguments = ["--team", saved / "team", "--protocols", *protocols, "--num_samples", 2, "--k", 1, 2, *SHORT]
    found = run(*arguments, *settings, "--dataset_size", 20, "--eval_size", 4)
    assert list(found["protocols"]) == protocols and found["rewards"] == ["reasoning_gym"]
    assert all(result["num_tasks"] == 4 for result in found["protocols"].values())
    assert found["protocols"]["majority"]["samples_per_answer"] > 1


@pytest.mark.parametrize("extension", [".jsonl", ".parquet"])
def test_local_file_with_a_reward_of_ones_own(saved, extension):
    write_rows(Path(f"rows{extension}"))
    arguments = ["--dataset_name", f"rows{extension}", "--reward_funcs", "own_rewards.has_a", "--num_samples", 2]
    found = run("--team", saved / "team", *arguments, "--episodes", "all/episodes.jsonl")
    records = [json.loads(line) for line in Path("all/episodes.jsonl").read_text().splitlines()]
    assert [(record["task"], record["sample"]) for record in records] == [(t, s) for t in range(5) for s in range(2)]
    assert found["protocols"]["team"]["reward"] == sum("a" in record["answer"] for record in records) / 10
    again = run("--team", saved / "team", *arguments, output="again.json")
    assert again == found
    assert sorted(path.name for path in Path().iterdir()) == sorted(
        ["again.json", "all", "own_rewards.py", "results", f"rows{extension}"]
        + [path.name for path in Path().glob("__pycache__")]
    )


def test_dataset_of_the_hub(saved, monkeypatch):
    asked = []

    def load_dataset(path, **kwargs):
        asked.append((path, kwargs["name"], kwargs["split"]))
        return Dataset.from_dict({"prompt": ["a", "u", "aa"]})

    monkeypatch.setattr(loading, "load_dataset", load_dataset)
    arguments = ["--dataset_name", "owner/tasks", "--dataset_config", "main", "--dataset_test_split", "validation"]
    found = run("--team", saved / "team", *arguments, "--reward_funcs", "own_rewards.has_a")
    assert asked == [("owner/tasks", "main", "validation")] and found["rows"] == 3


def test_other_dataset_for_evaluation(saved):
    """As in `train.py`, where it is not the one of the training."""
    arguments = ["--team", saved / "link", "--dataset_name", "owner/data", "--eval_dataset_name", "link:2"]
    found = run(*arguments, "--eval_size", 4)
    assert found["dataset"] == "link:2" and found["rows"] == 4 and found["rewards"] == ["link"]


def test_turn_taking_is_the_saved_one_unless_told_otherwise(saved):
    write_rows(Path("rows.jsonl"), 1)
    arguments = ["--team", saved / "team", "--dataset_name", "rows.jsonl", "--reward_funcs", "own_rewards.has_a"]
    assert run(*arguments)["num_rounds"] == 2
    assert run(*arguments, "--num_rounds", 1)["num_rounds"] == 1
    Path("team.yaml").write_text(yaml.safe_dump({"num_rounds": 3, "k": [1], "protocols": ["team"]}))
    assert run(*arguments, "--config", "team.yaml", "--episodes", "e.jsonl")["num_rounds"] == 3
    assert len(json.loads(Path("e.jsonl").read_text())["transcripts"][0]) == 6


def test_sampling_is_that_of_the_saved_team_unless_told_otherwise(saved):
    write_rows(Path("rows.jsonl"), 1)
    own = {"temperature": 0.7, "top_k": 2, "min_p": 0.1, "max_completion_length": 1, "max_context_length": 60}
    make_trainer("runs/sampled", make_team(2), generation_kwargs={"no_repeat_ngram_size": 3}, **own).save_model()
    arguments = ["--team", "runs/sampled", "--dataset_name", "rows.jsonl", "--reward_funcs", "own_rewards.has_a"]
    arguments += ON_CPU[:-2]

    def parsed(*more):
        args = vars(evaluate.parse([*arguments, *more])[2])
        return {name: args[name] for name in (*own, "generation_kwargs", "top_p")}

    assert parsed() == own | {"generation_kwargs": {"no_repeat_ngram_size": 3}, "top_p": 1.0}
    assert parsed("--temperature", "0.3", "--top_p", "0.9")["temperature"] == 0.3
    Path("own.yaml").write_text(yaml.safe_dump({"max_completion_length": 2, "generation_kwargs": None}))
    told = parsed("--config", "own.yaml")
    assert told["max_completion_length"] == 2 and told["generation_kwargs"] is None and told["top_k"] == 2
    evaluate.main(*evaluate.parse([*arguments, "--output", "out.json", "--episodes", "e.jsonl"]))
    found, record = json.loads(Path("out.json").read_text()), json.loads(Path("e.jsonl").read_text())
    assert found["temperature"] == 0.7 and found["max_completion_length"] == 1 and record["tokens"] == 2


def test_model_that_was_never_trained(saved, capsys):
    write_rows(Path("rows.jsonl"), 3)
    arguments = ["--dataset_name", "rows.jsonl", "--reward_funcs", "own_rewards.has_a", *SHORT]
    protocols = ["--protocols", "single", "majority", "debate", "--budget_samples", 3, "--num_agents", 2]
    found = run("--model", saved / "model", *arguments, *protocols)
    assert found["team"] is None and found["baselines"] == str(saved / "model")
    assert found["protocols"]["majority"]["samples_per_answer"] == 3
    assert f"All protocols but 'team' are played by: {saved / 'model'}" in capsys.readouterr().out


def test_untrained_agents_of_a_training_play_the_baselines(saved):
    """With the training's own YAML file."""
    write_rows(Path("rows.jsonl"), 2)
    agents = [{"name": name, "model": str(saved / "model"), "system_prompt": name} for name in ("x", "y")]
    training = {"agents": agents, "dataset_name": "rows.jsonl", "reward_funcs": ["own_rewards.has_a"]}
    training |= {"output_dir": "never", "num_stages": 1, "eval_strategy": "steps", "eval_steps": 1}
    Path("train.yaml").write_text(yaml.safe_dump(training))
    arguments = ["--config", "train.yaml", "--team", saved / "team", "--protocols", "team", "role_play"]
    found = run(*arguments, "--per_device_eval_batch_size", 8)
    assert found["baselines"] == agents and list(found["protocols"]) == ["team", "role_play"]
    assert not Path("never").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--protocols", "duel"], "`protocols` names 'duel'"),
        (["--k", "2"], "k=2 cannot be estimated from `num_samples=1`"),
        (["--team", "nowhere", "--dataset_name", "link:2"], "There is no team.json in 'nowhere'"),
        (["--dataset_name", "missing.json", "--reward_funcs", "link"], "There is no file 'missing.json'"),
        ([], "Set `dataset_name`"),
        (["--dataset_name", "owner/data"], "comes without a reward: set `reward_funcs`"),
        (["--dataset_name", "link:2", "--reward_funcs", "nope"], "no reward function 'nope'"),
        (["--dataset_name", "link:2", "--dataset_size", "8"], "'team' needs a team"),
    ],
)
def test_script_says_what_is_missing(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(*arguments)


COMMANDS = [
    command
    for source in ("docs/evaluation.md", "scripts/evaluate.py")
    for command in re.findall(r"scripts/evaluate\.py (--.*)", (ROOT / source).read_text().replace("\\\n", ""))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_docs_can_be_parsed(saved, command):
    arguments = [str(ROOT / part) if part.startswith("examples/") else part for part in shlex.split(command)]
    for team in ("runs/quickstart", "runs/team", "runs/smollm2_chain_sum"):
        shutil.copytree(saved / "team", team)
    _, evaluation, training_args, _ = evaluate.parse(arguments + ON_CPU)
    assert evaluation.protocols and training_args.num_rounds in (1, 2)
