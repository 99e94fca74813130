"""The sequences that score an agent's messages, and how many of them fit into memory at a time."""

from collections.abc import Callable
from typing import Any

import torch

from .policy import Policy


def loss_mask(inputs: dict) -> torch.Tensor:
    """1 on the tokens that the loss counts: of the agent's own messages; shape `(rows, completion length)`."""
    return inputs["completion_mask"] * inputs["tool_mask"]


def message_mask(inputs: dict) -> torch.Tensor:
    """1 on the tokens of the agent's own messages, those that the loss leaves out included; shape as [`loss_mask`]."""
    return (inputs["message_numbers"] >= 0).long()


def sequence(inputs: dict) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Ids and attention mask of whole views, and the length of their completions."""
    input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention_mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return input_ids, attention_mask, inputs["completion_ids"].size(1)


def scored_on(model: Any, sampled_ids: torch.Tensor) -> Callable[..., Any]:
    """
    `model`, for TRL's computation of log-probabilities, which takes the ids that are read for those that were sampled.

    Args:
        model: Called with a few rows at a time, in order, and their `labels`.
        sampled_ids (`torch.Tensor` of shape `(rows, keep)`, int64): What was sampled at the last positions of all rows.
    """
    rows, keep = iter(sampled_ids), sampled_ids.size(1)

    def call(labels: torch.Tensor, **inputs):
        sampled = torch.stack([next(rows) for _ in labels])
        labels[:, -keep:] = torch.where(labels[:, -keep:] == -100, -100, sampled)
        return model(labels=labels, **inputs)

    return call


def rows_per_chunk(policy: Policy, length: int, max_logits: int) -> int:
    """How many rows of `length` positions have at most `max_logits` logits; the same on every process."""
    accelerator = policy.accelerator
    longest = accelerator.gather(torch.tensor([length], device=accelerator.device)).max().item()
    return max(1, int(max_logits // (longest * policy.vocab_size)))


def score_current(speaker: Any, trained: list[dict], monitored: list[dict], num_steps: int, decides: bool, all_: bool):
    """
    Score rollouts under the policy before an update, where its first pass does not yield that at no cost.

    Args:
        speaker ([`Speaker`]): Whose policy it is. All processes call this together.
        trained, monitored (`list[dict]`): Micro-batches that are trained on, and that the KL alone is measured on.
            `scored_logps` are added, by which the trust region decides, and `old_per_token_logps`, in the precision of
            training, to those that are trained on in several optimizer steps per pass.
        num_steps (`int`): Number of these steps.
        decides (`bool`): Whether there is a trust region.
        all_ (`bool`): Whether `scored_logps` are needed before the first pass.
    """
    several, as_it_trains = num_steps > 1, speaker.policy.scores_as_it_trains
    if decides:
        for part in [*trained, *monitored] if all_ or several or not as_it_trains else monitored:
            part["scored_logps"] = speaker.token_logps(part)
    for part in trained if several else []:
        known = decides and as_it_trains
        part["old_per_token_logps"] = part["scored_logps"] if known else speaker.token_logps(part, as_trained=True)
