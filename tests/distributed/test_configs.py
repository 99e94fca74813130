"""The configs that are shipped: each says how to launch it, and the one that does not work yet says what to do."""

import json
import re
import subprocess

import pytest
import yaml
from launching import CONFIGS, HERE, derive_config, environment, launch_command
from teams import save_models

from trl_teamtr import Agent
from trl_teamtr.cli.link_team import save_team
from trl_teamtr.tasks import link


ROOT = CONFIGS.parent
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def test_there_is_a_config_for_every_way_to_run():
    names = {"cpu", "single_gpu", "multi_gpu", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2", "multi_node_zero3"}
    assert set(NAMES) == names | {"zero2_cpu", "zero3_cpu"}


@pytest.mark.parametrize("name", NAMES)
def test_config_starts_with_its_launch_line(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    comment = re.match(r"(#.*\n)+", text).group()
    assert f"accelerate launch --config_file accelerate_configs/{name}.yaml" in comment
    config = yaml.safe_load(text)
    assert config["num_machines"] == (2 if name == "multi_node_zero3" else 1)
    assert config.get("deepspeed_config", {}).get("zero_stage") == {
        "zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3, "multi_node_zero3": 3, "zero2_cpu": 2, "zero3_cpu": 3,
    }.get(name)  # fmt: skip


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_config_without_gpu_is_that_with_gpus_for_two_processes(name):
    theirs, own = (yaml.safe_load((CONFIGS / f"{each}.yaml").read_text()) for each in (name, f"{name}_cpu"))
    assert own == theirs | {"use_cpu": True, "num_processes": 2, "mixed_precision": "no"}


def launch_quickstart(config, folder, **fields):
    """The quickstart as it is launched, with random agents and few rollouts."""
    tokenizer = link.make_tokenizer()
    agents = [Agent(name, link.make_model(tokenizer, i), processing_class=tokenizer) for i, name in enumerate("abc")]
    save_team(agents, str(folder / "team"))
    small = {"num_stages": 1, "per_device_train_batch_size": 8, "num_iterations": 1, "eval_strategy": "no"}
    small |= {"agents": json.dumps([{"name": name, "model": str(folder / "team" / name)} for name in "abc"])}
    small |= {"config": ROOT / "examples" / "quickstart.yaml", "output_dir": folder / "run", "dataset_size": 50}
    flags = [part for name, value in (small | fields).items() for part in (f"--{name}", str(value))]
    command = launch_command(config, ROOT / "scripts" / "train.py", *flags, num_processes=2)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", ["zero2_cpu", "zero3_cpu"])
def test_config_without_gpu_trains_as_it_is(name, tmp_path):
    done = launch_quickstart(CONFIGS / f"{name}.yaml", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Team saved to" in done.stdout and (tmp_path / "run" / "c" / "model.safetensors").exists()


def test_precision_of_a_config_that_the_script_turns_off_is_refused(tmp_path):
    done = launch_quickstart(CONFIGS / "zero2.yaml", tmp_path)  # the quickstart says `bf16: false`
    assert done.returncode != 0 and "or launch with `--mixed_precision no`" in done.stderr


def test_fsdp_is_refused_before_anything_is_loaded(tmp_path):
    save_models(tmp_path)
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"output_dir": str(tmp_path / "run")}]))
    command = launch_command(derive_config("fsdp2", tmp_path), HERE / "run_train.py", tmp_path, jobs, tmp_path)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode != 0 and "Use ZeRO-3" in done.stderr
    assert not (tmp_path / "run" / "x").exists()
