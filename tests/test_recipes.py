"""The recipes: what all of them say, that they are read, and that each runs."""

import re

import pytest
import yaml
from recipes_smoke import RECIPES, ROOT, name_of, run_evaluation, run_training

from trl_teamtr.cli import evaluate, train
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.tasks.catalogue import BENCHMARKS


TRAININGS = [recipe for recipe in RECIPES if recipe.stem != "evaluate"]
EVALUATIONS = [recipe for recipe in RECIPES if recipe.stem == "evaluate"]
BASE = ROOT / "recipes" / "3x_qwen3_8b"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ServerClient, "poll_interval", 0.05)


def test_each_team_has_both_kinds_and_its_baselines():
    folders = {recipe.parent for recipe in RECIPES} - {ROOT / "recipes"}
    assert len(folders) == 3 and all(
        {path.stem for path in folder.glob("*.yaml")} == {"lora", "full", "single", "evaluate"} for folder in folders
    )


@pytest.mark.parametrize("recipe", TRAININGS, ids=name_of)
def test_trainings_are_read_and_have_the_papers_settings(recipe, tmp_path):
    _, args, _ = train.make_parser().parse_args_and_config(
        ["--config", str(recipe), "--use_cpu", "true", "--output_dir", str(tmp_path)]
    )
    assert (args.trust_region_radius, args.temperature, args.top_p, args.num_stages) == (0.01, 0.8, 1.0, 40)
    assert args.use_vllm and args.vllm_mode == "server" and args.output_dir == str(tmp_path)
    settings = yaml.safe_load(recipe.read_text())
    assert settings["dataset_name"] in BENCHMARKS and settings["eval_dataset_name"] in BENCHMARKS


@pytest.mark.parametrize("recipe", TRAININGS, ids=name_of)
def test_the_launch_is_that_of_the_file_and_gives_no_gpu_twice(recipe):
    text = recipe.read_text()
    path = f"recipes/{name_of(recipe)}.yaml"
    assert f"train --config {path}" in text and f"serve_vllm.sh {path}" in text
    config, processes = re.search(r"--config_file (\S+) --num_processes (\d+)", text).groups()
    assert (ROOT / config).is_file()
    gpus = [ids.split(",") for ids in re.findall(r"CUDA_VISIBLE_DEVICES=([\d,]+) ", text)]
    assert len(gpus[-1]) == int(processes)
    used = sorted(int(each) for ids in gpus for each in ids)
    assert used == list(range(len(used))) and f"{len(used)} GPUs" in text and len(used) <= 8
    members = yaml.safe_load(text).get("agents", [])
    named = {member["vllm_server_base_url"] for member in members}
    assert named <= set(re.findall(r"http://[\d.:]+", text.partition("agents:")[0])) or not members


@pytest.mark.parametrize("recipe", EVALUATIONS, ids=name_of)
def test_evaluations_are_read_and_have_the_papers_settings(recipe):
    script_args, config, args, _ = evaluate.parse(["--config", str(recipe), "--use_cpu", "true", "--bf16", "false"])
    assert config.num_samples == 64 and (args.temperature, args.top_p) == (0.8, 1.0)
    assert {"team", "single", "debate", "role_play"} <= set(config.protocols) and set(script_args.tasks) <= set(
        BENCHMARKS
    )
    assert len(script_args.agents) == 3


def test_the_team_of_the_paper_trains_a_stage(tmp_path):
    small = {"num_iterations": 1, "num_generations": 2, "per_device_train_batch_size": 4, "eval_strategy": "no"}
    found = run_training(BASE / "full.yaml", tmp_path, **small)
    trainer = found.pop("trainer")
    assert {key: found[key] for key in ("members", "servers", "updates")} == {"members": 3, "servers": 3, "updates": 3}
    assert found["changed"] >= 1 and any("rewards/math_reward/mean" in log for log in trainer.state.log_history)


def check_training(recipe, folder, **changes):
    settings = yaml.safe_load(recipe.read_text())
    found = run_training(recipe, folder, **changes)
    size = changes.get("num_agents") or len(settings.get("agents", ())) or settings["num_agents"]
    urls = {member["vllm_server_base_url"] for member in settings.get("agents", [settings])}
    assert (found["members"], found["updates"], found["servers"]) == (size, size, len(urls))
    assert found["changed"] >= 1


@pytest.mark.parametrize("recipe", TRAININGS, ids=name_of)
def test_every_training_builds_and_runs_a_stage(recipe, tmp_path):
    check_training(recipe, tmp_path)


@pytest.mark.parametrize("num_agents", [2, 5])
def test_the_study_of_n(num_agents, tmp_path):
    check_training(ROOT / "recipes" / "scaling.yaml", tmp_path, num_agents=num_agents)


def test_the_stale_baseline(tmp_path):
    check_training(BASE / "lora.yaml", tmp_path, resampling="stale")


@pytest.mark.parametrize("recipe", EVALUATIONS, ids=name_of)
def test_every_evaluation_runs(recipe, tmp_path):
    found = run_evaluation(recipe, tmp_path)
    settings = yaml.safe_load(recipe.read_text())
    assert list(found["tasks"]) == settings["tasks"]
    assert all(list(result["protocols"]) == settings["protocols"] for result in found["tasks"].values())
