"""The optimizer steps of a pass over an update's rollouts, and what is scored before the first of them."""

from typing import Any

import torch
from accelerate import Accelerator

from ..policy.speaker import Speaker


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


def score_current(
    speaker: Speaker, trained: list[dict], monitored: list[dict], num_steps: int, decides: bool, first: bool
):
    """
    Score rollouts under the policy before an update, where its first pass does not yield that at no cost.

    Args:
        speaker ([`Speaker`]): Whose policy it is. All processes call this together.
        trained, monitored (`list[dict]`): Micro-batches that are trained on, and that the KL alone is measured on.
            `scored_logps` are added, by which the trust region decides, and `old_per_token_logps`, in the precision of
            training, to those that are trained on in several optimizer steps per pass. All have these already if the
            importance-sampling correction needed them.
        num_steps (`int`): Number of these steps.
        decides (`bool`): Whether there is a trust region.
        first (`bool`): Whether `scored_logps` are needed before the first pass.
    """
    several, as_it_trains = num_steps > 1, speaker.policy.scores_as_it_trains
    corrected = "old_per_token_logps" in trained[0]
    if decides:
        for part in [*trained, *monitored] if first or several or corrected or not as_it_trains else monitored:
            known = corrected and as_it_trains
            part["scored_logps"] = part["old_per_token_logps"] if known else speaker.token_logps(part)
    for part in trained if several and not corrected else []:
        known = decides and as_it_trains
        part["old_per_token_logps"] = part["scored_logps"] if known else speaker.token_logps(part, as_trained=True)
