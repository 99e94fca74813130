"""What of its messages an agent is trained on, and by how much each rollout counts."""

from typing import Any

import torch

from .rollouts import Rollouts


def apply_credit(batch: dict[str, Any], rollouts: Rollouts):
    """
    Weigh the advantages of `batch`, an agent's own of `rollouts`, and restrict its loss to the messages that are credited.

    The KL counts all messages of the rollouts that have the team's distribution, and no other: that is the occupancy on
    which the radius bounds it (eq. 11).

    Args:
        batch (`dict`): With `advantages`, `tool_mask`, `message_numbers` and `num_messages`, which are changed.
        rollouts ([`Rollouts`]): Of this process.
    """
    if rollouts.weights is not None:
        batch["advantages"] = batch["advantages"] * rollouts.weights.to(batch["advantages"])
    if rollouts.credited is not None:
        credited = rollouts.credited.to(batch["message_numbers"])[:, None]
        batch["tool_mask"] = batch["tool_mask"] * (batch["message_numbers"] == credited)
    if rollouts.team_every > 1:
        rows = torch.arange(len(batch["num_messages"]), device=batch["num_messages"].device)
        other = rows % rollouts.team_every != 0
        batch["message_numbers"] = batch["message_numbers"].masked_fill(other[:, None], -1)
        batch["num_messages"] = batch["num_messages"].masked_fill(other, 0)
