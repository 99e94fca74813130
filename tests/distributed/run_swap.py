"""
Trains a team of two on two processes for two of four stages, lets another model take the place of a member, and goes on from the
checkpoint: in one go, and stopped and resumed. Saves what both ended with.
"""

import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from resuming import StopAfter
from teams import weights_of
from tiny import PROMPTS, answer_reward, make_config

from trl_teamtr import Agent, TeamTRTrainer


def make(team, folder: Path, *callbacks) -> TeamTRTrainer:
    args = make_config(
        folder,
        per_device_train_batch_size=4,
        num_stages=4,
        save_strategy="steps",
        save_steps=2,
        lr_scheduler_type="linear",
        trust_region_radius=0.05,
    )
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    return TeamTRTrainer(team, answer_reward, args, train_dataset=dataset, callbacks=list(callbacks))


def run(models: Path, folder: Path, name: str) -> dict:
    first = make([Agent("x", str(models / "small")), Agent("y", str(models / "small"))], folder, StopAfter(4))
    first.train()
    path = first.replace_agent(Agent(name, str(models / "large")))
    (other,) = {"x", "y"} - {name}
    kept = {member.name: member.engine.optimizer.state for member in first.trained_members}[other]
    kept = [value.clone() for values in kept.values() for value in values.values()]
    begun = make(path, folder / "begun", StopAfter(4))
    begun._save_checkpoint = lambda *args: None
    begun.args.max_steps = 4  # nothing is left to do
    begun.train(resume_from_checkpoint=path)
    states = {member.name: member.engine.optimizer.state for member in begun.trained_members}
    found = {
        "kept": kept,
        "others": [value for values in states[other].values() for value in values.values()],
        "new": [value for values in states[name].values() for value in values.values()],
        "joined": [member.joined for member in begun.trained_members],
    }
    whole = make(path, folder / "whole")
    whole.train(resume_from_checkpoint=path)
    make(path, folder / "stopped", StopAfter(6)).train(resume_from_checkpoint=path)
    again = make(str(folder / "stopped" / "checkpoint-6"), folder / "stopped")
    again.train(resume_from_checkpoint=str(folder / "stopped" / "checkpoint-6"))
    for key, trainer in (("whole", whole), ("again", again)):
        found[key] = {member.name: weights_of(member) for member in trainer.members}
    return found


if __name__ == "__main__":
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    results = {name: run(models, output / name, name) for name in sys.argv[3:]}
    torch.save(results, output / f"swap-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
