"""Held-out rollouts that measure the KL: an update is not fitted to them, so they do not underestimate it."""

from typing import Any

import torch
from accelerate import Accelerator

from ..policy.scoring import loss_mask


def split_off_monitor(
    micro_batches: list[dict[str, Any]], fraction: float, accelerator: Accelerator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """
    Keep a share of the rows of each micro-batch out of the gradient.

    Args:
        micro_batches (`list[dict]`): As TRL makes them, shuffled.
        fraction (`float`): The share; 0 for none.
        accelerator ([`~accelerate.Accelerator`]): All processes call this together.

    Returns:
        `tuple` of the micro-batches to train on, whose `num_items_in_batch` and `num_messages_in_batch` count what is
        left, and those to monitor.
    """
    if fraction == 0:
        return micro_batches, []
    rows = len(micro_batches[0]["completion_ids"])
    kept = rows - round(fraction * rows)
    trained = [_take(batch, slice(0, kept)) for batch in micro_batches]
    counts = torch.stack(
        [
            torch.stack([loss_mask(batch).sum() for batch in trained]).sum(),
            torch.stack([batch["num_messages"].sum() for batch in trained]).sum(),
        ]
    )
    tokens, messages = accelerator.reduce(counts, reduction="sum")
    for batch in trained:
        batch |= {"num_items_in_batch": tokens, "num_messages_in_batch": messages}
    return trained, [_take(batch, slice(kept, rows)) for batch in micro_batches]


def _take(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The given rows of all values that have rows."""
    return {
        name: value[rows] if isinstance(value, list) or (value is not None and value.ndim > 0) else value
        for name, value in batch.items()
    }
