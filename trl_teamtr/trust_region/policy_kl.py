"""The KL between an agent's policies before and after an update, on rollouts of the former (eq. 11)."""

from collections.abc import Sequence

import torch

from ..maths.kl import exact_kl, k3_kl
from ..policy.policy import Policy
from ..policy.processes import largest
from ..policy.scoring import message_mask, sequence
from ..policy.speaker import Speaker
from .snapshot import Snapshot
from .turn_radii import TurnRadii
from .two_policies import TOKENS_PER_PASS, ScoredBatch, both_logits


# Maximum number of logits of one policy in memory at a time, of which the KL holds five copies: 32 MiB each in float32
LOGITS_PER_CHUNK = 2**23


@torch.no_grad()
def exact_token_kl(policy: Policy, inputs: dict, snapshot: Snapshot, temperature: float) -> torch.Tensor:
    """
    KL(π_cur ‖ π_new) over the full vocabulary at each position, for `LOGITS_PER_CHUNK` logits at a time.

    Args:
        policy ([`Policy`]): π_new. All processes call this together.
        inputs (`dict`): Whole views, as padded tensors.
        snapshot ([`Snapshot`]): π_cur.
        temperature (`float`): Temperature of both.

    Returns:
        `torch.Tensor` of shape `(rows, completion length)`, in nats; to be masked with [`message_mask`].
    """
    return exact_token_kls(policy, [inputs], snapshot, temperature)[0]


@torch.no_grad()
def exact_token_kls(
    policy: Policy, micro_batches: Sequence[dict], snapshot: Snapshot, temperature: float
) -> list[torch.Tensor]:
    """[`exact_token_kl`] of several batches, with one change of the weights ([`both_logits`])."""
    batches, counts = list[ScoredBatch](), list[int]()
    for inputs in micro_batches:
        found = _split(policy, inputs)
        batches += found
        counts.append(len(found))
    kls = []
    for batch, (old, new) in zip(batches, both_logits(policy, batches, snapshot), strict=True):
        parts = [exact_kl(old[:, part], new[:, part], temperature) for part in batch.parts]
        kls.append(torch.cat(parts, dim=1))
    whole = iter(kls)
    return [torch.cat([next(whole) for _ in range(count)]) for count in counts]


def _split(policy: Policy, inputs: dict) -> list[ScoredBatch]:
    """Forward passes of few rows, equally many on every process."""
    input_ids, attention_mask, keep = sequence(inputs)
    (longest,) = largest(policy.accelerator, [input_ids.size(1)])
    size, batches = max(1, TOKENS_PER_PASS // longest), []
    for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
        call = {"input_ids": ids, "attention_mask": mask}
        positions = max(1, LOGITS_PER_CHUNK // (len(ids) * policy.vocab_size))
        batches.append(ScoredBatch(call, call, keep, positions))
    return batches


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
            of `micro_batches`, to which the present ones are added as `new_logps`.
        turn_radii ([`TurnRadii`]): How the messages are averaged.
        as_trained (`bool`): Whether to score in the precision of training, in which `scored_logps` then are.
    """
    total = torch.zeros(2, len(turn_radii.weights), device=speaker.policy.accelerator.device)
    if snapshot is not None:
        kls = exact_token_kls(speaker.policy, micro_batches, snapshot, speaker.sampling.temperature)
    else:
        for inputs in micro_batches:
            inputs["new_logps"] = speaker.token_logps(inputs, as_trained=as_trained)
        kls = [k3_kl(inputs["scored_logps"], inputs["new_logps"]) for inputs in micro_batches]
    for inputs, kl in zip(micro_batches, kls, strict=True):
        by_turn = turn_radii.by_turn(kl * message_mask(inputs), inputs)
        total += torch.stack([by_turn, turn_radii.count(inputs)])
    return turn_radii.measure(*speaker.policy.accelerator.reduce(total, reduction="sum"))


def token_log_ratios(micro_batches: Sequence[dict]) -> torch.Tensor:
    """
    log π_new - log π_cur of each token, from what [`mean_kl`] by k3 has added to all micro-batches of an update.

    Returns:
        `torch.Tensor` of shape `(rows, completion length)`, in the order of the rollouts.
    """
    ratios = torch.cat([inputs["new_logps"] - inputs["scored_logps"] for inputs in micro_batches])
    rows = torch.cat([inputs["row"] for inputs in micro_batches])
    return ratios[rows.argsort()]
