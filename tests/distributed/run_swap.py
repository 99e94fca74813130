"""
Trains teams on two processes for two of four stages, lets another model take the place of a member, and goes on from the
checkpoint: in one go, and stopped and resumed. Saves what was found.
"""

import os
import sys
from pathlib import Path

import shortcuts
import torch
from datasets import Dataset
from resuming import StopAfter
from teams import lora, weights_of
from tiny import PROMPTS, answer_reward, make_config

from trl_teamtr import Agent, TeamTRTrainer


NEW = {"full": "x", "adapter": "y"}  # the member whose place is given


def make(team, folder: Path, *callbacks, num_stages: int = 4) -> TeamTRTrainer:
    args = make_config(
        folder,
        per_device_train_batch_size=4,
        num_stages=num_stages,
        save_strategy="steps",
        save_steps=2,
        lr_scheduler_type="linear",
        trust_region_radius=0.05,
    )
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    return TeamTRTrainer(team, answer_reward, args, train_dataset=dataset, callbacks=list(callbacks))


def teams_of(kind: str, models: Path) -> list[list[Agent]]:
    """
    The team before; after, with other weights for the new member than it has; and one that it does not fit. `"full"`: the lead of two
    full members gives its place to one of another size. `"adapter"`: a full member gives it to an adapter on the base of the lead's
    and of a frozen one's.
    """
    torch.manual_seed(5)
    if kind == "full":
        other = Agent("y", str(models / "small"))
        return [[Agent("x", str(models / model)), other] for model in ("small", "large", "narrow")]
    lead, frozen = Agent("x", str(models / "base"), peft_config=lora()), Agent("f", str(models / "spoken"))
    frozen.trainable = False
    new = Agent("y", str(models / "base"), peft_config=lora())
    return [[lead, each, frozen] for each in (Agent("y", str(models / "small")), new)]


def moments_of(trainer: TeamTRTrainer) -> dict[str, list]:
    """What the optimizers hold, by member."""
    states = {member.name: member.engine.optimizer.state for member in trainer.trained_members}
    return {
        name: [torch.as_tensor(value).clone() for values in state.values() for value in values.values()]
        for name, state in states.items()
    }


def base_of(member) -> set[int]:
    return {id(weight) for name, weight in member.model.named_parameters() if "lora_" not in name}


def refused(team, folder: Path, path: str) -> str:
    try:
        make(team, folder, num_stages=2).train(resume_from_checkpoint=path)
    except ValueError as error:
        return str(error)
    return "nothing"


def run(models: Path, folder: Path, kind: str) -> dict:
    before, after, *unfit = teams_of(kind, models)
    first = make(before, folder, StopAfter(4))
    first.train()
    path = first.replace_agent(Agent(NEW[kind], str(models / f"new-{kind}")))
    begun = make(after, folder / "begun", num_stages=2)  # nothing is left to do
    begun.train(resume_from_checkpoint=path)
    whole = make(path, folder / "whole")
    found = {
        "before": moments_of(first),
        "after": moments_of(begun),
        "joined": {member.name: member.joined for member in begun.trained_members},
        "bases": len({frozenset(base_of(member)) for member in whole.members}),
        "kept": {member.name: weights_of(member) for member in first.members},
        "begun": {member.name: weights_of(member) for member in begun.members},
        "loaded": {member.name: weights_of(member) for member in whole.members},
        "refused": [refused(team, folder / "refused", path) for team in unfit],
    }
    whole.train(resume_from_checkpoint=path)
    make(path, folder / "stopped", StopAfter(6)).train(resume_from_checkpoint=path)
    again = make(str(folder / "stopped" / "checkpoint-6"), folder / "stopped")
    again.train(resume_from_checkpoint=str(folder / "stopped" / "checkpoint-6"))
    for key, trainer in (("whole", whole), ("again", again)):
        found[key] = {member.name: weights_of(member) for member in trainer.members}, moments_of(trainer)
    return found


if __name__ == "__main__":
    shortcuts.take()
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    results = {kind: run(models, output / kind, kind) for kind in sys.argv[3:]}
    torch.save(results, output / f"swap-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
