"""Rewards that environments give their own rollouts."""

import copy
from collections.abc import Callable
from typing import Any

from ..teamtr_config import TeamTRConfig
from ..tools import Environments, World
from .rewards import checked


def environment_rewards(environments: Environments | None) -> list[Callable]:
    """A reward function for each class of `environments` with a `get_reward`, named after it, as in [`~trl.GRPOTrainer`]."""
    return [checked(_make(name)) for name in environments.rewards] if environments is not None else []


def with_weights(args: TeamTRConfig, environments: Environments | None) -> TeamTRConfig:
    """`args`, in which the rewards of environments have the weight 1, if it weighs the others."""
    if environments is None or not environments.rewards or args.reward_weights is None:
        return args
    args = copy.copy(args)
    weights: Any = args.reward_weights  # `GRPOConfig` also allows a string, which it parses when it is made
    args.reward_weights = [*weights, *[1.0] * len(environments.rewards)]
    return args


def _make(name: str) -> Callable:
    def reward(worlds: list[World], **kwargs) -> list[float]:
        return [world.rewards()[name] for world in worlds]

    reward.__name__ = name  # TRL names the metrics after it
    return reward
