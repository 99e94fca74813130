"""What processes that share a model must agree on before they call it."""

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


def union(accelerator: Accelerator, items: set) -> set:
    """The items of all processes."""
    return set(gather_object(list(items))) if accelerator.num_processes > 1 else items


def largest(accelerator: Accelerator, number: int) -> int:
    """The largest `number` of all processes."""
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())
