"""Logits of two policies at the same tokens, with one change of the weights and few logits in memory at a time."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..policy.head import Head, PartialLogits, StoredLogits
from ..policy.policy import Policy
from ..policy.processes import largest
from .snapshot import Snapshot


# Maximum number of logits of the old policy in host memory at a time: 32 GiB in float32. More of them take another change
# of the weights.
LOGITS_ON_HOST = 2**33
# Maximum number of tokens of a forward pass, padding included; a longer row is alone
TOKENS_PER_PASS = 2**14


@dataclass
class ScoredBatch:
    """
    Rows that are scored together, by both policies.

    Args:
        old, new (`dict`): Arguments of the forward pass of either policy, which may read different contexts.
        keep (`int`): Number of tokens at the end of each row whose logits are needed.
        positions (`int`): For how many of them logits are computed at a time.
    """

    old: dict[str, Any]
    new: dict[str, Any]
    keep: int
    positions: int

    @property
    def parts(self) -> list[slice]:
        """The positions whose logits are computed together."""
        return [slice(first, min(self.keep, first + self.positions)) for first in range(0, self.keep, self.positions)]


def both_logits(
    policy: Policy, batches: Sequence[ScoredBatch], snapshot: Snapshot | None, more_calls: int = 0
) -> Iterator[tuple[PartialLogits | StoredLogits, PartialLogits]]:
    """
    For each batch, the logits of the old policy and of the current one, to be indexed once for each of its parts, and
    `more_calls` times besides. The weights of the old policy are put into the model once for all batches (see
    `LOGITS_ON_HOST`).

    Meanwhile the hidden states of the old policy wait in host memory. Output embeddings that are trained get their old
    weights for each part, which costs nothing without DeepSpeed. With DeepSpeed, which would have to write and gather
    them, the old logits wait in host memory: `vocab` numbers per token, in the dtype of the model's output.

    Args:
        policy ([`Policy`]): The current policy. All processes call this together, with equally many batches.
        batches (`Sequence[ScoredBatch]`): What to score.
        snapshot ([`Snapshot`], *optional*): The old policy, if it is another.
        more_calls (`int`): How often the logits are indexed besides.
    """
    head, accelerator = Head(policy), policy.accelerator
    stored = snapshot is not None and head.is_trained and not snapshot.holds_layers
    parts = largest(accelerator, [len(batch.parts) for batch in batches])
    sizes = largest(accelerator, [_count(batch, policy.vocab_size) if stored else 0 for batch in batches])
    for group in _groups(sizes):
        with contextlib.nullcontext() if snapshot is None else snapshot.current_policy():
            kept = [_old_side(head, batches[i], parts[i], stored) for i in group]
        for i in group:
            batch, waiting = batches[i], kept.pop(0)
            old: PartialLogits | StoredLogits
            if stored:
                old = StoredLogits(waiting, accelerator.device)
            else:
                layer = (
                    contextlib.nullcontext
                    if snapshot is None or not head.is_trained
                    else partial(snapshot.current_layer, head.embeddings)
                )
                old = PartialLogits(head, waiting.to(accelerator.device), layer)
            new = PartialLogits(head, head.hidden_states(batch.new, batch.keep))
            yield old, new
            old.catch_up(parts[i] + more_calls)
            new.catch_up(parts[i] + more_calls)


def _old_side(head: Head, batch: ScoredBatch, num_parts: int, stored: bool) -> torch.Tensor:
    """What of the old policy waits in host memory: logits, or hidden states."""
    hidden = head.hidden_states(batch.old, batch.keep)
    if not stored:
        return hidden.cpu()
    logits = PartialLogits(head, hidden)
    found = [logits[:, part].cpu() for part in batch.parts]
    logits.catch_up(num_parts)
    return torch.cat(found, dim=1)


def _count(batch: ScoredBatch, vocab_size: int) -> int:
    return len(batch.old["input_ids"]) * batch.keep * vocab_size


def _groups(sizes: list[int]) -> list[list[int]]:
    """Consecutive batches whose logits fit into `LOGITS_ON_HOST`; a larger one is alone."""
    groups: list[list[int]] = []
    room = 0
    for i, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = LOGITS_ON_HOST
        groups[-1].append(i)
        room -= size
    return groups
