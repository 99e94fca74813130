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
    return rows_in(int(longest), policy.vocab_size, max_logits)


def rows_in(length: int, vocab_size: int, max_logits: int) -> int:
    """How many rows of `length` positions have at most `max_logits` logits; at least one."""
    return max(1, int(max_logits // (length * vocab_size)))
