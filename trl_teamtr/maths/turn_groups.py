"""Groups by turn: where the rollouts of a group part, and how much each group counts."""

from collections.abc import Sequence

import torch


CREDITS = ("suffix", "message")


def branch_turns(own_turns: Sequence[int], credit: str) -> list[int]:
    """
    The turns of a trunk from which the turn of its branches is drawn, uniformly.

    Neither may the draw know more, such as returns: the expected gradient would no longer be that of the mean return.

    Args:
        own_turns (`Sequence[int]`): The turns of the updated agent in the trunk, in order.
        credit (`str`): `"suffix"`, for its first turn, or `"message"`, for all of them.

    Returns:
        `list[int]`: Empty if the agent has no turn.

    Raises:
        `ValueError`: If there is no such credit.
    """
    _check(credit)
    return list(own_turns[:1] if credit == "suffix" else own_turns)


def group_weights(num_own_turns: torch.Tensor, num_generations: int, credit: str) -> torch.Tensor:
    r"""
    By how much the advantages of each rollout are multiplied, in groups of a trunk and its branches.

    With `"message"` one of the trunk's $N$ own turns is trained. It was drawn with probability $1/N$, so that all rollouts
    of the group have the weight $N$ of the *trunk*. The number of a branch depends on the message that it is the credit
    of, and would bias the gradient. With `"suffix"` nothing was drawn. A trunk without an own turn has the weight 0 and
    counts in the denominator.

    Args:
        num_own_turns (`torch.Tensor` of shape `(num_groups,)`): Number of turns of the updated agent in each trunk.
        num_generations (`int`): Size G of a group.
        credit (`str`): `"suffix"` or `"message"`.

    Returns:
        `torch.Tensor` of shape `(num_groups * num_generations,)`, float32.

    Raises:
        `ValueError`: If there is no such credit.
    """
    _check(credit)
    weights = num_own_turns.clamp(max=1) if credit == "suffix" else num_own_turns
    return weights.float().repeat_interleave(num_generations)


def _check(credit: str):
    if credit not in CREDITS:
        raise ValueError(f"`credit` is {credit!r}; it must be one of {', '.join(map(repr, CREDITS))}.")
