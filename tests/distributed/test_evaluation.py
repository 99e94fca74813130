"""An evaluation on two processes writes and scores what one process does, each task in its place."""

import json
import subprocess
import sys

import datasets
from datasets import Dataset
from launching import HERE, derive_config, environment, launch_command
from tiny import make_team, make_trainer
from tool_teams import Scored, tool_team


SCRIPT = HERE.parents[1] / "scripts" / "evaluate.py"
REWARD = "def length(completions, prompt_length, **kwargs):\n"
REWARD += "    return [len(c) + 10.0 * n for c, n in zip(completions, prompt_length)]\n"


def test_two_processes_share_the_tasks(tmp_path, monkeypatch):
    """Decoded greedily, so that a conversation is a function of its task; 15 conversations, in batches of two times 4."""
    make_trainer(tmp_path / "team", make_team(2, size=4, seed=6)).save_model()
    (tmp_path / "own_rewards.py").write_text(REWARD)
    rows = [{"prompt": "ua" * n, "prompt_length": n} for n in range(1, 6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--team", "team", "--dataset_name", "rows.jsonl", "--reward_funcs", "own_rewards.length"]
    arguments += ["--protocols", "team", "majority", "--num_samples", "3", "--k", "1", "3", "--threshold", "12"]
    arguments += ["--top_k", "1", "--per_device_eval_batch_size", "4", "--max_completion_length", "3"]
    arguments += ["--use_cpu", "true", "--bf16", "false", "--disable_tqdm", "true"]

    written = ["--output", "two.json", "--episodes", "two.jsonl"]
    command = launch_command(derive_config("multi_gpu", tmp_path), SCRIPT, *arguments, *written)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(HF_DATASETS_CACHE=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.count("team on 5 tasks of rows.jsonl") == 1

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    from trl_teamtr.cli import evaluate

    evaluate.main(*evaluate.parse([*arguments, "--output", "one.json", "--episodes", "one.jsonl"]))
    two, one = (json.loads((tmp_path / name).read_text()) for name in ("two.json", "one.json"))
    assert two.pop("processes") == 2 and one.pop("processes") == 1
    assert two == one and 0 < two["protocols"]["team"]["accuracy"]
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()
    records = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert len({str(record["transcripts"]) for record in records if record["protocol"] == "team"}) == 3
    for record in records:
        assert record["prompt"] == rows[record["task"]]["prompt"]
        assert record["reward"] == len(record["answer"]) + 10 * rows[record["task"]]["prompt_length"]


def test_two_processes_score_each_conversation_in_its_own_environment(tmp_path):
    """Each process has the environments of its share, and all rewards are in the place of their conversations."""
    fields = {"max_tool_result_length": 1, "max_tool_calling_iterations": 1, "environment_factory": Scored}
    prompts = [[{"role": "user", "content": "a" * n}] for n in range(1, 6)]
    rows = Dataset.from_dict({"prompt": prompts})
    make_trainer(tmp_path / "team", tool_team(), [], rows, per_device_train_batch_size=4, **fields).save_model()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    arguments = ["--team", "team", "--dataset_name", "rows.jsonl", "--num_samples", "3", "--temperature", "0.8"]
    arguments += [
        "--per_device_eval_batch_size",
        "2",
        "--use_cpu",
        "true",
        "--bf16",
        "false",
        "--disable_tqdm",
        "true",
    ]
    command = launch_command(derive_config("multi_gpu", tmp_path), SCRIPT, *arguments, "--episodes", "two.jsonl")
    variables = environment(HF_DATASETS_CACHE=str(tmp_path / "cache"))
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    records = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert [(record["task"], record["sample"]) for record in records] == [(n // 3, n % 3) for n in range(15)]
    calls = [sum("tool_calls" in part for part in record["transcripts"][0]) for record in records]
    assert [record["reward"] for record in records] == [float(count == 1) for count in calls]
    assert len(set(calls)) > 1
