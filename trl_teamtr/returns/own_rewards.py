"""Rewards of one agent beside those of the team: its return is the sum of both."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from ..agents.agent import Agent
from ..conversation.transcript import Transcript
from ..teamtr_config import TeamTRConfig
from .returns import weigh_rewards
from .rewards import check_reward_funcs
from .scorer import RewardScorer


class OwnRewards:
    """
    The rewards that an agent has beside the team's.

    Args:
        agent ([`Agent`]): With `reward_funcs`, and perhaps their `reward_weights`.
        scorer ([`RewardScorer`]): Of these.
    """

    def __init__(self, agent: Agent, scorer: RewardScorer):
        self._agent, self._scorer = agent, scorer

    def add(
        self,
        returns: torch.Tensor,
        rows: Sequence[dict[str, Any]],
        transcripts: Sequence[Transcript],
        log_metric: Callable[[str, float], None],
        **arguments,
    ) -> torch.Tensor:
        """
        The agent's returns. Logs them, and the mean and the standard deviation of each of its own rewards.

        Args:
            returns (`torch.Tensor` of shape `(rows of all processes,)`): The team's; NaN where it has none.
            rows (`list[dict]`): Rows of the dataset, of this process. All processes call this together.
            transcripts (`list[Transcript]`): Their rollouts.
            log_metric (`Callable[[str, float], None]`): Logs a metric. Also passed to the functions.
            arguments: What [`~trl.GRPOTrainer`] passes to the functions besides: `trainer_state` and `log_extra`.

        Returns:
            `torch.Tensor` of shape `(rows of all processes,)`; NaN where neither the team nor the agent has a reward.
        """
        rewards, prefix = (
            self._scorer.rewards(rows, transcripts, log_metric=log_metric, **arguments),
            f"agent/{self._agent.name}",
        )
        for name, values in zip(self._scorer.names, rewards.unbind(dim=1), strict=True):
            given = values[~values.isnan()]
            log_metric(f"{prefix}/rewards/{name}/mean", given.mean().item())
            log_metric(f"{prefix}/rewards/{name}/std", given.std().item())
        both = torch.stack([returns, self._scorer.weigh(rewards).to(returns)], dim=1)
        total = weigh_rewards(both, torch.ones(2))
        log_metric(f"{prefix}/reward", total.nanmean().item())
        return total


def make_own_rewards(agent: Agent, args: TeamTRConfig, accelerator: Accelerator) -> OwnRewards | None:
    """
    The own rewards of `agent`, if it has any.

    Raises:
        `ValueError`: If something of the run that knows the team's rewards alone is switched on.
    """
    if agent.reward_funcs is None:
        return None
    who = f"Agent {agent.name!r} has `reward_funcs` of its own"
    if args.multi_objective_aggregation != "sum_then_normalize":
        raise ValueError(
            f"{who}, which are added to the team's rewards. With `multi_objective_aggregation="
            f"{args.multi_objective_aggregation!r}` rewards are normalised one by one: use 'sum_then_normalize'."
        )
    for name in ("log_certificate", "log_occupancy"):
        if getattr(args, name):
            raise ValueError(
                f"{who}, but `{name}` measures the team's return, which is not what it maximises. Leave it out."
            )
    funcs = check_reward_funcs(agent.reward_funcs, args.reward_timeout)
    models = [func for func in funcs if isinstance(func, str | nn.Module)]
    if models and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            f"{who}, one of them a model. Under DeepSpeed only functions are supported: call the model in one."
        )
    return OwnRewards(agent, RewardScorer(funcs, accelerator, weights=agent.reward_weights))
