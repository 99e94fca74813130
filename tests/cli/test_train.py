"""What the training command refuses before it makes anything, and how it ends at Ctrl-C."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
from tiny import make_model, make_tokenizer

from trl_teamtr.cli.train import main, make_parser, make_trainer


@pytest.mark.parametrize(
    "line, message",
    [
        ([], "Set `dataset_name`"),
        (["--dataset_name", "link:2"], "Set `agents` in the YAML file, or `--model_name_or_path`"),
    ],
)
def test_what_is_missing_is_said(tmp_path, line, message):
    command = [*line, "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    with pytest.raises(ValueError, match=message):
        make_trainer(*make_parser().parse_args_and_config([*command, "--dataset_size", "4", "--eval_size", "1"]))


def test_it_can_be_a_command_of_another_parser():
    asked = {}
    parsers = SimpleNamespace(add_parser=lambda name, **kwargs: asked.update({name: kwargs}) or "parser")
    assert make_parser(parsers) == "parser" and len(asked["teamtr"]["dataclass_types"]) == 3


@pytest.mark.parametrize(
    "line, expected",
    [
        ([], (None, 2)),
        (["--kl_estimator", "k3", "--gradient_accumulation_steps", "1"], ("k3", 1)),
    ],
)
def test_what_is_left_out_of_a_command_has_its_default(tmp_path, line, expected):
    command = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    _, args, _ = make_parser().parse_args_and_config([*command, "--steps_per_generation", "2", *line])
    assert (args.kl_estimator, args.gradient_accumulation_steps) == expected


def test_plan_is_printed_without_a_dataset_and_without_weights(tmp_path, monkeypatch, capsys):
    make_model().save_pretrained(tmp_path / "model")

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    command = ["--output_dir", str(tmp_path / "run"), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    command += ["--model_name_or_path", str(tmp_path / "model"), "--num_agents", "2", "--max_completion_length", "4"]
    command += ["--plan", "true", "--plan_time", "false", "--plan_prompt_length", "8", "--device_memory_gib", "80"]
    main(*make_parser().parse_args_and_config(command))
    printed = capsys.readouterr().out
    assert "each on a GPU of 80.0 GiB" in printed and "backtracking" in printed and "Everything fits." in printed
    assert not (tmp_path / "run").exists()


def test_ctrl_c_exits_with_130_and_the_printed_command_resumes(tmp_path):
    """In processes of their own, as in a terminal."""
    tokenizer = make_tokenizer()
    for seed, name in enumerate("xy"):
        make_model(seed=seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"prompt": "ua" * n}) + "\n" for n in range(1, 9)))
    (tmp_path / "slow_rewards.py").write_text(
        "import time\n\n\ndef count(completions, **kwargs):\n    time.sleep(0.3)\n"
        "    return [float(len(completion)) for completion in completions]\n"
    )
    settings = {
        "agents": [{"name": name, "model": str(tmp_path / name)} for name in "xy"],
        **{"dataset_name": "tasks.jsonl", "reward_funcs": ["slow_rewards.count"], "output_dir": "run"},
        **{"num_stages": 8, "max_completion_length": 2, "num_generations": 4, "per_device_train_batch_size": 8},
        **{"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1},
        **{"gradient_checkpointing": False, "disable_tqdm": True},
    }
    (tmp_path / "team.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-W", "ignore", "-m", "trl_teamtr", "train", "--config", "team.yaml"]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "log.jsonl").is_file() or not (tmp_path / "run" / "log.jsonl").read_text():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    printed, _ = run.communicate(timeout=120)
    assert run.returncode == 130, printed
    (line,) = re.findall(r"^  (python -m trl_teamtr train .*)$", printed, re.MULTILINE)
    assert line == "python -m trl_teamtr train --config team.yaml --resume_from_checkpoint true"
    resumed = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(resumed, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Training completed." in done.stdout, done.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 17), 16] and (tmp_path / "run" / "team.json").is_file()
