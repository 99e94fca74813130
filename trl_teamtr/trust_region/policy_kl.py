"""The KL between an agent's policies before and after an update, on rollouts of the former (eq. 11)."""

from collections.abc import Sequence

import torch

from ..maths.kl import exact_kl, k3_kl
from ..policy.policy import Policy
from ..policy.scoring import message_mask, rows_per_chunk, sequence
from ..policy.speaker import Speaker
from .snapshot import Snapshot
from .turn_radii import TurnRadii


# Maximum number of logits of one policy in memory at a time: 256 MiB in float32.
LOGITS_PER_CHUNK = 2**26


@torch.no_grad()
def exact_token_kl(policy: Policy, inputs: dict, snapshot: Snapshot, temperature: float) -> torch.Tensor:
    """
    KL(π_cur ‖ π_new) over the full vocabulary at each position, in chunks of rows whose logits fit into
    `LOGITS_PER_CHUNK` for each of the two policies.

    Args:
        policy ([`Policy`]): π_new. All processes call this together.
        inputs (`dict`): Whole views, as padded tensors.
        snapshot ([`Snapshot`]): π_cur.
        temperature (`float`): Temperature of both.

    Returns:
        `torch.Tensor` of shape `(rows, completion length)`, in nats; to be masked with [`message_mask`].
    """
    input_ids, attention_mask, keep = sequence(inputs)
    size, chunks = rows_per_chunk(policy, keep + 1, LOGITS_PER_CHUNK), []
    for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
        call = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": keep + 1, "use_cache": False}
        new = policy.logits(call)
        with snapshot.current_policy():
            chunks.append(exact_kl(policy.logits(call), new, temperature))
    return torch.cat(chunks)


@torch.no_grad()
def mean_kl(
    speaker: Speaker,
    micro_batches: Sequence[dict],
    snapshot: Snapshot | None,
    turn_radii: TurnRadii,
    as_trained: bool = False,
) -> float:
    """
    d̂ of the current weights against π_cur on the messages of `micro_batches`, in nats per message.

    Args:
        speaker ([`Speaker`]): Whose policy is π_new. All processes call this together.
        micro_batches (`Sequence[dict]`): Rollouts of π_cur.
        snapshot ([`Snapshot`], *optional*): π_cur, for the exact KL. Without it k3 is measured, on the `scored_logps`
            of `micro_batches`.
        turn_radii ([`TurnRadii`]): How the messages are averaged.
        as_trained (`bool`): Whether to score in the precision of training, in which `scored_logps` then are.
    """
    total = torch.zeros(2, len(turn_radii.weights), device=speaker.policy.accelerator.device)
    for inputs in micro_batches:
        if snapshot is not None:
            kl = exact_token_kl(speaker.policy, inputs, snapshot, speaker.sampling.temperature)
        else:
            kl = k3_kl(inputs["scored_logps"], speaker.token_logps(inputs, as_trained=as_trained))
        by_turn = turn_radii.by_turn(kl * message_mask(inputs), inputs)
        total += torch.stack([by_turn, turn_radii.count(inputs)])
    return turn_radii.measure(*speaker.policy.accelerator.reduce(total, reduction="sum"))
