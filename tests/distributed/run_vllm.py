"""Two processes that speak through the vLLM servers of the test that launches them."""

import json
import sys
import warnings
from pathlib import Path

import torch
from tiny import make_trainer
from transformers.trainer_callback import PrinterCallback
from vllm_teams import lora_team, on_server

from trl_teamtr import Agent
from trl_teamtr.policy.generation.client import ServerClient


def route(transcript):
    """The first row of a process hears all agents, the others `x` alone in the first turn."""
    turn = len(transcript.messages)
    return "xyw"[turn] if turn < (3 if "a" in transcript.prompt else 1) else None


def run(base: str, url: str, other: str, other_url: str, output: Path) -> dict:
    torch.manual_seed(0)  # of the adapters
    team = [*lora_team(base), Agent("w", other, vllm_server_base_url=other_url)]
    fields = {"per_device_train_batch_size": 4, "trust_region_radius": 1.0, "learning_rate": 0.02, "num_stages": 2}
    corrected = {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate"}
    place = on_server(url, **corrected)
    trainer = make_trainer(output, team, router=route, max_turns=3, allow_silent_agents=True, **fields, **place)
    trainer.remove_callback(PrinterCallback)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    return {
        "repeated": sum("The turn is repeated" in str(warning.message) for warning in caught),
        "sums": {m.name: [p.double().sum().item() for p in m.model.parameters()] for m in trainer.members},
        "largest": [log["sampling/max"] for log in trainer.state.log_history if "sampling/max" in log],
        "processes": trainer.accelerator.num_processes,
        "kind": trainer.accelerator.distributed_type.value,
    }


if __name__ == "__main__":
    ServerClient.poll_interval = 0.05
    *servers, folder = sys.argv[1:]
    found = run(*servers, Path(folder) / "run")
    (Path(folder) / f"vllm-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
