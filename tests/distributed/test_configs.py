"""The configs that are shipped: each says how to launch it, and the one that does not work yet says what to do."""

import json
import re
import subprocess

import pytest
import yaml
from launching import CONFIGS, HERE, derive_config, environment, launch_command
from teams import save_models


NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def test_there_is_a_config_for_every_way_to_run():
    names = {"cpu", "single_gpu", "multi_gpu", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2", "multi_node_zero3"}
    assert set(NAMES) == names


@pytest.mark.parametrize("name", NAMES)
def test_config_starts_with_its_launch_line(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    comment = re.match(r"(#.*\n)+", text).group()
    assert f"accelerate launch --config_file accelerate_configs/{name}.yaml" in comment
    config = yaml.safe_load(text)
    assert config["num_machines"] == (2 if name == "multi_node_zero3" else 1)
    assert config.get("deepspeed_config", {}).get("zero_stage") == {
        "zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3, "multi_node_zero3": 3,
    }.get(name)  # fmt: skip


def test_fsdp_is_refused_before_anything_is_loaded(tmp_path):
    save_models(tmp_path)
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"output_dir": str(tmp_path / "run")}]))
    command = launch_command(derive_config("fsdp2", tmp_path), HERE / "run_train.py", tmp_path, jobs, tmp_path)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode != 0 and "Use ZeRO-3" in done.stderr
    assert not (tmp_path / "run" / "x").exists()
