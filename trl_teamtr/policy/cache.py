"""How much memory the keys and values of a generation take, and how much there is for them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache

from .evaluating import evaluating


# What generation may use of the free memory of a device, if nobody says; and without a device that has its own, in GiB
SHARE_OF_FREE, WITHOUT_DEVICE = 0.5, 4.0
# Lengths at which a cache is measured: shorter than any sliding window in use, which then counts as no window at all
_SHORT, _LONG = 8, 16


@dataclass(frozen=True)
class CacheSize:
    """
    Size of the cache of a model.

    Args:
        per_row (`float`): Bytes of a row, whatever its length: the states of recurrences and convolutions.
        per_token (`float`): Bytes of each of its tokens: keys and values. An upper bound for sliding windows.
    """

    per_row: float
    per_token: float

    def fits(self, rows: int, length: int, budget: float) -> bool:
        """Whether `rows` of `length` tokens have a cache of at most `budget` bytes."""
        return rows * (self.per_row + length * self.per_token) <= budget


@torch.no_grad()
def measure_cache(model: Any, device: torch.device) -> CacheSize:
    """
    The size of the cache of `model`, from the caches of two short rows. A model that keeps its states in its own modules
    has none.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): Ready for `generate`; all processes that hold it
            call this together.
        device (`torch.device`): Where it is.
    """
    with evaluating([model]):
        short, long = (_count_bytes(model, length, device) for length in (_SHORT, _LONG))
    per_token = (long - short) / (_LONG - _SHORT)
    return CacheSize(short - _SHORT * per_token, per_token)


def _count_bytes(model: Any, length: int, device: torch.device) -> int:
    ids = torch.zeros(1, length, dtype=torch.long, device=device)
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    layers = [layer for value in output.values() if isinstance(value, Cache) for layer in value.layers]
    held = [value for layer in layers for value in vars(layer).values()]
    # Recurrent layers number their states
    flat = [part for value in held for part in (value.values() if isinstance(value, dict) else [value])]
    return sum(part.nbytes for part in flat if isinstance(part, torch.Tensor))


def find_budget(device: torch.device) -> float:
    """
    Bytes that the cache of a generation may take on `device`: half of its free memory, rounded down to a power of two, so
    that a run that is resumed divides its rows as before.
    """
    if device.type != "cuda":
        return WITHOUT_DEVICE * 2**30
    free, _ = torch.cuda.mem_get_info(device)
    return share_of(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def share_of(free: float) -> float:
    """Bytes that the cache of a generation may take where `free` are free."""
    return 2.0 ** math.floor(math.log2(SHARE_OF_FREE * max(free, 2**20)))
