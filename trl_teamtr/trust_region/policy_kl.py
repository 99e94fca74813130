"""The KL between an agent's policies before and after an update, over the full vocabulary."""

import torch

from ..maths.kl import exact_kl
from ..policy.policy import Policy
from ..policy.scoring import rows_per_chunk, sequence
from .snapshot import Snapshot


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
