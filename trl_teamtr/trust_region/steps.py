"""The optimizer steps of a pass over an update's rollouts."""

from typing import Any

import torch
from accelerate import Accelerator


def split_into_steps(
    micro_batches: list[dict[str, Any]], size: int, accelerator: Accelerator
) -> list[list[dict[str, Any]]]:
    """
    Divide a pass into optimizer steps, as `gradient_accumulation_steps` says.

    Args:
        micro_batches (`list[dict]`): All of a pass.
        size (`int`): Number of micro-batches per step; the last step may have fewer.
        accelerator ([`~accelerate.Accelerator`]): All processes call this together.

    Returns:
        `list[list[dict]]`: The micro-batches of each step. If there are several, their `num_messages_in_batch` counts the
        messages of the step, over all processes; TRL itself rescales `num_items_in_batch`.
    """
    steps = [micro_batches[first : first + size] for first in range(0, len(micro_batches), size)]
    if len(steps) > 1:
        counts = torch.stack([torch.stack([part["num_messages"].sum() for part in step]).sum() for step in steps])
        for step, count in zip(steps, accelerator.reduce(counts, reduction="sum"), strict=True):
            for part in step:
                part["num_messages_in_batch"] = count
    return steps
