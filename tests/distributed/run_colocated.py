"""Two processes that speak through vLLM engines of their own: real ones where vLLM is installed, else with `--fake`."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from tiny import make_trainer
from transformers.trainer_callback import PrinterCallback
from vllm_teams import in_process, lora_team

from trl_teamtr import Agent
from trl_teamtr.policy.generation import vllm_package


def route(transcript):
    """The first row of a process hears all agents, the others `x` alone in the first turn."""
    turn = len(transcript.messages)
    return "xyw"[turn] if turn < (3 if "a" in transcript.prompt else 1) else None


def run(base: str, other: str, output: Path) -> SimpleNamespace:
    torch.manual_seed(0)  # of the adapters
    team = [*lora_team(base), Agent("w", other)]
    fields = {"per_device_train_batch_size": 4, "trust_region_radius": 1.0, "learning_rate": 0.02, "num_stages": 2}
    corrected = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate"}
    place = in_process(**corrected)
    trainer = make_trainer(output, team, router=route, max_turns=3, allow_silent_agents=True, **fields, **place)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


if __name__ == "__main__":
    engines = []
    if sys.argv[1] == "--fake":
        from fake_engine import FAKE, FakeLLM

        vllm_package.find_vllm = lambda: FAKE
        engines = FakeLLM.made
    base, other, folder = sys.argv[-3:]
    trainer = run(base, other, Path(folder) / "run")
    found = {
        "sums": {m.name: [p.double().sum().item() for p in m.model.parameters()] for m in trainer.members},
        "largest": [log["sampling/max"] for log in trainer.state.log_history if "sampling/max" in log],
        "processes": trainer.accelerator.num_processes,
        "kind": trainer.accelerator.distributed_type.value,
        "versions": [[len(engine.versions(name)) for name in "xy"] for engine in engines],
        "reloads": [engine.reloads for engine in engines],
        "held": [engine.held for engine in engines],
        "seeds": [engine.seeds for engine in engines],
    }
    (Path(folder) / f"colocated-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
