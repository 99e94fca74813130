"""Which contexts are generated from together, and when each of their messages ends."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria


def plan_batches(
    lengths: Sequence[int], limits: Sequence[int], max_length: int, fits: Callable[[int, int], bool]
) -> list[list[int]]:
    """
    Divide rows into batches of similar length in which no row outgrows `max_length`, and whose cache fits: a row that has
    ended is fed padding until the last of its batch has ended, so it may grow by the largest limit of the batch.

    Args:
        lengths (`Sequence[int]`): Number of tokens of each row's context.
        limits (`Sequence[int]`): Number of tokens that each row may grow by. With its own each fits into `max_length`.
        max_length (`int`): Maximum number of tokens of a row.
        fits (`Callable[[int, int], bool]`): Whether the cache of a number of rows of a length fits. A row whose cache does
            not is alone.

    Returns:
        `list[list[int]]`: Indices of the rows of each batch, in their order.
    """
    batches = []
    waiting = sorted(range(len(lengths)), key=lambda row: -limits[row])
    while waiting:
        steps = limits[waiting[0]]
        group = {row for row in waiting if row == waiting[0] or lengths[row] + steps <= max_length}
        batches += _divide(group, lengths, limits, fits)
        waiting = [row for row in waiting if row not in group]
    return batches


def _divide(
    group: set[int], lengths: Sequence[int], limits: Sequence[int], fits: Callable[[int, int], bool]
) -> list[list[int]]:
    """Batches of the longest rows, of the next longest, and so on, as many as fit together."""
    batches: list[list[int]] = []
    width = steps = 0
    for row in sorted(group, key=lambda row: -lengths[row]):
        steps = max(steps, limits[row])
        if not batches or not fits(len(batches[-1]) + 1, width + steps):
            batches.append([])
            width, steps = lengths[row], limits[row]
        batches[-1].append(row)
    return [sorted(rows) for rows in batches]


def plan_passes(contexts: Sequence[int], messages: Sequence[int], max_tokens: int, max_rows: int) -> list[list[int]]:
    """
    Divide rows into forward passes of rows of similar length.

    Args:
        contexts, messages (`Sequence[int]`): Number of tokens of each row's context, padded on the left, and of its
            message, padded on the right.
        max_tokens (`int`): Maximum number of tokens of a pass, padding included. A row that has more is alone.
        max_rows (`int`): Maximum number of its rows.

    Returns:
        `list[list[int]]`: Indices of the rows of each pass, in their order.
    """
    passes: list[list[int]] = []
    widest = (0, 0)
    for row in sorted(range(len(contexts)), key=lambda row: -(contexts[row] + messages[row])):
        grown = (max(widest[0], contexts[row]), max(widest[1], messages[row]))
        rows = len(passes[-1]) + 1 if passes else 0
        if not passes or rows > max_rows or rows * sum(grown) > max_tokens:
            passes.append([])
            grown = (contexts[row], messages[row])
        passes[-1].append(row)
        widest = grown
    return [sorted(rows) for rows in passes]


class RowLimits(StoppingCriteria):
    """
    Ends each row at its own number of new tokens.

    Args:
        limits (`torch.Tensor` of shape `(rows,)`, int64): Maximum number of new tokens of each row.
        width (`int`): Number of tokens of the padded contexts.
    """

    def __init__(self, limits: torch.Tensor, width: int):
        self._limits, self._width = limits, width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        beams = len(input_ids) // len(self._limits)  # of a row, one after another
        return self._limits.repeat_interleave(beams) <= input_ids.size(1) - self._width
