"""What a message is worth: the mean return of rollouts that go on from it, and of those with another one in its place."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..conversation.transcript import Transcript
from .branches import repeat
from .drafts import Drafts
from .rollouts import Rollouts
from .turn_loop import TurnLoop


@dataclass(frozen=True)
class MessageValue:
    """
    The value of a message, in units of the return.

    Args:
        value (`float`): Mean return of rollouts that go on from the message.
        alternatives (`float`): Mean return of rollouts in which its author says something else, or the same again, in the
            same context.
        value_se, alternatives_se (`float`): Their standard errors; NaN for one rollout.
    """

    value: float
    alternatives: float
    value_se: float
    alternatives_se: float

    @property
    def advantage(self) -> float:
        """What the message brings over what its author says on average."""
        return self.value - self.alternatives

    @property
    def advantage_se(self) -> float:
        """Its standard error."""
        return math.hypot(self.value_se, self.alternatives_se)


def value_of(
    turn_loop: TurnLoop,
    rollouts: Rollouts,
    turn: int,
    score: Callable[[list[Transcript]], torch.Tensor],
    num_rollouts: int,
) -> MessageValue:
    """
    The value of one message of a rollout, for the present team. All processes call this together, each with a rollout.

    Args:
        turn_loop ([`TurnLoop`]): The team's.
        rollouts ([`Rollouts`]): One rollout, with the environments on which the team acted.
        turn (`int`): Which of its messages, from 0.
        score (`Callable[[list[Transcript]], torch.Tensor]`): Returns of rollouts, of shape `(rollouts,)`; NaN for none.
        num_rollouts (`int`): Number of rollouts with the message, and of those with others.

    Raises:
        `ValueError`: If there is no such message, or fewer than one rollout is asked for.
    """
    number = len(rollouts.transcripts[0].messages)
    if not 0 <= turn < number:
        raise ValueError(
            f"`turn` is {turn}, but the rollout has {number} messages: pass a number from 0 to {number - 1}."
        )
    if num_rollouts < 1:
        raise ValueError(f"`num_rollouts` must be at least 1, got {num_rollouts}.")
    standing = [turn + 1] * num_rollouts + [turn] * num_rollouts
    # One more, since the first keeps the environments of the given rollout, which nobody shall act on again
    drafts = Drafts(repeat(rollouts, 2 * num_rollouts + 1, turn_loop.acting), None, standing=[number, *standing])
    found = turn_loop.resample(drafts)
    returns = score(found.transcripts)[1:].double()
    (value, value_se), (others, others_se) = map(_mean, returns.split(num_rollouts))
    return MessageValue(value, others, value_se, others_se)


def _mean(returns: torch.Tensor) -> tuple[float, float]:
    """Mean and standard error of the returns that there are."""
    known = returns[~returns.isnan()]
    error = (known.std() / len(known) ** 0.5).item() if len(known) > 1 else math.nan
    return known.mean().item(), error
