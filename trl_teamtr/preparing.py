"""What the members of a team need before the first stage of a run."""

import math
import os
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from . import checkpoint
from .engines import prepare_frozen


if TYPE_CHECKING:
    from .teamtr_trainer import TeamTRTrainer


def prepare_members(lead: "TeamTRTrainer", max_steps: int, dataloader: DataLoader, checkpoint_folder: str | None):
    """
    Optimizers, schedules and engines of all agents that are trained.

    Args:
        lead (`TeamTRTrainer`): The trainer of the team.
        max_steps (`int`): Updates in the run.
        dataloader ([`~torch.utils.data.DataLoader`]): The lead's.
        checkpoint_folder (`str`, *optional*): Checkpoint of the team to resume from.
    """
    num_stages = math.ceil(max_steps / len(lead.trained_members))
    lead.residency.release()
    for member in lead.members:
        if not member.agent.trainable:
            prepare_frozen(member)
    for member in lead.trained_members:
        folder = checkpoint_folder and os.path.join(checkpoint_folder, member.name)
        member.num_updates = num_stages
        if member is lead:
            lead._prepare_for_training(num_stages, dataloader, folder)
        else:
            member.train(resume_from_checkpoint=folder)
        if folder:
            checkpoint.load_member_state(member, folder)
    lead.residency.start()
