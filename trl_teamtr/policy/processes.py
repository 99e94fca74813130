"""What processes that share a model must agree on before they call it."""

from collections.abc import Sequence
from itertools import zip_longest

from accelerate import Accelerator
from accelerate.utils import gather_object


def union(accelerator: Accelerator, items: set) -> set:
    """The items of all processes."""
    return set(gather_object(list(items))) if accelerator.num_processes > 1 else items


def largest(accelerator: Accelerator, numbers: Sequence[int]) -> list[int]:
    """The largest of the numbers of all processes at each place. A process may have fewer of them than another."""
    found = gather_object([list(numbers)])
    return [max(column) for column in zip_longest(*found, fillvalue=0)]
