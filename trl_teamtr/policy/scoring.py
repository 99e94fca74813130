"""The sequences that score an agent's messages, and how many of them fit into memory at a time."""

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


def rows_per_chunk(policy: Policy, length: int, max_logits: int) -> int:
    """How many rows of `length` positions have at most `max_logits` logits; the same on every process."""
    accelerator = policy.accelerator
    longest = accelerator.gather(torch.tensor([length], device=accelerator.device)).max().item()
    return max(1, int(max_logits // (longest * policy.vocab_size)))
