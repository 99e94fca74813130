"""Moments and weights that move between the device and the host, halved and rejected steps, and DeepSpeed, on the device."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu.models import find_device, make_model, make_prompts, make_tokenizer, reward


RADIUS = 0.01
HERE = Path(__file__).resolve()


def measure(model: str | None, smoke: bool, folder: Path) -> dict:
    checks = {
        "weights are the same with and without offloading": check_offloading,
        "idle tensors are in host memory": check_places,
        "long steps are halved into the region": check_halving,
        "a rejected update leaves no trace": check_rejection,
    }
    found = {name: check() for name, check in checks.items()}
    return {"device": str(find_device()), "checks": found | check_zero(smoke)}


def make_trainer(folder: str, num_agents: int = 2, **fields):
    import torch
    from datasets import Dataset

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer

    team, tokenizer = [], make_tokenizer(512)
    for i in range(num_agents):
        path = os.path.join(folder, f"model_{i}")  # ZeRO-3 partitions what it loads
        if not os.path.exists(path):
            make_model("smoke", seed=i).save_pretrained(path)
        team.append(Agent(f"agent_{i}", path, processing_class=tokenizer))
    common = {
        "use_cpu": not torch.cuda.is_available(),
        "bf16": True,
        "num_stages": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 8,
        "num_iterations": 2,
        "trust_region_radius": RADIUS,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    args = TeamTRConfig(os.path.join(folder, "run"), **common | fields)
    dataset = Dataset.from_dict({"prompt": make_prompts(8, 12)})
    return TeamTRTrainer(team, reward, args, train_dataset=dataset)


def train(**fields) -> list:
    """Train; returns the members."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, **fields)
        torch.manual_seed(0)
        trainer.train()
        return trainer.members


def weights(members) -> list:
    return [weight.detach().cpu() for member in members for weight in member.model.parameters()]


def largest_difference(members, others) -> float:
    pairs = zip(weights(members), weights(others), strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def check_offloading() -> dict:
    difference = largest_difference(train(), train(offload_idle_agents=True))
    again = largest_difference(train(), train())  # a device may add in another order each time
    return {"passed": difference <= again, "largest difference": difference, "of the same run twice": again}


def check_places() -> dict:
    """Where moments and weights are while rollouts are made and while an agent is updated."""
    seen: dict[str, list[str]] = {}

    def look(when: str, tensors):
        seen[when] = sorted({*seen.get(when, []), *(tensor.device.type for tensor in tensors)})

    def moments(member):
        states = member.optimizer.state.values()
        return [value for state in states for value in state.values() if hasattr(value, "dim") and value.dim() > 0]

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, offload_idle_agents=True)
        provide, one, other = trainer.resampler.rollouts, *trainer.members
        update = other.update

        def rollouts(rows):
            found = provide(rows)
            look("moments during rollouts", moments(one) + moments(other))
            return found

        def updated(*args):
            report = update(*args)
            look("moments of the agent that is updated", moments(other))
            look("weights of the agent that is updated", other.model.parameters())
            look("moments of the idle agent", moments(one))
            look("weights of the idle agent", one.model.parameters())
            return report

        trainer.resampler.rollouts, other.update = rollouts, updated
        trainer.train()
    device = find_device().type
    due = {when: ["cpu"] if "idle" in when or "rollouts" in when else [device] for when in seen}
    return {"passed": seen == due, **seen}


def check_halving() -> dict:
    from precision_updates import Recomputation

    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, num_agents=1, num_stages=10, learning_rate=0.02)
        Recomputation("k3", ratios, RADIUS)(trainer)
        trainer.train()
        halved = sum(log.get("agent/agent_0/backtracks", 0) > 0 for log in trainer.state.log_history)
    return {
        "passed": halved > 0 and max(ratios) <= 1,
        "halved": halved,
        "accepted": len(ratios),
        "largest": max(ratios),
    }


def check_rejection() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, num_agents=1, num_stages=1, learning_rate=0.1, max_backtracks=0)
        start = weights(trainer.members)
        trainer.train()
        rejected = sum(log.get("agent/agent_0/rejected", 0) for log in trainer.state.log_history)
        same = all((a == b).all().item() for a, b in zip(weights(trainer.members), start, strict=True))
    return {"passed": bool(rejected and same), "rejected": rejected, "weights as before": same}


def check_zero(smoke: bool) -> dict[str, dict]:
    """The weights after one stage under ZeRO, in one process, beside those without DeepSpeed."""
    names = {stage: f"ZeRO-{stage} trains the same weights" for stage in (2, 3)}
    if smoke:
        return {name: {"skipped": "a smoke run launches nothing; tests/distributed does"} for name in names.values()}
    if importlib.util.find_spec("deepspeed") is None:
        return {name: {"skipped": "deepspeed is not installed"} for name in names.values()}
    on_cpu, found = find_device().type == "cpu", {}
    with tempfile.TemporaryDirectory() as folder:
        log = launch("cpu" if on_cpu else "single_gpu", os.path.join(folder, "plain"))
        for stage, name in names.items():
            log = log or launch(f"zero{stage}_cpu" if on_cpu else f"zero{stage}", os.path.join(folder, str(stage)))
            if log is None:
                mean, largest = compare_saved(os.path.join(folder, "plain"), os.path.join(folder, str(stage)))
                # A step of Adam is 1e-3, also where a gradient is little more than rounding
                found[name] = {"passed": mean < 1e-5, "mean difference": mean, "largest": largest}
            else:
                found[name] = {"passed": False, "log": log}
    return found


def launch(config: str, path: str) -> str | None:
    """Train with a config of accelerate, in one process, and save the team. Returns what it printed if it failed."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command += ["--mixed_precision", "no"]  # or weights would be rounded in one of them alone
    command += ["--config_file", str(HERE.parents[2] / "accelerate_configs" / f"{config}.yaml"), str(HERE), path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if done.returncode == 0 else done.stdout[-3000:]


def compare_saved(path: str, other: str) -> tuple[float, float]:
    """Mean and largest difference of the weights of two saved teams."""
    import torch
    from safetensors.torch import load_file

    differences = []
    for file in sorted(Path(path).rglob("model.safetensors")):
        one, two = load_file(file), load_file(Path(other) / file.relative_to(path))
        differences += [(one[name] - two[name]).abs().flatten() for name in one]
    found = torch.cat(differences)
    return found.mean().item(), found.max().item()


def save_trained(path: str):
    """What is launched: trains one stage, and saves the team."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, num_stages=1, bf16=False)
        torch.manual_seed(0)
        trainer.train()
        trainer.save_model(path)


if __name__ == "__main__":
    save_trained(sys.argv[1])
