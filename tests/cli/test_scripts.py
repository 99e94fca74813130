"""The scripts, run as a user runs them, on runs of a few updates."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_model, make_tokenizer
from tokenizers_for_tests import tokenizer_for
from trl.chat_template_utils import qwen2_5_chat_template

from trl_teamtr.cli.train import make_parser, make_trainer
from trl_teamtr.tasks import link
from trl_teamtr.tasks.service_desk.environment import ASSISTANT_TOOLS, USER_TOOLS


ROOT = Path(__file__).parents[2]


def run(*command, cwd=ROOT, **variables):
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny base model with a chat template, on disk."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_config(path, base, **fields):
    import yaml

    config = {
        "agents": [
            {"name": "solver", "model": str(base), "peft": {"r": 2, "target_modules": ["q_proj"]}},
            {"name": "checker", "model": str(base), "system_prompt": "ua", "learning_rate": 1e-3},
        ],
        "dataset_name": "reasoning_gym:chain_sum",
        "dataset_kwargs": {"min_terms": 2, "max_terms": 2},
        "dataset_size": 40,
        "output_dir": str(path.parent / "run"),
        "num_stages": 1,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
    }
    path.write_text(yaml.safe_dump(config | fields))
    return path


def test_accelerate_launches_a_team_from_yaml(tmp_path, base):
    config = write_config(tmp_path / "team.yaml", base)
    launcher = ("-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml")
    done = run(*launcher, "scripts/train.py", "--config", config, "--max_completion_length", "1")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "run" / "team.json").read_text())
    assert json.loads((tmp_path / "run" / "tasks.json").read_text())["dataset_size"] == 40
    assert [agent["name"] for agent in saved["agents"]] == ["solver", "checker"]
    assert (tmp_path / "run" / "solver" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "run" / "checker" / "model.safetensors").is_file()
    assert re.search(r"stage \d/\d .* reward -?\d.* checker", done.stdout)  # the line of the terminal, in a pipe


def test_team_of_equals_on_a_local_file_with_a_reward_of_ones_own(tmp_path, base):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"prompt": "ua" * n}) + "\n" for n in range(1, 9)))
    (tmp_path / "my_rewards.py").write_text(
        "def count(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n"
    )
    arguments = ["--model_name_or_path", base, "--num_agents", 2, "--dataset_name", "data.jsonl"]
    arguments += ["--reward_funcs", "my_rewards.count", "--output_dir", "run", "--num_stages", 1, "--use_cpu", True]
    arguments += ["--bf16", False, "--num_generations", 4, "--max_completion_length", 2, "--report_to", "none"]
    done = run(ROOT / "scripts" / "train.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"agent_1", "agent_2", "team.json"} <= {p.name for p in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"dataset_name": "missing.json"}, "There is no file 'missing.json'"),
        ({"dataset_name": None}, "Set `dataset_name`"),
        ({"reward_funcs": ["nope"]}, "no reward function 'nope'"),
        ({"agents": None}, "Set `agents` in the YAML file"),
    ],
)
def test_script_says_what_is_missing(tmp_path, base, fields, message):
    done = run("scripts/train.py", "--config", write_config(tmp_path / "team.yaml", base, **fields))
    assert done.returncode != 0 and message in done.stderr


def test_secrets_are_in_no_file_and_no_output_of_a_run(tmp_path, base):
    """The environment's, `hub_token`, and one among `model_init_kwargs`; with checkpoints, logs and W&B's own files."""
    variables = {"HF_TOKEN": "hf_HIDDEN1", "WANDB_API_KEY": "HIDDEN2" + "0" * 33, "OPENAI_API_KEY": "sk-HIDDEN3"}
    fields = {"hub_token": "hf_HIDDEN4", "model_init_kwargs": {"token": "hf_HIDDEN5"}, "save_strategy": "steps"}
    fields |= {"save_steps": 1, "report_to": ["wandb", "tensorboard"], "log_completions": True}
    config = write_config(tmp_path / "team.yaml", base, **fields)
    folder = tmp_path / "run"
    folder.mkdir()
    done = run("scripts/train.py", "--config", config, WANDB_MODE="offline", WANDB_DIR=str(folder), **variables)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in folder.rglob("*")}
    assert {"training_args.json", "manifest.json", "wandb", "completions", "checkpoint-2"} <= names
    assert "training_args.bin" not in names and any(name.startswith("events.out") for name in names)
    contents = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    contents |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    assert [name for name, content in contents.items() if b"HIDDEN" in content] == []
    assert json.loads((folder / "training_args.json").read_text())["hub_token"] == "<HUB_TOKEN>"


def test_preempted_script_says_so_and_is_resumed_by_the_same_command(tmp_path, base):
    config = write_config(tmp_path / "team.yaml", base, num_stages=3)
    (tmp_path / "preempted_rewards.py").write_text(
        "import os, signal\n\n\n"
        "def reward(completions, **kwargs):\n"
        "    if not os.path.exists('signalled'):\n"
        "        open('signalled', 'w').close()\n"
        f"        os.kill(os.getpid(), {int(signal.SIGTERM)})\n"
        "    return [float(len(c)) for c in map(str, completions)]\n"
    )
    command = [ROOT / "scripts" / "train.py", "--config", config, "--reward_funcs", "preempted_rewards.reward"]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Preempted after update 1, and saved" in done.stdout and "Training completed" not in done.stdout
    assert "checkpoint-1" in os.listdir(tmp_path / "run") and "team.json" not in os.listdir(tmp_path / "run")
    done = run(*command, "--resume_from_checkpoint", "true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Training completed" in done.stdout and "team.json" in os.listdir(tmp_path / "run")


def run_quickstart(folder):
    arguments = ["--output_dir", folder, "--report_dir", folder / "report", "--num_stages", 2, "--eval_steps", 3]
    arguments += ["--agents", "link:2", "--dataset_name", "link:2", "--per_device_train_batch_size", 64]
    done = run("scripts/quickstart.py", *arguments, "--num_heldout", 32, "--num_iterations", 2)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A short run of the quickstart."""
    return run_quickstart(tmp_path_factory.mktemp("quickstart"))


def test_quickstart_ends_with_its_figures(quickstart):
    folder, done = quickstart
    result = json.loads(done.stdout.splitlines()[-1])
    names = {
        "accuracy_before",
        "accuracy_after",
        "out_of_region",
        "out_of_region_heldout",
        "kl_mean",
        "radius",
        "seconds",
    }
    assert names <= set(result)
    assert result["updates"] == 4 and 0 < result["kl_mean"] <= result["radius"] and result["out_of_region"] == 0
    logs = [json.loads(line) for line in (folder / "report" / "log.jsonl").read_text().splitlines()]
    kls = [log[f"agent/{name}/kl"] for log in logs for name in "ab" if f"agent/{name}/kl" in log]
    assert result["kl_mean"] == pytest.approx(sum(kls) / 4, abs=1e-5)
    evaluations = [log["eval_reward"] for log in logs if "eval_reward" in log]
    assert result["accuracy_before"] == pytest.approx(evaluations[0], abs=1e-4)
    assert result["accuracy_after"] == pytest.approx(evaluations[-1], abs=1e-4)


def test_quickstart_shows_a_transcript_before_and_after_and_draws(quickstart):
    folder, done = quickstart
    assert "Before: held-out accuracy" in done.stdout and "After 4 updates" in done.stdout
    assert done.stdout.count("'a: ") == 2 and done.stdout.count("'b: ") == 2
    assert re.search(r"stage \d/\d .* reward -?\d", done.stdout)
    assert (folder / "report" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert {"a", "b", "team.json", "tasks.json"} <= {path.name for path in folder.iterdir()}


def test_quickstart_with_the_same_seed_prints_the_same_figures(quickstart, tmp_path):
    runs = (quickstart, run_quickstart(tmp_path))
    first, second = (json.loads(done.stdout.splitlines()[-1]) for _, done in runs)
    for result in (first, second):
        del result["seconds"], result["train_seconds"]
    assert first == second


def parse_example(config):
    return make_parser().parse_args_and_config(["--config", str(config), "--use_cpu", "true"])  # some are for GPUs


def test_examples_can_be_parsed_by_the_script():
    for config in sorted((ROOT / "examples").glob("*.yaml")):
        if config.stem == "replace":  # of another command: tests/cli/test_replace.py
            continue
        script_args, training_args, _ = parse_example(config)
        assert script_args.dataset_name and script_args.agents and training_args.num_stages


def test_example_with_tools_makes_its_trainer_whose_agents_have_all_methods_of_its_environment(tmp_path):
    tokenizer = tokenizer_for(qwen2_5_chat_template)
    save_whole(tmp_path / "model", link.make_model(tokenizer, 0, max_length=4096), tokenizer)
    script_args, training_args, model_args = parse_example(ROOT / "examples" / "service_desk.yaml")
    script_args.agents = [agent | {"model": str(tmp_path / "model")} for agent in script_args.agents]
    training_args.output_dir = str(tmp_path / "run")
    trainer = make_trainer(script_args, training_args, model_args)
    found = {
        speaker.name: {each["function"]["name"] for each in speaker.tools.schemas} for speaker in trainer.team.speakers
    }
    assert found == {"user": set(USER_TOOLS), "assistant": set(ASSISTANT_TOOLS)}
    assert set(trainer.train_dataset[0]["agent_prompts"]) == set(found) and len(trainer.eval_dataset) == 100


def save_whole(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)
