"""Whole runs on two processes: checkpoints, two machines, and a process that dies."""

import json
import re
import subprocess
import time

import pytest
import torch
from accelerate import Accelerator
from launching import HERE, derive_config, environment, free_port, launch, launch_command
from run_train import run
from safetensors.torch import load_file
from teams import save_models
from transformers import AutoModelForCausalLM

from trl_teamtr.runs.manifest import find_damage


MEASURED = {"log_occupancy": True, "log_certificate": True, "diagnostics_every": 1}
BEST = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "num_stages": 1}
BEST |= {"metric_for_best_model": "eval_reward", "greater_is_better": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


def write_jobs(folder, *jobs):
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    return path


@pytest.fixture(scope="module", params=["multi_gpu", "zero2", "zero3"])
def stopped_and_whole(request, models, tmp_path_factory):
    """
    The engine, and each process's results of: a run; one whose second process is told to go in the middle of a stage;
    that one resumed; one with a shared base, in whose last checkpoint a member is replaced; the first one with all diagnostics; one with importance weights; one that
    ends with its best team; the first three with speculative resampling; the first one resumed from a checkpoint that
    holds code.
    """
    folder = tmp_path_factory.mktemp(request.param)
    part = {"output_dir": str(folder / "part")}
    drafts = {"output_dir": str(folder / "drafts"), "fields": {"resampling": "speculative"}}
    jobs = write_jobs(
        folder,
        {"output_dir": str(folder / "whole")},
        {**part, "preempt": [1, 3], "fields": {"save_strategy": "no"}},
        {**part, "resume": True},
        {
            "output_dir": str(folder / "shared"),
            "kind": "shared",
            "fields": {"num_stages": 1},
            "replace": ["y", "large"],
        },
        {"output_dir": str(folder / "measured"), "fields": MEASURED},
        {"output_dir": str(folder / "importance"), "fields": {"resampling": "importance", "num_stages": 1}},
        {"output_dir": str(folder / "best"), "fields": BEST},
        {**drafts, "output_dir": str(folder / "drafts-whole")},
        {**drafts, "preempt": [0, 3]},
        {**drafts, "resume": True},
        {"output_dir": str(folder / "whole"), "resume": True, "poison": str(folder / "poisoned")},
    )
    launch(derive_config(request.param, folder), "run_train.py", models, jobs, folder)
    return request.param, folder, [torch.load(folder / f"result-{rank}.pt") for rank in (0, 1)]


def test_runs_under_zero_3_in_bfloat16(models, tmp_path):
    """As accelerate_configs/zero3.yaml says: passes that score with wide weights come before those that train."""
    fields = {"bf16": True, "trust_region_radius": 0.05, "save_strategy": "no"}
    jobs = write_jobs(tmp_path, {"output_dir": str(tmp_path / "run"), "fields": fields})
    launch(derive_config("zero3", tmp_path, mixed_precision="bf16"), "run_train.py", models, jobs, tmp_path)
    (result,) = torch.load(tmp_path / "result-0.pt")
    updates = [log for log in result["logs"] if "rollout/messages" in log]
    kls = [value for log in updates for name, value in log.items() if re.fullmatch(r"agent/\w/kl", name)]
    assert len(kls) == len(updates) == 6 and 0 < max(kls) <= 0.05


def test_resumed_run_is_bit_identical(stopped_and_whole):
    for whole, stopped, resumed, *_ in stopped_and_whole[2]:
        assert whole["processes"] == 2 and whole["preempted"] is None
        assert stopped["preempted"] == 4 and len(stopped["logs"]) == 4
        torch.testing.assert_close(resumed["weights"], whole["weights"], rtol=0, atol=0)
        torch.testing.assert_close(resumed["moments"], whole["moments"], rtol=0, atol=0)
        assert resumed["coefs"] == whole["coefs"]
        assert resumed["logs"] == whole["logs"]


def test_resumed_run_with_drafts_is_bit_identical(stopped_and_whole):
    """In the middle of a stage the policy before the last update, partitioned under ZeRO, is the draft law."""
    for *_, whole, stopped, resumed, _ in stopped_and_whole[2]:
        assert stopped["preempted"] == 4
        torch.testing.assert_close(resumed["weights"], whole["weights"], rtol=0, atol=0)
        assert resumed["logs"] == whole["logs"]
        reused = [log["rollout/reused_fraction"] for log in whole["logs"]]
        assert reused[0] == reused[3] == 0 and min(reused[1], reused[2], reused[4], reused[5]) > 0.3


def test_diagnostics_leave_training_alone_and_are_of_all_processes(stopped_and_whole):
    logs = [results[4]["logs"] for results in stopped_and_whole[2]]
    for whole, *_ in stopped_and_whole[2]:
        torch.testing.assert_close(stopped_and_whole[2][0][4]["weights"], whole["weights"], rtol=0, atol=0)
    for first, second, plain in zip(*logs, stopped_and_whole[2][0][0]["logs"], strict=True):
        names = [name for name in first if name.startswith(("occupancy/", "certificate/"))]
        assert len(names) > 15 and all(first[name] == second[name] for name in names)
        assert all(first[name] == value for name, value in plain.items())


def test_importance_weights_under_every_engine(stopped_and_whole):
    for results in stopped_and_whole[2]:
        ess = [log["importance/ess"] for log in results[5]["logs"]]
        assert ess[0] == 1 and 0 < min(ess[1:]) and max(ess[1:]) < 1


def test_best_team_is_loaded_at_the_end_under_every_engine(stopped_and_whole):
    _, folder, (results, others) = stopped_and_whole
    best = folder / "best" / f"checkpoint-{results[6]['best']}"
    assert results[6]["best"] == others[6]["best"] < 3  # a run that learns was at its worst before its last update
    for name in "xz":
        saved = AutoModelForCausalLM.from_pretrained(best / name)
        last = AutoModelForCausalLM.from_pretrained(folder / "best" / "checkpoint-3" / name)
        moved = [not torch.equal(a, b) for a, b in zip(saved.parameters(), last.parameters(), strict=True)]
        for result in (results, others):
            for key, weight in saved.named_parameters():
                torch.testing.assert_close(weight.detach(), result[6]["weights"][name][key], rtol=0, atol=0)
        found = AutoModelForCausalLM.from_pretrained(folder / "best" / name)  # saved after the run
        for weight, other in zip(saved.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(weight, other, rtol=0, atol=0)
        assert any(moved) or name == "x"


def test_saved_team_is_the_trained_one(stopped_and_whole):
    _, folder, (results, _) = stopped_and_whole
    for run_name, result, whole, adapters in (("whole", results[0], "xz", "y"), ("shared", results[3], "f", "xy")):
        for name in whole:
            saved = AutoModelForCausalLM.from_pretrained(folder / run_name / name)
            for key, weight in saved.named_parameters():
                torch.testing.assert_close(weight.detach(), result["weights"][name][key], rtol=0, atol=0)
        for name in adapters:
            saved = load_file(folder / run_name / name / "adapter_model.safetensors")
            weights = {k.replace(".default", ""): v for k, v in result["weights"][name].items() if "lora" in k}
            torch.testing.assert_close(saved, weights, rtol=0, atol=0)


def test_a_member_is_replaced_by_a_larger_one(stopped_and_whole, models):
    """With the weights that it is given, in a checkpoint that is whole. How such a run goes on: test_swaps.py."""
    _, folder, _ = stopped_and_whole
    checkpoint = folder / "shared" / "checkpoint-2"
    given, found = [load_file(path / "model.safetensors") for path in (models / "large", checkpoint / "y")]
    torch.testing.assert_close(found, given, rtol=0, atol=0)
    assert not list(checkpoint.glob("y/adapter*")) and not list(checkpoint.glob("y/global_step*"))
    assert list(checkpoint.glob("x/adapter*")) and list(checkpoint.glob("x/global_step*")) + list(
        checkpoint.glob("x/opt*")
    )
    assert find_damage(str(checkpoint), Accelerator(cpu=True)) == []


def test_resume_on_one_process(stopped_and_whole, models, tmp_path):
    """Works for DDP; for ZeRO the error says what DeepSpeed allows."""
    engine, folder, results = stopped_and_whole
    job = {"output_dir": str(tmp_path), "resume": str(folder / "part" / "checkpoint-4")}
    if engine != "multi_gpu":
        with pytest.raises(ValueError, match="partitioned for 2 process"):
            run(models, job, num_processes=1)
        return
    resumed, whole = run(models, job, num_processes=1), results[0][0]
    assert len(resumed["logs"]) == len(whole["logs"]) == 6 and resumed["logs"][:4] == whole["logs"][:4]
    done = [name for name in "xyz" if sum(f"agent/{name}/kl" in log for log in whole["logs"][:4]) == 2]
    assert resumed["processes"] == 1 and done
    for name in done:  # the others go on with rollouts drawn otherwise
        torch.testing.assert_close(resumed["weights"][name], whole["weights"][name], rtol=0, atol=0)


def start_machines(folder, models, jobs):
    """One launcher for each of two machines, which are this one, each with one process."""
    port, machines = free_port(), []
    for rank in (0, 1):
        config = derive_config("multi_node_zero3", folder, num_machines=2, machine_rank=rank)
        command = launch_command(
            config,
            HERE / "run_train.py",
            models,
            jobs,
            folder,
            port=port,
            machine_rank=rank,
            main_process_ip="127.0.0.1",
        )
        output = (folder / f"machine-{rank}.log").open("w")
        machines.append(subprocess.Popen(command, env=environment(), stdout=output, stderr=subprocess.STDOUT))
    return machines


def test_two_machines_train_one_team(models, tmp_path):
    jobs = write_jobs(tmp_path, {"output_dir": str(tmp_path / "run"), "fields": {"num_stages": 1}})
    machines = start_machines(tmp_path, models, jobs)
    codes = [machine.wait(timeout=240) for machine in machines]
    assert codes == [0, 0], (tmp_path / "machine-0.log").read_text()[-3000:]
    first, second = [torch.load(tmp_path / f"result-{rank}.pt")[0] for rank in (0, 1)]
    assert first["processes"] == second["processes"] == 2
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    assert len(first["logs"]) == 3


def test_when_a_process_dies_the_others_end_within_a_minute(models, tmp_path):
    (tmp_path / "run").mkdir()
    jobs = write_jobs(tmp_path, {"output_dir": str(tmp_path / "run"), "die": [1, 2]})
    machines = start_machines(tmp_path, models, jobs)
    codes = [machine.wait(timeout=240) for machine in machines]
    died = float((tmp_path / "run" / "died").read_text())
    assert 0 not in codes and time.time() - died < 60
    assert (tmp_path / "run" / "checkpoint-2" / "team.json").exists()  # the last whole one


def test_poisoned_checkpoint_runs_no_code(stopped_and_whole):
    _, folder, results = stopped_and_whole
    assert all("Weights only load failed" in result[-1]["refused"] for result in results)
    assert not (folder / "poisoned").exists()
