"""The radius of an agent, for all of its turns together or for each of them."""

from collections.abc import Sequence

import torch

from ..conversation.router import RoundRobinRouter
from ..conversation.rules import RolloutRules
from ..maths.certificate import horizon_radii


class TurnRadii:
    r"""
    Measures an update's KL against the radius of the agent, or of each of its own turns.

    With one radius, d̂ is the mean KL of the agent's messages (eq. 11). With radii $\delta_u$ for its own turns $u$
    (`radius_schedule="horizon"`), it is $\delta \max_u \hat d_u / \delta_u$, with $\hat d_u$ the mean KL of its messages
    at turn $u$: within δ if and only if every turn is within its own radius.

    Args:
        radius (`float`, *optional*): δ, in nats per message.
        radii (`Sequence[float]`, *optional*): $\delta_u$ for each own turn. `None` for one radius for all.
    """

    def __init__(self, radius: float | None, radii: Sequence[float] | None = None):
        self.radii = radii
        # δ / δ_u: the weight of a turn's KL in d̂ and in the penalty
        weights = [1.0]
        if radii is not None:
            assert radius is not None  # radii for turns are made from the agent's radius
            weights = [radius / own for own in radii]
        self.weights = torch.tensor(weights)

    def by_turn(self, kl: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Sums of a masked KL per token over the agent's own turns.

        Args:
            kl (`torch.Tensor` of shape `(rows, length)`): In nats; 0 on what the agent read.
            inputs (`dict`): The batch; radii for each turn need its `message_numbers`.

        Returns:
            `torch.Tensor` of shape `(turns,)`, one turn if there is one radius.
        """
        if self.radii is None:
            return kl.sum()[None]
        numbers = inputs["message_numbers"].clamp(0, len(self.radii) - 1)
        return kl.new_zeros(len(self.radii)).scatter_add(0, numbers.flatten(), kl.flatten())

    def count(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Number of the agent's scored messages at each of its own turns; int64, shape `(turns,)`."""
        messages = inputs["num_messages"]
        if self.radii is None:
            return messages.sum()[None]
        first = inputs["first_message"][:, None]
        turns = torch.arange(len(self.radii), device=messages.device)
        return ((turns >= first) & (turns < first + messages[:, None])).sum(dim=0)

    def measure(self, sums: torch.Tensor, counts: torch.Tensor) -> float:
        """
        d̂, in nats per message, of sums ([`~TurnRadii.by_turn`]) and counts ([`~TurnRadii.count`]) over all processes.
        """
        return (sums / counts.clamp(min=1) * self.weights.to(sums)).max().item()


def count_own_turns(rules: RolloutRules, names: Sequence[str], name: str) -> int:
    """The largest number of turns that agent `name` may have in a rollout; all of them, unless the order is fixed."""
    if not isinstance(rules.router, RoundRobinRouter):
        return rules.max_turns
    return len(range(list(names).index(name), rules.max_turns, len(names)))


def make_turn_radii(radius: float | None, schedule: str, num_turns: int) -> TurnRadii:
    """
    The radii of an agent.

    Args:
        radius (`float`, *optional*): Its radius.
        schedule (`str`): `radius_schedule`.
        num_turns (`int`): The largest number of turns that it may have in a rollout ([`count_own_turns`]).
    """
    if schedule == "uniform" or radius is None:
        return TurnRadii(radius)
    return TurnRadii(radius, horizon_radii(radius, num_turns) if num_turns > 0 else None)
