"""Whether weights have changed, without a copy of them."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator


# Number of weights that are widened at a time
CHUNK = 2**22

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """
    Numbers that change if a bit of `weights` changes: sums of the bits as integers, each times an odd number of its place,
    so that a single change is never lost, and several cancel by a chance of about 2^-64.

    Args:
        weights (`Sequence[torch.Tensor]`): In any dtype.

    Returns:
        `torch.Tensor` of shape `(chunks,)`, int64.
    """
    sums = [torch.zeros((), dtype=torch.int64, device=weights[0].device)] if weights else []
    for tensor in weights:
        bits = tensor.detach().contiguous().view(_BITS[tensor.element_size()]).flatten()
        for chunk in bits.split(CHUNK):
            places = 2 * torch.arange(len(chunk), device=chunk.device) + 1
            sums.append((chunk.to(torch.int64) * places).sum())
    return torch.stack(sums) if sums else torch.zeros(0, dtype=torch.int64)


def differ(before: torch.Tensor, after: torch.Tensor, accelerator: Accelerator) -> bool:
    """Whether two fingerprints differ on any process. All processes call this together."""
    differences = (before != after).any().long().to(accelerator.device)
    return accelerator.reduce(differences, reduction="sum").item() > 0
