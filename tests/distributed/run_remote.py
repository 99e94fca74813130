"""Two processes of a team with a remote member, whose endpoint is of the test that launches them."""

import json
import sys
from pathlib import Path

import torch
from tiny import make_team, make_trainer
from transformers.trainer_callback import PrinterCallback

from trl_teamtr import Agent
from trl_teamtr.policy.remote import RemoteMemberError
from trl_teamtr.policy.remote.endpoint import EndpointClient


def make(url: str, output: Path):
    x, z = make_team(2)
    z.name = "z"
    team = [x, Agent("y", endpoint=url, model="tiny"), z]
    fields = {"per_device_train_batch_size": 4, "trust_region_radius": 1.0, "learning_rate": 0.02, "num_stages": 2}
    trainer = make_trainer(output, team, num_rounds=2, **fields)
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(url: str, mortal: str, output: Path) -> dict:
    trainer, told = make(mortal, output), None
    try:
        trainer.train()
    except RemoteMemberError as error:
        told = str(error)
    step = trainer.state.global_step
    resumed = make(url, output)
    resumed.train(resume_from_checkpoint=True)
    whole = make(url, output.parent / "whole")
    whole.train()
    sums = [[p.double().sum().item() for m in t.members for p in m.model.parameters()] for t in (resumed, whole)]
    return {"told": told, "step": step, "sums": sums, "processes": trainer.accelerator.num_processes}


if __name__ == "__main__":
    EndpointClient.backoff = 0.0
    *urls, folder = sys.argv[1:]
    found = run(*urls, Path(folder) / "run")
    (Path(folder) / f"remote-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
